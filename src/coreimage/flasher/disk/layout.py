"""Layouts: which partitions a disk has, where they lie, and what identifies them.

Everything is computed: no disk is read and nothing is random, so that the same inputs give the
same layout.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from coreimage.errors import DataError

BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_DATA = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
MBR_FAT32 = 0x0C
MBR_LINUX = 0x83

MINIMUM_SIZE = 4_000_000_000
"""What is sold as 4 GB, in bytes; the gigabytes of storage are powers of ten."""

_MIB = 1 << 20
_SECTOR = 512
_FIRST_OFFSET = 8192 * _SECTOR
_SMALLEST_WRITABLE = 256 * _MIB
# What a GPT takes at the end of a disk, with sectors of either size.
_TABLE_END = 128 * 128 + 4096


class Table(StrEnum):
    """The kinds of partition tables."""

    GPT = "gpt"
    MBR = "mbr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition; `start` and `size` are in bytes, multiples of the sector size.

    `mbr_type` and `bootable` stand in an MBR, the identifiers and the name in a GPT.
    """

    name: str
    type_guid: UUID
    guid: UUID
    start: int
    size: int
    mbr_type: int = MBR_LINUX
    bootable: bool = False

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A disk of `size` bytes and its partitions in the order of their numbers, from 1."""

    size: int
    disk_guid: UUID
    partitions: Sequence[Partition]
    sector_size: int = _SECTOR
    table: Table = Table.GPT

    @property
    def mbr_signature(self) -> int:
        """What identifies a disk with an MBR, 32 bits that are not 0."""
        return (self.disk_guid.int >> 96) or 1

    def has(self, name: str) -> bool:
        """Tell whether there is a partition of a name."""
        return any(each.name == name for each in self.partitions)

    def number(self, name: str) -> int:
        """Return the number of a partition; raises DataError as `partition` does."""
        return self.partitions.index(self.partition(name)) + 1

    def partition(self, name: str) -> Partition:
        """Return the partition of a name; raises DataError that lists the names."""
        for each in self.partitions:
            if each.name == name:
                return each
        names = ", ".join(f"'{each.name}'" for each in self.partitions)
        raise DataError(
            f"the disk has no partition '{name}'", hint=f"choose one of its partitions: {names}"
        )

    def root(self, slot: str) -> str:
        """Return how the kernel's argument `root=` names the system partition of a slot.

        It is the partition that is named, never its content: both slots may hold the same bytes.
        """
        name = f"system-{slot}"
        if self.table is Table.GPT:
            return f"PARTLABEL={name}"
        return f"PARTUUID={self.mbr_signature:08x}-{self.number(name):02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """One more partition, before the others: size in bytes, its types in both tables."""

    name: str
    size: int
    type_guid: UUID = LINUX_DATA
    mbr_type: int = MBR_LINUX


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """What decides a layout besides the size of the disk; sizes are in bytes.

    `bios_grub` asks for a partition for GRUB that a BIOS starts.
    """

    table: Table = Table.GPT
    sector_size: int = _SECTOR
    bios_grub: bool = True
    boot_size: int = 128 * _MIB
    system_size: int = 1024 * _MIB
    extra: Sequence[Extra] = ()


def derive_uuid(seed: bytes, name: str) -> UUID:
    """Return an identifier that follows from `seed` and `name` alone, shaped as version 5."""
    digest = hashlib.sha256(len(seed).to_bytes(8, "big") + seed + name.encode()).digest()
    return UUID(bytes=digest[:16], version=5)


def ab_layout(*, size: int, seed: bytes, division: Division = Division()) -> Layout:
    """Return the A/B layout of a disk of `size` bytes.

    Raises DataError when the disk is smaller than MINIMUM_SIZE or than the partitions need, or
    ends within a sector.
    """
    if size < MINIMUM_SIZE // division.sector_size * division.sector_size:
        raise DataError(
            f"a disk of {size} bytes is too small, expected at least {MINIMUM_SIZE}",
            hint="choose a size of 4 GB or more",
        )
    if size % division.sector_size:
        raise DataError(
            f"a disk of {size} bytes is not a number of sectors of {division.sector_size} bytes"
        )
    start, partitions = _FIRST_OFFSET, []
    end = (size - _TABLE_END) // _MIB * _MIB
    for each in (*division.extra, *_fixed(division)):
        partitions.append(_partition(each, start, seed))
        start = -(-partitions[-1].end // _MIB) * _MIB
    if end - start < _SMALLEST_WRITABLE:
        raise DataError(
            f"a disk of {size} bytes has no room for the partitions of the OEM package",
            hint="choose a larger size, or smaller partitions",
        )
    partitions.append(_partition(Extra(name="writable", size=end - start), start, seed))
    return Layout(
        size=size,
        disk_guid=derive_uuid(seed, "disk"),
        partitions=tuple(partitions),
        sector_size=division.sector_size,
        table=division.table,
    )


def _fixed(division: Division) -> Sequence[Extra]:
    grub = [Extra(name="grub", size=4 * _MIB, type_guid=BIOS_BOOT)] if division.bios_grub else []
    return [
        *grub,
        Extra(
            name="system-boot",
            size=division.boot_size,
            type_guid=EFI_SYSTEM,
            mbr_type=MBR_FAT32,
        ),
        Extra(name="system-a", size=division.system_size),
        Extra(name="system-b", size=division.system_size),
    ]


def _partition(wanted: Extra, start: int, seed: bytes) -> Partition:
    return Partition(
        name=wanted.name,
        type_guid=wanted.type_guid,
        guid=derive_uuid(seed, f"partition {wanted.name}"),
        start=start,
        size=wanted.size,
        mbr_type=wanted.mbr_type,
        bootable=wanted.name == "system-boot",
    )


def check_partitions(layout: Layout, *, first: int, last: int) -> None:
    """Raise DataError unless the partitions lie apart between two bytes, in whole sectors."""
    sector, free = layout.sector_size, first
    for each in sorted(layout.partitions, key=lambda partition: partition.start):
        if each.start % sector or each.size % sector or each.size <= 0:
            raise DataError(f"partition '{each.name}' does not begin and end with a sector")
        if each.start < free:
            raise DataError(f"partition '{each.name}' begins inside what lies before it")
        free = each.end
    if free > last:
        raise DataError(f"the partitions need {free} bytes, the disk has {layout.size}")
