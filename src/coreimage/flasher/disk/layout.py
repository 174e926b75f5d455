"""Partition tables: which partitions a disk has, and the GPT bytes that say so.

Everything is computed: no disk is read and nothing is random, so that the same inputs give the
same bytes. Source: UEFI specification 2.10, section 5.2.3 (protective MBR) and 5.3 (GPT).
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from coreimage.errors import DataError

BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_DATA = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

MINIMUM_SIZE = 4_000_000_000
"""What is sold as 4 GB, in bytes; the gigabytes of storage are powers of ten."""

_MIB = 1 << 20
_SECTOR = 512
_FIRST_OFFSET = 8192 * _SECTOR
_FIXED_SIZES = (
    ("grub", BIOS_BOOT, 4 * _MIB),
    ("system-boot", EFI_SYSTEM, 128 * _MIB),
    ("system-a", LINUX_DATA, 1024 * _MIB),
    ("system-b", LINUX_DATA, 1024 * _MIB),
)
_ENTRY_COUNT = 128
_ENTRY_SIZE = 128
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MBR_ENTRY = struct.Struct("<B3sB3sII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition; `start` and `size` are in bytes, multiples of the sector size."""

    name: str
    type_guid: UUID
    guid: UUID
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A disk of `size` bytes and its partitions in the order of their numbers, from 1."""

    size: int
    disk_guid: UUID
    partitions: Sequence[Partition]
    sector_size: int = _SECTOR

    def partition(self, name: str) -> Partition:
        """Return the partition of a name; raises DataError that lists the names."""
        for each in self.partitions:
            if each.name == name:
                return each
        names = ", ".join(f"'{each.name}'" for each in self.partitions)
        raise DataError(
            f"the disk has no partition '{name}'", hint=f"choose one of its partitions: {names}"
        )


def derive_uuid(seed: bytes, name: str) -> UUID:
    """Return an identifier that follows from `seed` and `name` alone, shaped as version 5."""
    digest = hashlib.sha256(len(seed).to_bytes(8, "big") + seed + name.encode()).digest()
    return UUID(bytes=digest[:16], version=5)


def ab_grub_layout(*, size: int, seed: bytes) -> Layout:
    """Return the A/B layout of a disk of `size` bytes that GRUB starts from BIOS and UEFI.

    Raises DataError when the disk is smaller than MINIMUM_SIZE or ends within a sector.
    """
    if size < MINIMUM_SIZE:
        raise DataError(
            f"a disk of {size} bytes is too small, expected at least {MINIMUM_SIZE}",
            hint="choose a size of 4 GB or more",
        )
    if size % _SECTOR:
        raise DataError(f"a disk of {size} bytes is not a number of sectors of {_SECTOR} bytes")
    partitions = []
    start = _FIRST_OFFSET
    end = (size - _table_size(_SECTOR)) // _MIB * _MIB
    for name, type_guid, length in (*_FIXED_SIZES, ("writable", LINUX_DATA, 0)):
        partition = Partition(
            name=name,
            type_guid=type_guid,
            guid=derive_uuid(seed, f"partition {name}"),
            start=start,
            size=length or end - start,
        )
        partitions.append(partition)
        start += partition.size
    return Layout(size=size, disk_guid=derive_uuid(seed, "disk"), partitions=tuple(partitions))


def gpt(layout: Layout) -> dict[int, bytes]:
    """Return the table as bytes by offset: at the start of the disk and at its end.

    The start holds the protective MBR with an empty boot sector, the header and the entries; the
    end holds the entries again and the backup header. Raises DataError for partitions that
    overlap each other or the tables, or whose names are too long.
    """
    _check(layout)
    sector = layout.sector_size
    last = layout.size // sector - 1
    entries = b"".join(_entry(each, sector) for each in layout.partitions)
    entries = entries.ljust(_ENTRY_COUNT * _ENTRY_SIZE, b"\0")
    backup = last - len(entries) // sector
    primary_header = _header(layout, entries, own=1, other=last, entries_at=2)
    backup_header = _header(layout, entries, own=last, other=1, entries_at=backup)
    return {
        0: _protective_mbr(last, sector) + primary_header + entries,
        backup * sector: entries + backup_header,
    }


def _table_size(sector: int) -> int:
    """Bytes of the entries and one header."""
    return _ENTRY_COUNT * _ENTRY_SIZE + sector


def _check(layout: Layout) -> None:
    sector = layout.sector_size
    free = _table_size(sector) + sector
    if len(layout.partitions) > _ENTRY_COUNT:
        raise DataError(f"a disk has at most {_ENTRY_COUNT} partitions")
    for each in sorted(layout.partitions, key=lambda partition: partition.start):
        if each.start % sector or each.size % sector or each.size <= 0:
            raise DataError(f"partition '{each.name}' does not begin and end with a sector")
        if each.start < free:
            raise DataError(f"partition '{each.name}' begins inside what lies before it")
        free = each.start + each.size
    if free > layout.size - _table_size(sector):
        raise DataError(f"the partitions need {free} bytes, the disk has {layout.size}")


def _entry(partition: Partition, sector: int) -> bytes:
    name = partition.name.encode("utf-16-le")
    if len(name) > 2 * 35:
        raise DataError(f"the partition name '{partition.name}' is longer than 35 characters")
    first = partition.start // sector
    last = first + partition.size // sector - 1
    return _ENTRY.pack(partition.type_guid.bytes_le, partition.guid.bytes_le, first, last, 0, name)


def _header(layout: Layout, entries: bytes, *, own: int, other: int, entries_at: int) -> bytes:
    sector = layout.sector_size
    table = len(entries) // sector

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART",
            0x00010000,
            _HEADER.size,
            checksum,
            0,
            own,
            other,
            2 + table,
            layout.size // sector - 2 - table,
            layout.disk_guid.bytes_le,
            entries_at,
            _ENTRY_COUNT,
            _ENTRY_SIZE,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(sector, b"\0")


def _protective_mbr(last: int, sector: int) -> bytes:
    entry = _MBR_ENTRY.pack(0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    return (bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(sector, b"\0")
