"""From packages to a running machine, on real packages."""

import json
import re
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.product import Product
from tests.system.conftest import Road

pytestmark = pytest.mark.system


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_disk_boots_to_a_healthy_system(road: Road, firmware: str, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    words = ["boot", road.disk, "--test", "--firmware", firmware, "--console-log", log]

    (report,) = road.product.json(*words)

    assert report["outcome"] == "passed"
    assert b"coreimage-report: state=running failed=- slot=a build=1" in log.read_bytes()


def test_the_disk_is_sparse_and_of_the_size_that_was_asked_for(road: Road) -> None:
    asked = run.run(["qemu-img", "info", "--output=json", road.disk]).stdout

    assert json.loads(asked)["virtual-size"] == 4_000_000_000
    assert json.loads(asked)["actual-size"] < 700 << 20


def test_independent_readers_agree_about_the_disk(road: Road) -> None:
    table = json.loads(run.run(["sfdisk", "--json", road.disk]).stdout)["partitiontable"]

    assert [each["name"] for each in table["partitions"]] == [
        *("grub", "system-boot", "system-a", "system-b", "writable")
    ]
    assert b"No problems found" in run.run(["sgdisk", "--verify", road.disk]).stdout


def test_a_second_run_finds_nothing_to_do(road: Road) -> None:
    before = road.disk.stat()
    words = ["pipeline", "run", "debian-core", "--release", "13", "--output", road.disk]

    done = road.product.run(*words)

    assert "nothing changed since build 1" in done.stderr.decode()
    assert "is up to date: version 1" in done.stderr.decode()
    after = road.disk.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert road.product.json("image", "list", "debian-core/13/edge", "generic_amd64")


def test_ubuntu_device_flash_makes_the_same_disk_from_a_server(road: Road, tmp_path: Path) -> None:
    words = ["core", "13", "--channel", "edge", "--output", "x86.img"]
    flash = Path(road.product.python).with_name("ubuntu-device-flash")
    with served(road) as url:
        trust = ["--archive-master", str(road.workspace / "trust/archive-master.tar.xz")]
        done = run.run([flash, "--server", url, *words, *trust], cwd=tmp_path)

    assert "New image complete" in done.stdout.decode()
    assert re.search(r" Version: 1\nLaunch by running: .* -m 768 x86.img", done.stdout.decode())
    assert run.run(["cmp", road.disk, tmp_path / "x86.img"], check=False).status == 0
    command = re.search(r"Launch by running: (.*)", done.stdout.decode())
    assert command is not None
    assert b" state=running failed=- slot=a build=1 " in console_of(command[1], tmp_path)


def console_of(command: str, folder: Path) -> bytes:
    """Run what the summary told to run, without its window, and return what the system said."""
    log = folder / "console.log"
    words = [*shlex.split(command), "-snapshot", "-display", "none", "-serial", f"file:{log}"]
    with run.start(words, cwd=folder) as machine:
        deadline = time.monotonic() + 600
        while not log.exists() or not re.search(rb"coreimage-report: .*\n", log.read_bytes()):
            assert machine.poll() is None
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.5)
        run.terminate(machine)
    return log.read_bytes()


@contextmanager
def served(road: Road) -> Iterator[str]:
    words = ["serve", "--port", "0", "--workspace", road.workspace]
    with run.start(road.product.argv(*words), stdout=run.PIPE) as server:
        assert server.stdout is not None
        yield server.stdout.readline().decode().split()[-1]
        run.terminate(server)


SERVICE = """\
name: hello
version: "1.0"
services:
  - name: greeter
    start: bin/greet "a word"
"""
GREET = """\
#!/bin/sh
echo "$@: uid $(id -u), $(cat /etc/credstore/token 2> /dev/null || echo no) secrets"
echo kept > "$SNAP_APP_DATA_PATH/state" && touch /usr/x || exec sleep infinity
"""
NETWORK = """\
network: {version: 2, ethernets: {any: {match: {name: "e*"}, dhcp4: true}}}
"""


def own(folder: Path) -> list[str]:
    """Return options for what a machine has of its own."""
    for path, text in {
        "hello/meta/package.yaml": SERVICE,
        "hello/bin/greet": GREET,
        "lab.yaml": NETWORK,
        "token": "geheim",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "hello/bin/greet").chmod(0o755)
    return [
        *("--install", f"{folder}/hello", "--hostname", "kiosk-7"),
        *("--network", f"{folder}/lab.yaml", "--credential", f"token={folder}/token"),
    ]


def test_keys_open_the_system_and_passwords_do_not(road: Road, tmp_path: Path) -> None:
    disk, key = tmp_path / "x86.img", tmp_path / "key"
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    words = ["core", "13", "--channel", "edge", "--output", disk]
    road.product.run("flash", *words, "--ssh-key", f"{key}.pub", *own(tmp_path))
    road.product.run("disk", "verify", disk)

    with booted(road.product, disk) as port:
        assert ask(port, key, "hostname") == "kiosk-7"
        assert ask(port, key, "systemctl is-active hello_greeter") == "active"
        said = ask(port, key, "journalctl --unit hello_greeter --output cat")
        assert re.search(r"^a word: uid 6\d{4}, no secrets$", said, re.MULTILINE)
        assert ask(port, key, "sudo cat /var/lib/coreimage/apps/hello/state") == "kept"
        assert ask(port, key, "sudo cat /etc/credstore/token") == "geheim"
        assert "10-netplan-any.network" in ask(port, key, "networkctl status --no-pager 'e*'")
        assert ask(port, key, "sudo id -u") == "0"
        assert ask(port, key, "touch /etc/x /usr/x 2>&1 | grep -c 'Read-only'") == "2"
        assert ask(port, key, "sudo cut -d: -f2 /etc/shadow | grep -v '^[!*]'; true") == ""
        assert ask(port, key, "ls /etc/ssh/*_key 2>/dev/null | wc -l") == "0"
        assert "password" not in methods(port)
        first = ask(port, key, "cat /etc/machine-id; cat /var/lib/coreimage/ssh/*.pub")
        ask(port, key, "echo kept > ~/kept; sync")
        ask(port, key, "sudo systemctl poweroff", check=False)
    with booted(road.product, disk) as port:
        assert ask(port, key, "cat /etc/machine-id; cat /var/lib/coreimage/ssh/*.pub") == first
        assert ask(port, key, "cat kept; systemctl is-system-running --wait") == "kept\nrunning"


@pytest.mark.long
def test_developer_mode_makes_a_key_and_opens_the_console(road: Road, tmp_path: Path) -> None:
    disk = tmp_path / "x86.img"
    words = ["core", "13", "--channel", "edge", "--output", disk, "--developer-mode"]
    done = road.product.run("flash", *words, "--user", "anna")

    private = tmp_path / "x86.img.ssh-key"
    assert private.stat().st_mode & 0o777 == 0o600
    assert str(private) in done.stdout.decode()
    with booted(road.product, disk) as port:
        test = "test -e /var/lib/coreimage/developer-mode && sudo id -u"
        assert ask(port, private, test, user="anna") == "0"
        assert "anna" in ask(port, private, WHO_HAS_THE_CONSOLE, user="anna").split()


WHO_HAS_THE_CONSOLE = """
for each in /proc/[0-9]*; do
    [ "$(readlink $each/fd/0)" = /dev/ttyS0 ] && stat --format=%U $each
done
true
"""


@contextmanager
def booted(product: Product, disk: Path) -> Iterator[int]:
    """Yield the port of a running machine's ssh server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = disk.with_suffix(f".{port}.log")
    with (
        log.open("wb") as console,
        run.start(
            product.argv("boot", disk, "--ssh-port", str(port)), stdout=console, stderr=console
        ) as machine,
    ):
        deadline = time.monotonic() + 240
        while b"coreimage-report: state=" not in log.read_bytes():
            assert machine.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.5)
        yield port
        run.terminate(machine)


SSH = [
    *("ssh", "-p", "{port}", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
    *("-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60", "-o", "BatchMode=yes"),
]
# In an emulated guest, agreeing about keys takes a second or two: once is enough.
ONCE = ["-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o", "ControlPath={folder}/{port}"]


def ask(port: int, key: Path, command: str, *, check: bool = True, user: str = "core") -> str:
    """Run a command in the machine and return what it printed."""
    argv = [word.format(port=port, folder=key.parent) for word in (*SSH, *ONCE)]
    identity = ["-o", "IdentitiesOnly=yes", "-i", str(key)]
    return (
        run.run([*argv, *identity, f"{user}@127.0.0.1", command], check=check, timeout=180)
        .stdout.decode()
        .strip()
    )


def methods(port: int) -> str:
    """Return how the machine would let somebody without a key in."""
    argv = [word.format(port=port) for word in SSH]
    options = ["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=none"]
    done = run.run([*argv, *options, "core@127.0.0.1", "true"], check=False, timeout=180)
    assert done.status
    return done.stderr.decode()


def test_a_disk_of_an_older_version_is_kept(copy: Road) -> None:
    words = ["pipeline", "run", "debian-core", "--release", "13", "--output", copy.disk]
    copy.product.run(*words)
    own = copy.workspace / "definitions/debian-core"
    own.mkdir()
    shipped = Path(__file__).parents[2] / "definitions/debian-core"
    run.run(["cp", "-a", f"{shipped}/.", own])
    (own / "includes.chroot/etc/motd").write_text("version two\n")

    copy.product.run(*words)

    assert (copy.disk.parent / "x86.1.img").exists()
    listed = copy.product.json("image", "list", "debian-core/13/edge", "generic_amd64")
    assert sorted(each["version"] for each in listed) == [1, 2]


@pytest.mark.long
def test_debian_12_boots_too(ground: Path, road: Road) -> None:
    del road  # the workspace that it made
    product = Product(folder=ground)
    words = ["pipeline", "run", "debian-core", "--release", "12", "--output", "bookworm.img"]
    product.run(*words)

    (report,) = product.json("boot", "bookworm.img", "--test", "--firmware", "bios")

    assert report["outcome"] == "passed"
