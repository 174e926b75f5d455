"""From an OEM package to a disk: its division, and what is written outside of file systems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from coreimage.errors import DataError
from coreimage.flasher.disk.gpt import end_size, gpt
from coreimage.flasher.disk.grub import BIOS_ARCHES, BOOT_CODE
from coreimage.flasher.disk.layout import (
    LINUX_DATA,
    MBR_LINUX,
    Division,
    Extra,
    Layout,
    Table,
    ab_layout,
)
from coreimage.flasher.disk.mbr import mbr
from coreimage.flasher.oem.info import HardwareInfo, RawPartition
from coreimage.flasher.oem.package import OemPackage

_MIB = 1 << 20
# FAT32 has at least 65525 clusters, and a cluster at least one sector. Source: Microsoft's FAT
# specification, "FAT type determination".
_BOOT_SIZES = {512: 128 * _MIB, 4096: 264 * _MIB}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes for the disk itself, at `offset` from its start; `name` is for people."""

    name: str
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + len(self.data)


def plan_layout(oem: OemPackage, *, size: int, seed: bytes) -> Layout:
    """Return the layout that an OEM package wants on a disk of about `size` bytes.

    The size becomes a whole number of sectors. Raises DataError for what cannot be.
    """
    division = division_of(oem.info.oem.hardware)
    whole = size // division.sector_size * division.sector_size
    return ab_layout(size=whole, seed=seed, division=division)


def division_of(hardware: HardwareInfo) -> Division:
    """Return how a board's disk is divided; raises DataError for what cannot be started."""
    grub, disk = hardware.bootloader == "grub", hardware.disk
    small = not grub and hardware.architecture != "arm64"
    table = Table(disk.table or ("mbr" if small else "gpt"))
    if grub and table is not Table.GPT:
        raise DataError("GRUB needs 'table: gpt'", hint="leave 'table' out of the OEM package")
    extra = [_extra(each, table) for each in hardware.boot_assets.raw_partitions]
    names = [each.name for each in extra]
    reserved = {"grub", "system-boot", "system-a", "system-b", "writable"}
    if len(set(names)) != len(names) or reserved & set(names):
        raise DataError("two partitions of the OEM package have the same name")
    return Division(
        table=table,
        sector_size=disk.sector_size,
        # A BIOS counts in sectors of 512 bytes, whatever the disk does.
        bios_grub=grub and hardware.architecture in BIOS_ARCHES and disk.sector_size == 512,  # noqa: PLR2004
        boot_size=disk.boot_size or _BOOT_SIZES[disk.sector_size],
        system_size=disk.system_size,
        extra=tuple(extra),
    )


def _extra(partition: RawPartition, table: Table) -> Extra:
    short = len(partition.type) == 2  # noqa: PLR2004  hexadecimal digits of one byte
    if partition.type and short != (table is Table.MBR):
        raise DataError(
            f"raw partition '{partition.name}' has type '{partition.type}', which is none of a "
            f"{table}",
            hint="give a GUID for a GPT, two hexadecimal digits for an MBR",
        )
    return Extra(
        name=partition.name,
        size=partition.size,
        type_guid=UUID(partition.type) if partition.type and not short else LINUX_DATA,
        mbr_type=int(partition.type, 16) if short else MBR_LINUX,
    )


def table_pieces(layout: Layout) -> list[Piece]:
    """Return the partition table; raises DataError for a layout that has none."""
    table = mbr(layout) if layout.table is Table.MBR else gpt(layout)
    return [Piece(name="partition table", offset=at, data=data) for at, data in table.items()]


def raw_pieces(oem: OemPackage, layout: Layout, *, boot_code: bool) -> list[Piece]:
    """Return the raw files of a package.

    Raises DataError when one lies over the partition table, a partition that is not its own, the
    boot loader (`boot_code` tells whether the first sector has one), another, or behind the end.
    """
    pieces = [
        Piece(name=f"raw file '{path}'", offset=offset, data=content)
        for path, offset, content in oem.raw_files()
    ]
    taken = [*_reserved(layout, boot_code=boot_code), *_contents(oem.partition_contents(), layout)]
    own = {each.name for each in oem.info.oem.hardware.boot_assets.raw_partitions}
    taken += [
        (f"partition '{each.name}'", each.start, each.end)
        for each in layout.partitions
        if each.name not in own
    ]
    for piece in pieces:
        for name, start, end in taken:
            if piece.offset < end and start < piece.end:
                raise DataError(
                    f"{piece.name} at byte {piece.offset} of {len(piece.data)} bytes lies over "
                    f"{name}, bytes {start} to {end}",
                    hint="another 'table' or 'raw-partitions' in the OEM package may make room",
                )
        if piece.end > layout.size:
            raise DataError(f"{piece.name} at byte {piece.offset} ends behind the disk")
        taken.append((piece.name, piece.offset, piece.end))
    return pieces


def _reserved(layout: Layout, *, boot_code: bool) -> Sequence[tuple[str, int, int]]:
    first = 0 if boot_code else BOOT_CODE
    if layout.table is Table.MBR:
        return [("the partition table", first, 512)]
    end = end_size(layout.sector_size)
    return [
        ("the partition table", first, layout.sector_size + end),
        ("the second partition table", layout.size - end, layout.size),
    ]


def _contents(contents: Mapping[str, bytes], layout: Layout) -> Iterator[tuple[str, int, int]]:
    for name, content in contents.items():
        start = layout.partition(name).start
        yield f"the content of '{name}'", start, start + len(content)
