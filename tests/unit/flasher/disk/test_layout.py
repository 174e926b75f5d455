"""Partition tables: the A/B layout, and bytes that a reader of our own understands."""

import struct
import zlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.flasher.disk.gpt import gpt
from coreimage.flasher.disk.layout import (
    BIOS_BOOT,
    EFI_SYSTEM,
    LINUX_DATA,
    MINIMUM_SIZE,
    Layout,
    Partition,
    ab_layout,
    derive_uuid,
)

MIB = 1 << 20


def test_the_ab_layout_is_that_of_the_original() -> None:
    layout = ab_layout(size=MINIMUM_SIZE, seed=b"seed")

    assert [(each.name, each.type_guid, each.size // MIB) for each in layout.partitions] == [
        ("grub", BIOS_BOOT, 4),
        ("system-boot", EFI_SYSTEM, 128),
        ("system-a", LINUX_DATA, 1024),
        ("system-b", LINUX_DATA, 1024),
        ("writable", LINUX_DATA, 1630),
    ]
    assert layout.partitions[0].start == 8192 * 512
    assert all(each.start % MIB == each.size % MIB == 0 for each in layout.partitions)


def test_identifiers_follow_from_the_seed() -> None:
    one = ab_layout(size=MINIMUM_SIZE, seed=b"one")

    assert one == ab_layout(size=MINIMUM_SIZE, seed=b"one")
    assert one.disk_guid != ab_layout(size=MINIMUM_SIZE, seed=b"two").disk_guid
    assert len({one.disk_guid, *(each.guid for each in one.partitions)}) == 6


def test_a_seed_and_a_name_do_not_run_into_each_other() -> None:
    assert derive_uuid(b"ab", "c") != derive_uuid(b"a", "bc")


@pytest.mark.parametrize("size", [0, MINIMUM_SIZE - 512, MINIMUM_SIZE + 1])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(DataError, match=str(size)):
        ab_layout(size=size, seed=b"")


def test_an_unknown_partition_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(DataError, match="'system-c'") as caught:
        ab_layout(size=MINIMUM_SIZE, seed=b"").partition("system-c")

    assert "'system-a'" in caught.value.hint


def partition(start: int, size: int, name: str = "x") -> Partition:
    return Partition(name=name, type_guid=LINUX_DATA, guid=UUID(int=start), start=start, size=size)


def layout_of(*partitions: Partition, size: int = 16 * MIB) -> Layout:
    return Layout(size=size, disk_guid=UUID(int=1), partitions=partitions)


@pytest.mark.parametrize(
    "bad",
    [
        (partition(MIB, 2 * MIB), partition(2 * MIB, MIB)),
        (partition(33 * 512, MIB),),
        (partition(MIB, 15 * MIB),),
        (partition(15 * MIB, MIB - 32 * 512),),
        (partition(MIB, 100),),
        (partition(MIB, 0),),
        (partition(MIB + 1, 512),),
        (partition(MIB, MIB, name="n" * 36),),
        tuple(partition(MIB + number * 512, 512) for number in range(129)),
    ],
)
def test_impossible_tables_are_refused(bad: tuple[Partition, ...]) -> None:
    with pytest.raises(DataError):
        gpt(layout_of(*bad))


def test_partitions_may_fill_the_disk_between_the_tables() -> None:
    tables = gpt(layout_of(partition(34 * 512, 16 * MIB - 67 * 512)))

    assert sorted(tables) == [0, 16 * MIB - 33 * 512]


def read_header(disk: dict[int, bytes], offset: int) -> tuple[int, ...]:
    """Parse a header at a byte offset, checking its own checksum."""
    start = max(each for each in disk if each <= offset)
    raw = disk[start][offset - start : offset - start + 92]
    fields = struct.unpack("<8sIIIIQQQQ16sQIII", raw)
    assert fields[0] == b"EFI PART"
    assert zlib.crc32(raw[:16] + bytes(4) + raw[20:]) == fields[3]
    return fields


def read_partitions(disk: dict[int, bytes], header: tuple[int, ...]) -> list[Partition]:
    offset = header[10] * 512
    start = max(each for each in disk if each <= offset)
    raw = disk[start][offset - start :][: header[11] * header[12]]
    assert zlib.crc32(raw) == header[13]
    return [
        Partition(
            name=entry[5].decode("utf-16-le").rstrip("\0"),
            type_guid=UUID(bytes_le=entry[0]),
            guid=UUID(bytes_le=entry[1]),
            start=entry[2] * 512,
            size=(entry[3] - entry[2] + 1) * 512,
        )
        for entry in struct.iter_unpack("<16s16sQQQ72s", raw)
        if entry[0] != bytes(16)
    ]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    sectors = draw(st.integers(min_value=200, max_value=1 << 33))
    cuts = draw(st.sets(st.integers(min_value=34, max_value=sectors - 33), max_size=12))
    edges = sorted(cuts)
    names = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=35)
    partitions = [
        Partition(
            name=draw(names),
            type_guid=draw(st.uuids()),
            guid=draw(st.uuids()),
            start=first * 512,
            size=(last - first) * 512,
        )
        for first, last in zip(edges[::2], edges[1::2], strict=False)
    ]
    return Layout(size=sectors * 512, disk_guid=draw(st.uuids()), partitions=partitions)


@given(layouts())
def test_what_is_written_reads_back_from_both_ends(layout: Layout) -> None:
    disk = gpt(layout)

    for offset, other in ((512, layout.size - 512), (layout.size - 512, 512)):
        header = read_header(disk, offset)
        assert (header[5] * 512, header[6] * 512) == (offset, other)
        assert UUID(bytes_le=header[9]) == layout.disk_guid  # type: ignore[arg-type]
        assert read_partitions(disk, header) == list(layout.partitions)
    assert disk[0][446:450] == b"\0\0\x02\0"
    assert disk[0][450] == 0xEE
    assert disk[0][510:512] == b"\x55\xaa"
    assert max(start + len(data) for start, data in disk.items()) == layout.size


def test_a_disk_larger_than_an_mbr_can_say_is_covered_as_far_as_it_can() -> None:
    layout = replace(layout_of(partition(MIB, MIB)), size=1 << 42)

    assert gpt(layout)[0][458:462] == b"\xff\xff\xff\xff"
