"""GPT: the bytes of a partition table at both ends of a disk.

Source: UEFI specification 2.10, section 5.2.3 (protective MBR) and 5.3 (GPT).
"""

import struct
import zlib

from coreimage.errors import DataError
from coreimage.flasher.disk.layout import Layout, Partition, check_partitions

ENTRY_COUNT = 128
ENTRY_SIZE = 128
SIGNATURE = b"EFI PART"
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
MBR_ENTRY = struct.Struct("<B3sB3sII")


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
    entries = entries.ljust(ENTRY_COUNT * ENTRY_SIZE, b"\0")
    backup = last - len(entries) // sector
    primary_header = _header(layout, entries, own=1, other=last, entries_at=2)
    backup_header = _header(layout, entries, own=last, other=1, entries_at=backup)
    return {
        0: _protective_mbr(last, sector) + primary_header + entries,
        backup * sector: entries + backup_header,
    }


def end_size(sector: int) -> int:
    """Return how many bytes the entries and one header take."""
    return ENTRY_COUNT * ENTRY_SIZE + sector


def _check(layout: Layout) -> None:
    if len(layout.partitions) > ENTRY_COUNT:
        raise DataError(f"a disk has at most {ENTRY_COUNT} partitions")
    table = end_size(layout.sector_size)
    check_partitions(layout, first=table + layout.sector_size, last=layout.size - table)


def _entry(partition: Partition, sector: int) -> bytes:
    name = partition.name.encode("utf-16-le")
    if len(name) > 2 * 35:
        raise DataError(f"the partition name '{partition.name}' is longer than 35 characters")
    first = partition.start // sector
    last = first + partition.size // sector - 1
    return ENTRY.pack(partition.type_guid.bytes_le, partition.guid.bytes_le, first, last, 0, name)


def _header(layout: Layout, entries: bytes, *, own: int, other: int, entries_at: int) -> bytes:
    sector = layout.sector_size
    table = len(entries) // sector

    def packed(checksum: int) -> bytes:
        return HEADER.pack(
            SIGNATURE,
            0x00010000,
            HEADER.size,
            checksum,
            0,
            own,
            other,
            2 + table,
            layout.size // sector - 2 - table,
            layout.disk_guid.bytes_le,
            entries_at,
            ENTRY_COUNT,
            ENTRY_SIZE,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(sector, b"\0")


def _protective_mbr(last: int, sector: int) -> bytes:
    entry = MBR_ENTRY.pack(0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    return (bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(sector, b"\0")
