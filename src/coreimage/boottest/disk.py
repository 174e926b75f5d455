"""What a disk is for: its architecture and sectors, from its partition table and boot files."""

import struct
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CommandError
from coreimage.lib import run

DEFAULT_ARCH = "amd64"
_SIGNATURE = b"EFI PART"
_NAME = "system-boot".encode("utf-16-le")
# Where a GPT's entry has its first sector and its name, and how long it is. Source: UEFI
# specification 2.10, table 5.7.
_FIRST_AT, _NAME_AT, _ENTRY = 32, 56, 128
_FAT32 = 0x0C
# What UEFI starts. Source: UEFI specification 2.10, section 3.5.1.1.
_LOADERS = {
    "BOOTX64.EFI": "amd64",
    "BOOTIA32.EFI": "i386",
    "BOOTAA64.EFI": "arm64",
    "BOOTARM.EFI": "armhf",
}
# How U-Boot starts a kernel is one word for 32 bits and another one for 64.
_STARTS = {b"bootz ": "armhf", b"booti ": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """What a machine for the disk must be like; `sector_size` is in bytes."""

    arch: str = DEFAULT_ARCH
    sector_size: int = 512
    uboot: bool = False


def look_at(disk: Path) -> DiskFacts:
    """Return what a disk is for; one that nothing is known of is taken for a PC's."""
    with disk.open("rb") as file:
        head = file.read(3 * 4096 + 128 * _ENTRY)
    sector = next((size for size in (512, 4096) if head[size:].startswith(_SIGNATURE)), 512)
    start = _boot_partition(head, sector)
    if start is None:
        return DiskFacts(sector_size=sector)
    drive = f"{disk}@@{start}"
    for name in _read(["mdir", "-b", "-i", drive, "::/EFI/BOOT"]).decode().split():
        loader = name.rpartition("/")[2].upper()
        if loader in _LOADERS:
            return DiskFacts(arch=_LOADERS[loader], sector_size=sector)
    system = _read(["mtype", "-i", drive, "::/snappy-system.txt"])
    for word, arch in _STARTS.items():
        if word in system:
            return DiskFacts(arch=arch, sector_size=sector, uboot=True)
    return DiskFacts(sector_size=sector)


def _boot_partition(head: bytes, sector: int) -> int | None:
    """Return where the boot partition begins, in bytes."""
    if not head[sector:].startswith(_SIGNATURE):
        for entry in struct.iter_unpack("<B3xB3xII", head[446:510].ljust(64, b"\0")):
            if entry[1] == _FAT32:
                return int(entry[2]) * sector
        return None
    table = head[2 * sector : 2 * sector + 128 * _ENTRY]
    for offset in range(0, len(table) - _ENTRY + 1, _ENTRY):
        entry_bytes = table[offset : offset + _ENTRY]
        if entry_bytes[_NAME_AT:].rstrip(b"\0") == _NAME.rstrip(b"\0"):
            return int(struct.unpack_from("<Q", entry_bytes, _FIRST_AT)[0]) * sector
    return None


def _read(argv: list[str]) -> bytes:
    try:
        return run.run(argv).stdout
    except CommandError:
        return b""
