"""The MBR, read back by a reader of our own."""

import struct
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.flasher.disk.layout import LINUX_DATA, Division, Layout, Partition, Table, ab_layout
from coreimage.flasher.disk.mbr import mbr

MIB = 1 << 20
LAYOUT = ab_layout(
    size=4_000_000_000, seed=b"seed", division=Division(table=Table.MBR, bios_grub=False)
)


def entries(sector: bytes) -> list[tuple[int, int, int, int]]:
    """Return flag, type, first sector and count of each entry."""
    found = struct.iter_unpack("<B3xB3xII", sector[446:510])
    return [entry for entry in found if entry[1]]


def test_the_table_says_what_the_layout_says() -> None:
    (sector,) = mbr(LAYOUT).values()
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert sector[:440] == bytes(440)
    assert struct.unpack_from("<IH", sector, 440) == (LAYOUT.mbr_signature, 0)
    assert entries(sector) == [
        (0x80, 0x0C, 8192, 128 * 2048),
        (0, 0x83, 8192 + 128 * 2048, 1024 * 2048),
        (0, 0x83, 8192 + 1152 * 2048, 1024 * 2048),
        (0, 0x83, 8192 + 2176 * 2048, 1634 * 2048),
    ]


def test_a_disk_has_a_signature_that_is_not_0() -> None:
    assert replace(LAYOUT, disk_guid=UUID(int=1)).mbr_signature == 1


def partition(start: int, size: int) -> Partition:
    return Partition(
        name="x", type_guid=LINUX_DATA, guid=UUID(int=0), start=start, size=size, mbr_type=0xDA
    )


def layout_of(*partitions: Partition, size: int, sector: int = 512) -> Layout:
    return Layout(
        size=size,
        disk_guid=UUID(int=0),
        partitions=partitions,
        sector_size=sector,
        table=Table.MBR,
    )


@pytest.mark.parametrize(
    ("partitions", "size"),
    [
        ([partition(0, MIB)], 16 * MIB),
        ([partition(MIB, 2 * MIB), partition(2 * MIB, MIB)], 16 * MIB),
        ([partition(MIB, 16 * MIB)], 16 * MIB),
        ([partition(MIB, (1 << 41))], 1 << 42),
        ([partition(MIB * number, MIB) for number in range(1, 6)], 16 * MIB),
    ],
)
def test_impossible_tables_are_refused(partitions: list[Partition], size: int) -> None:
    with pytest.raises(DataError):
        mbr(layout_of(*partitions, size=size))


@given(
    st.sampled_from([512, 4096]),
    st.sets(st.integers(min_value=1, max_value=(1 << 32) - 1), min_size=2, max_size=8),
)
def test_what_is_written_reads_back(sector: int, cuts: set[int]) -> None:
    edges = sorted(cuts)
    wanted = list(zip(edges[::2], edges[1::2], strict=False))
    layout = layout_of(
        *(partition(first * sector, (last - first) * sector) for first, last in wanted),
        size=(1 << 32) * sector,
        sector=sector,
    )
    (data,) = mbr(layout).values()
    assert len(data) == sector
    assert entries(data) == [(0, 0xDA, first, last - first) for first, last in wanted]
