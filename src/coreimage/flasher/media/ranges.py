"""Ranges: which bytes of a raw disk must be written, zeros too, so that the rest may be anything.

A hole in an image means zeros. On a card there are the bytes of its former life, so all blocks that
a file system counts as its own must be written, whether they are zero or not.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError
from coreimage.flasher.disk.layout import Layout, Partition
from coreimage.flasher.disk.plan import Piece
from coreimage.lib import run

BLOCK = 4096
# How much of an empty partition is written over, so that nobody takes it for what it once was.
_WIPED = 1 << 20
# A line of a group in dumpe2fs(8); the superblock's own count is not indented.
_FREE = re.compile(r"^  Free blocks: (.*)$", re.MULTILINE)
_BLOCK_SIZE = re.compile(r"^Block size: +(\d+)$", re.MULTILINE)
_BLOCK_COUNT = re.compile(r"^Block count: +(\d+)$", re.MULTILINE)
_EXT_MAGIC_AT, _EXT_MAGIC = 1024 + 56, b"\x53\xef"
# Of the FAT's boot sector: bytes per sector, sectors per cluster, reserved, count of tables, and
# sectors of a table. Source: Microsoft's FAT specification, "Boot sector and BPB".
_FAT = struct.Struct("<11xHBHB19xI")
_FAT_TYPE_AT, _FAT_TYPE = 82, b"FAT32   "


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Range:
    """Bytes of a disk from `start` up to `end`."""

    start: int
    end: int


def required_ranges(
    disk: Path, layout: Layout, *, filled: Iterable[str], pieces: Iterable[Piece] = ()
) -> list[Range]:
    """Return what must be written of a raw disk, in whole blocks, sorted and apart.

    `filled` names the partitions that have a content; all around the partitions is required too.
    """
    found = [Range(start=0, end=layout.partitions[0].start)]
    found += [Range(start=max(each.end for each in layout.partitions), end=layout.size)]
    found += [Range(start=piece.offset, end=piece.offset + len(piece.data)) for piece in pieces]
    names = set(filled)
    for partition in layout.partitions:
        if partition.name in names:
            found += _used(disk, partition)
        else:
            end = min(partition.end, partition.start + _WIPED)
            found.append(Range(start=partition.start, end=end))
    return merged(found, size=layout.size)


def merged(ranges: Iterable[Range], *, size: int) -> list[Range]:
    """Return ranges in whole blocks, sorted, those that touch made one, cut off at `size`."""
    result: list[Range] = []
    for each in sorted(ranges):
        start = each.start // BLOCK * BLOCK
        end = min(size, -(-each.end // BLOCK) * BLOCK)
        if each.start >= each.end or start >= end:
            continue
        if result and start <= result[-1].end:
            result[-1] = Range(start=result[-1].start, end=max(end, result[-1].end))
        else:
            result.append(Range(start=start, end=end))
    return result


def _used(disk: Path, partition: Partition) -> Iterator[Range]:
    with disk.open("rb") as file:
        file.seek(partition.start)
        head = file.read(4096)
    if head[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] == _EXT_MAGIC:
        inside = _ext_used(f"{disk}?offset={partition.start}")
    elif head[_FAT_TYPE_AT : _FAT_TYPE_AT + 8] == _FAT_TYPE:
        inside = _fat_used(disk, partition.start, head)
    else:
        inside = [Range(start=0, end=partition.size)]
    for each in inside:
        yield Range(start=partition.start + each.start, end=partition.start + each.end)


def _ext_used(image: str) -> list[Range]:
    """Return the blocks that are not free, of a file system that is not in use."""
    said = run.run(["dumpe2fs", image], env={"LC_ALL": "C"}).stdout.decode(errors="replace")
    size, count = _BLOCK_SIZE.search(said), _BLOCK_COUNT.search(said)
    if size is None or count is None:
        raise CoreImageError(
            "dumpe2fs speaks another way than we know", hint="report this as a bug"
        )
    block, position, used = int(size[1]), 0, []
    for first, last in sorted(_free(said)):
        used.append(Range(start=position * block, end=first * block))
        position = last + 1
    used.append(Range(start=position * block, end=int(count[1]) * block))
    return [each for each in used if each.start < each.end]


def _free(said: str) -> Iterator[tuple[int, int]]:
    for line in _FREE.findall(said):
        for part in filter(None, line.replace(",", " ").split()):
            first, _, last = part.partition("-")
            yield int(first), int(last or first)


def _fat_used(disk: Path, start: int, head: bytes) -> list[Range]:
    """Return everything up to the last cluster in use: a new file system is filled from below."""
    sector, per_cluster, reserved, tables, table = _FAT.unpack_from(head)
    with disk.open("rb") as file:
        file.seek(start + reserved * sector)
        entries = file.read(table * sector)
    last = max(
        (at // 4 for at in range(8, len(entries) - 3, 4) if entries[at : at + 4].strip(b"\0")),
        default=2,
    )
    data = (reserved + tables * table) * sector
    return [Range(start=0, end=data + (last - 1) * per_cluster * sector)]
