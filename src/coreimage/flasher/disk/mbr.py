"""MBR: the bytes of a partition table in the first sector.

Source: "Master boot record" of UEFI specification 2.10, section 5.2.1, which others share.
"""

import struct

from coreimage.errors import DataError
from coreimage.flasher.disk.layout import Layout, Partition, check_partitions

ENTRY_COUNT = 4
ENTRY = struct.Struct("<B3sB3sII")
SIGNATURE_AT = 440
ENTRIES_AT = 446
BOOT_SIGNATURE = b"\x55\xaa"
_BOOTABLE = 0x80
# Cylinder, head and sector as everybody writes them who counts sectors instead.
_NO_GEOMETRY = b"\xfe\xff\xff"
_MAX_SECTOR = (1 << 32) - 1


def mbr(layout: Layout) -> dict[int, bytes]:
    """Return the table as bytes by offset: the first sector, with an empty boot sector.

    Raises DataError for more than four partitions, for partitions that overlap and for disks
    whose sectors it cannot count.
    """
    if len(layout.partitions) > ENTRY_COUNT:
        names = ", ".join(f"'{each.name}'" for each in layout.partitions)
        raise DataError(
            f"an MBR has room for {ENTRY_COUNT} partitions, not for {names}",
            hint="choose 'table: gpt' in the OEM package",
        )
    check_partitions(layout, first=layout.sector_size, last=layout.size)
    entries = b"".join(_entry(each, layout.sector_size) for each in layout.partitions)
    sector = bytes(SIGNATURE_AT) + struct.pack("<IH", layout.mbr_signature, 0)
    sector += entries.ljust(ENTRY_COUNT * ENTRY.size, b"\0") + BOOT_SIGNATURE
    return {0: sector.ljust(layout.sector_size, b"\0")}


def _entry(partition: Partition, sector: int) -> bytes:
    first, count = partition.start // sector, partition.size // sector
    if first + count > _MAX_SECTOR:
        raise DataError(
            f"partition '{partition.name}' ends behind what an MBR can count",
            hint="choose 'table: gpt' in the OEM package, or a smaller disk",
        )
    flag = _BOOTABLE if partition.bootable else 0
    return ENTRY.pack(flag, _NO_GEOMETRY, partition.mbr_type, _NO_GEOMETRY, first, count)
