"""The same bytes on another release of Debian, whose tools are older or newer than those here."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.product import SOURCES
from tests.system.conftest import Road

pytestmark = [pytest.mark.system, pytest.mark.long]

PACKAGES = (
    *("dosfstools", "e2fsprogs", "gpgv", "mtools", "pigz", "xz-utils", "zstd", "util-linux"),
    "gnupg",
    *("python3", "python3-pydantic", "python3-rich", "python3-typer", "python3-yaml"),
)
ENTER = """\
mount --rbind /dev "$0/dev"
mount -t proc proc "$0/proc"
exec chroot "$0" "$@"
"""


@pytest.fixture(scope="module")
def other(ground: Path) -> Path:
    """The tree of a release of Debian that is not the one of this machine, with the product."""
    if os.geteuid() != 0:
        pytest.skip("only root can enter another system")
    here = platform.freedesktop_os_release().get("VERSION_CODENAME")
    release = "bookworm" if here == "trixie" else "trixie"
    root = ground / release
    words = ["--variant=minbase", f"--include={','.join(PACKAGES)}", release]
    run.run(["mmdebstrap", *words, root], timeout=1800)
    home = root / "coreimage"
    shutil.copytree(SOURCES / "src", home)
    shutil.copytree(SOURCES / "oem", root / "oem")
    found = importlib.metadata.distribution("coreimage")
    information = f"coreimage-{found.version}.dist-info"
    shutil.copytree(Path(str(found.locate_file(information))), home / information)
    return root


def test_the_same_bytes(road: Road, other: Path) -> None:
    """Without a loader in the OEM package GRUB would be the machine's own."""
    package = other / "oem.tar.xz"
    road.product.run("oem", "build", "generic-amd64", "--with-loader", "--output", package)
    words = ["core", "13", "--channel", "edge"]
    ours = other / "ours.img"
    road.product.run("flash", *words, "--oem", package, "--output", ours)

    shutil.copytree(road.channels, other / "tree", symlinks=True)
    shutil.copy(road.workspace / "trust/archive-master.tar.xz", other / "trust.tar.xz")
    argv = ["python3", "-m", "coreimage", "flash", *words, "--server", "/tree"]
    argv += ["--oem", "/oem.tar.xz", "--output", "/x.img", "--archive-master", "/trust.tar.xz"]
    enter = ["unshare", "--mount", "sh", "-ec", ENTER, str(other)]
    run.run([*enter, "env", "PYTHONPATH=/coreimage", "HOME=/root", *argv], timeout=600)
    compared = run.run(["cmp", ours, other / "x.img"], check=False)
    assert compared.status == 0, compared.stdout.decode()
