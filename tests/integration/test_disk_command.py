"""The commands disk show and disk verify, on disks of a real signed tree."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib import run
from tests.integration import channel_tree

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9nBWPrYPuTd7f8CdXbNLSCEmZ0iC8MpbQZrpM3iF1j me"
SLOT_A = 278528 * 512
BOOT = 16384 * 512


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    now = datetime.now(UTC)
    made = channel_tree.make_workspace(tmp_path_factory.mktemp("disk") / "workspace", now=now)
    channel_tree.publish(made, 7, now=now)
    home = made.root.parent
    (home / "me.pub").write_text(KEY)
    words = ("flash", "core", "13", "--channel", "edge", "--ssh-key", "me.pub")
    assert coreimage(*words, "-o", "x.img", cwd=home).status == 0
    yield made
    (home / "x.img").unlink()


def coreimage(*words: str | Path, cwd: Path) -> run.Completed:
    argv: list[str | Path] = [sys.executable, "-m", "coreimage", *words]
    return run.run(argv, cwd=cwd, check=False, env={"COLUMNS": "120"})


def write(disk: Path, offset: int, data: bytes) -> bytes:
    with disk.open("r+b") as file:
        file.seek(offset)
        before = file.read(len(data))
        file.seek(offset)
        file.write(data)
    return before


def test_a_disk_tells_what_it_is(workspace: Workspace) -> None:
    home = workspace.root.parent
    ended = coreimage("disk", "show", "x.img", "--json", cwd=home)
    facts = json.loads(ended.stdout)
    assert (facts["table"], facts["sector_size"], facts["size"]) == ("gpt", 512, 4_000_000_000)
    assert facts["slots"]["a"]["version"] == "7"
    assert facts["slots"]["a"]["channel"] == channel_tree.CHANNEL
    assert facts["slots"]["b"]["version"] == ""
    assert facts["boot"]["snappy_ab"] == "a"
    assert facts["install"]["options"]["oem"] == "generic-amd64"
    assert facts["ssh"] is True
    (fingerprint,) = facts["ssh_keys"]
    text = coreimage("disk", "show", "x.img", cwd=home).stdout.decode()
    assert f"may log in: core, by {fingerprint} me" in text
    assert "version 7 debian-core/13/edge" in text


def test_the_keys_of_every_user_are_shown(workspace: Workspace) -> None:
    home = workspace.root.parent
    before = json.loads(coreimage("disk", "show", "x.img", "--json", cwd=home).stdout)
    (writable,) = [each for each in before["partitions"] if each["name"] == "writable"]
    image = f"x.img?offset={writable['start']}"
    keys = "/system-data/var/lib/coreimage/ssh/authorized_keys"
    run.run(["debugfs", "-w", "-R", f"write me.pub {keys}/anna", image], cwd=home)

    facts = json.loads(coreimage("disk", "show", "x.img", "--json", cwd=home).stdout)
    assert facts["logins"] == {"anna": before["ssh_keys"], "core": before["ssh_keys"]}
    text = coreimage("disk", "show", "x.img", cwd=home).stdout.decode()
    assert f"may log in: anna, by {before['ssh_keys'][0]} me" in text
    run.run(["debugfs", "-w", "-R", f"rm {keys}/anna", image], cwd=home)


def test_a_disk_as_it_was_made_is_verified(workspace: Workspace) -> None:
    home = workspace.root.parent
    ended = coreimage("disk", "verify", "x.img", cwd=home)
    assert ended.status == 0, ended.stdout + ended.stderr
    assert b"version 7" in ended.stdout
    # What a running system changes is its own.
    run.run(["mdel", "-i", f"x.img@@{BOOT}", "::/EFI/ubuntu/grub/grubenv"], cwd=home)
    assert coreimage("disk", "verify", "x.img", cwd=home).status == 0
    assert not list(home.glob(".scratch-*"))


def test_a_disk_with_a_package_of_its_own_is_verified_without_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    package = tmp_path / "hello/meta/package.yaml"
    package.parent.mkdir(parents=True)
    package.write_text('name: hello\nversion: "1.0"\n')
    here = ("--workspace", workspace.root)
    words = ("flash", "core", "13", "--channel", "edge", "--install", "hello", "-o", "own.img")
    ended = coreimage(*words, *here, cwd=tmp_path)
    assert ended.status == 0, ended.stderr
    assert b" Package: hello 1.0" in ended.stdout
    ended = coreimage("disk", "verify", "own.img", *here, cwd=tmp_path)
    assert ended.status == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("offset", "says"),
    [
        (SLOT_A + (900 << 20), "system-a: byte 943718400 differs"),
        (100, "boot code"),
        (446, "partition table"),
        (8192 * 512 + 700, "GRUB"),
    ],
)
def test_one_byte_is_noticed(workspace: Workspace, offset: int, says: str) -> None:
    home = workspace.root.parent
    before = write(home / "x.img", offset, b"\xa5")
    ended = coreimage("disk", "verify", "x.img", "--json", cwd=home)
    write(home / "x.img", offset, before)
    assert ended.status == 1, ended.stderr
    (found,) = json.loads(ended.stdout)["differences"]
    assert says in f"{found['where']}: {found['what']}"


def test_boot_files_are_compared_by_name(workspace: Workspace) -> None:
    home = workspace.root.parent
    (home / "evil").write_bytes(b"evil")
    drive = f"x.img@@{BOOT}"
    run.run(["mcopy", "-o", "-i", drive, "evil", "::/EFI/BOOT/EVIL.EFI"], cwd=home)
    ended = coreimage("disk", "verify", "x.img", cwd=home)
    run.run(["mdel", "-i", drive, "::/EFI/BOOT/EVIL.EFI"], cwd=home)
    assert ended.status == 1
    assert ended.stdout == b"system-boot: /EFI/BOOT/EVIL.EFI: should not be there\n"


def test_what_is_no_disk_of_ours_is_named(workspace: Workspace) -> None:
    home = workspace.root.parent
    (home / "zeros").write_bytes(bytes(1 << 20))
    ended = coreimage("disk", "show", "zeros", cwd=home)
    assert ended.status == 65
    assert b"no partition table" in ended.stderr
    assert coreimage("disk", "show", "absent", cwd=home).status == 66
