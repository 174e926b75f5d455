"""How to use cloud-init, done word for word: its definition built, its user data at work."""

import re
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.product import SOURCES, Product
from tests.system.test_journey import ask, booted

pytestmark = [pytest.mark.system, pytest.mark.long]

PAGE = SOURCES / "docs/how-to/use-cloud-init.md"


def commands(after: str) -> str:
    """Return the indented lines of the page that follow a text, as a shell script."""
    _, found, rest = PAGE.read_text().partition(after)
    assert found, after
    block = re.match(r"(?:.*\n)*?\n((?:    .*\n|\n)+)", rest)
    assert block is not None
    return re.sub("^    ", "", block[1], flags=re.MULTILINE)


def test_user_data_takes_effect(ground: Path) -> None:
    folder = ground / "cloud"
    folder.mkdir()
    product, key = Product(folder=folder), folder / "key"
    product.run("init", "workspace")
    run.run(["sh", "-ec", commands("Make a definition that")], cwd=folder)
    words = ["cloud-core", "--release", "13", "--output", "out", "--workspace", "workspace"]
    product.run("rootfs", "build", *words)
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    write, _, _ = commands("Write user data").partition("coreimage pipeline")
    public = key.with_suffix(".pub").read_text().strip()
    write = write.replace("ssh-ed25519 AAAA... anna", public)
    run.run(["sh", "-ec", write], cwd=folder)
    words = ["--rootfs", "out", "--cloud-init", "user-data", "--hostname", "cloud-7"]
    product.run("flash", "core", *words, "--enable-ssh", "--output", "cloud.img")

    with booted(product, folder / "cloud.img") as port:
        # The key is in the user data alone.
        assert ask(port, key, "cloud-init status --wait") == "status: done"
        assert ask(port, key, "cat /var/lib/coreimage/greeting") == "hello"
        assert ask(port, key, "cloud-init query ds.meta_data.local_hostname") == "cloud-7"
        assert ask(port, key, "hostname") == "cloud-7"
        assert ask(port, key, "systemctl is-system-running --wait") == "running"
    (log,) = folder.glob("cloud.*.log")
    assert b"from runcmd" in log.read_bytes()
