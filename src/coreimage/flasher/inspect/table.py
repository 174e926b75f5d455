"""Partition tables of disks, read back: GPT with its checksums, and MBR."""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from coreimage.errors import DataError
from coreimage.flasher.disk import gpt, mbr
from coreimage.flasher.disk.layout import LINUX_DATA, Layout, Partition, Table

_SECTORS = (512, 4096)
# An MBR has no names; these are the disks that we make, by the number of their partitions.
_MBR_NAMES = ("system-boot", "system-a", "system-b", "writable")


def read_layout(disk: Path) -> Layout:
    """Return the partitions of a disk; raises DataError when it has no table, or a damaged one."""
    with disk.open("rb") as file:
        size = _size(file)
        for sector in _SECTORS:
            file.seek(sector)
            header = file.read(sector)
            if header.startswith(gpt.SIGNATURE):
                return _read_gpt(file, disk, size=size, sector=sector, header=header)
        file.seek(0)
        first = file.read(512)
    if first[510:] != mbr.BOOT_SIGNATURE:
        raise DataError(f"'{disk}' has no partition table")
    return _read_mbr(first, size)


def _size(file: BinaryIO) -> int:
    state = os.fstat(file.fileno())
    if stat.S_ISBLK(state.st_mode):
        return file.seek(0, os.SEEK_END)
    return state.st_size


def _read_gpt(file: BinaryIO, disk: Path, *, size: int, sector: int, header: bytes) -> Layout:
    fields = gpt.HEADER.unpack_from(header)
    length, checksum = fields[2], fields[3]
    plain = header[:16] + bytes(4) + header[20:length]
    count, entry_size = fields[11], fields[12]
    if zlib.crc32(plain) != checksum or entry_size != gpt.ENTRY_SIZE or count > gpt.ENTRY_COUNT:
        raise DataError(f"the GPT of '{disk}' is damaged", hint="see what sgdisk --verify says")
    file.seek(fields[10] * sector)
    entries = file.read(count * entry_size)
    if zlib.crc32(entries) != fields[13]:
        raise DataError(f"the entries of the GPT of '{disk}' are damaged")
    return Layout(
        size=size,
        disk_guid=UUID(bytes_le=fields[9]),
        partitions=tuple(_gpt_partitions(entries, sector)),
        sector_size=sector,
    )


def _gpt_partitions(entries: bytes, sector: int) -> Iterator[Partition]:
    for kind, guid, first, last, _, name in gpt.ENTRY.iter_unpack(entries):
        if kind != bytes(16):
            yield Partition(
                name=name.decode("utf-16-le", "replace").rstrip("\0"),
                type_guid=UUID(bytes_le=kind),
                guid=UUID(bytes_le=guid),
                start=first * sector,
                size=(last - first + 1) * sector,
            )


def _read_mbr(first: bytes, size: int) -> Layout:
    (signature,) = struct.unpack_from("<I", first, mbr.SIGNATURE_AT)
    entries = [
        entry
        for entry in mbr.ENTRY.iter_unpack(first[mbr.ENTRIES_AT : mbr.ENTRIES_AT + 64])
        if entry[2]
    ]
    names = _MBR_NAMES if len(entries) == len(_MBR_NAMES) else ()
    partitions = [
        Partition(
            name=names[number] if names else f"{number + 1}",
            type_guid=LINUX_DATA,
            guid=UUID(int=0),
            start=start * 512,
            size=count * 512,
            mbr_type=kind,
            bootable=flag != 0,
        )
        for number, (flag, _, kind, _, start, count) in enumerate(entries)
    ]
    return Layout(
        size=size,
        disk_guid=UUID(int=signature << 96),
        partitions=tuple(partitions),
        table=Table.MBR,
    )
