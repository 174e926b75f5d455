"""N sizes at the edge."""

import hashlib
import re
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import DataError, TrustError
from coreimage.lib import run
from coreimage.lib.fetch import check_digest
from tests.integration import channel_tree, liar
from tests.support.attacks import Client, Thief, served
from tests.support.disks import content_of, place_of


@pytest.mark.long
def test_n1_all_of_a_very_large_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((4 << 30) + 2)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with path.open("r+b") as file:
        check_digest(file, digest, name="large")
        file.seek(-1, 2)
        file.write(b"\1")
        with pytest.raises(TrustError, match=digest):
            check_digest(file, digest, name="large")


def test_n2_a_payload_file_without_a_byte(
    workspace: Workspace,
    client: Client,
) -> None:
    version = channel_tree.version_files(
        3, channel=channel_tree.CHANNEL, device=channel_tree.DEVICE
    )
    channel_tree.publish(
        workspace,
        3,
        files={
            "/pool/ubuntu-{}.tar.xz": b"",
            f"/{channel_tree.CHANNEL}/{channel_tree.DEVICE}/version-3.tar.xz": channel_tree.tarball(
                version
            ),
        },
    )
    # It is what was signed, and makes no disk.
    assert client.fetch(str(workspace.channel_tree)) == 3
    with pytest.raises(DataError):
        client.flash(str(workspace.channel_tree))
    assert not client.output.exists()


# A partition table of its own: what is filled to the last byte must be small.
BOARD = """\
name: small
version: "1.0"
oem:
  hardware:
    bootloader: grub
    architecture: amd64
    disk: {system-size: 16M, boot-size: 34M}
    boot-assets:
      raw-partitions:
        - {name: data, size: 64K, path: data}
"""
BLOCK = 4096


def board(folder: Path, size: int) -> Path:
    """Make an OEM package whose raw partition of 64 KiB begins with a file of `size` bytes."""
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/package.yaml").write_text(BOARD)
    (folder / "data").write_bytes(b"\xff" * size)
    return folder


def room(disk: Path, part: Path) -> tuple[int, int]:
    """Return the free bytes of system-a and of system-boot, as e2fsprogs and fsck.fat count."""
    start, _ = place_of(disk, "system-a")
    said = run.run(["dumpe2fs", "-h", f"{disk}?offset={start}"]).stdout.decode()
    blocks = re.search(r"Free blocks: +([0-9]+)", said)
    start, size = place_of(disk, "system-boot")
    with disk.open("rb") as source, part.open("wb") as target:
        source.seek(start)
        target.write(source.read(size))
    said = run.run(["fsck.fat", "-nv", part]).stdout.decode()
    unit = re.search(r"([0-9]+) bytes per cluster", said)
    clusters = re.search(r"([0-9]+)/([0-9]+) clusters", said)
    assert blocks is not None
    assert unit is not None
    assert clusters is not None
    used, total = int(clusters[1]), int(clusters[2])
    return int(blocks[1]) * BLOCK, (total - used) * int(unit[1])


def test_n3_partitions_that_are_exactly_full_and_one_byte_over(
    server: liar.Liar, workspace: Workspace, thief: Thief, client: Client, tmp_path: Path
) -> None:
    """Of all three kinds: what fills them is all there, and one byte more makes no disk."""
    oem = board(tmp_path / "small", 64 << 10)
    version = 2

    def flashed(*, system: int, kernel: int) -> None:
        nonlocal version
        version += 1
        channel_tree.publish(
            workspace,
            version,
            rootfs={"system/etc/hostname": b"core\n", "system/big": b"\x01" * system},
            device_files={**channel_tree.DEVICE_FILES, "assets/vmlinuz": b"\x02" * kernel},
        )
        served(workspace, thief.root)
        client.output.unlink(missing_ok=True)
        assert client.flash(server.url, oem=str(oem)) == version

    flashed(system=BLOCK, kernel=BLOCK)
    system, boot = room(client.output, tmp_path / "boot.img")
    system, boot = BLOCK + system, BLOCK + boot
    flashed(system=system, kernel=boot)
    assert room(client.output, tmp_path / "boot.img") == (0, 0)
    start, size = place_of(client.output, "system-a")
    run.run(["e2fsck", "-fn", f"{client.output}?offset={start}"])
    assert content_of(client.output, "system-a", "/big") == b"\x01" * system
    kernel = run.run(["mtype", "-i", tmp_path / "boot.img", "::/EFI/ubuntu/grub/a/vmlinuz"])
    assert kernel.stdout == b"\x02" * boot
    start, size = place_of(client.output, "data")
    with client.output.open("rb") as disk:
        disk.seek(start)
        assert disk.read(size) == b"\xff" * (64 << 10)
        # Nothing ran over into what lies behind it.
        assert not disk.read(BLOCK).strip(b"\0")
    for name, sizes in {"system-a": (system + 1, BLOCK), "system-boot": (BLOCK, boot + 1)}.items():
        with pytest.raises(DataError, match=f"partition '{name}' of .* is too small"):
            flashed(system=sizes[0], kernel=sizes[1])
        assert not client.output.exists()
    board(oem, (64 << 10) + 1)
    with pytest.raises(DataError, match="'data' is larger than 'data'"):
        flashed(system=BLOCK, kernel=BLOCK)
    assert not client.output.exists()
