"""Whether a disk is what flashing its version gives: tables, boot files and slot a, byte by byte.

What a running system changes is not compared: the boot loader's variables, slot b, `writable`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.flasher.disk.content import SLOT, DiskParts
from coreimage.flasher.disk.grub import BOOT_LABEL
from coreimage.flasher.disk.layout import Layout, Partition
from coreimage.flasher.inspect.show import DiskFacts
from coreimage.flasher.provision import DEFAULT_USER, Access
from coreimage.lib import run
from coreimage.lib.files import CHUNK

# What the boot loader or the running system writes there.
_CHANGING = ("/grubenv", "/snappy-system.txt", "/snappy-stamp.txt")
_OTHER_SLOT = ("/EFI/ubuntu/grub/b/", "/b/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place that is not as it should be."""

    where: str
    what: str


def access_of(facts: DiskFacts) -> Access:
    """Return who may log in to a disk, as far as the bytes that are compared depend on it."""
    keys = facts.keys.get(DEFAULT_USER, ())
    return Access(ssh=facts.ssh, keys=keys, developer_mode=facts.developer_mode)


def compare(
    disk: Path,
    wanted: Path,
    *,
    facts: DiskFacts,
    layout: Layout,
    parts: DiskParts,
    scratch: Path,
) -> list[Difference]:
    """Return how a raw disk differs from the one that is `wanted`, which has `parts`."""
    found = [*_tables(disk, parts), *_layouts(facts.layout, layout)]
    if not found:
        found += _boot_files(disk, wanted, layout.partition(BOOT_LABEL), scratch)
        found += _system(disk, wanted, layout.partition(SLOT))
    return found


def _layouts(is_layout: Layout, wanted: Layout) -> Iterator[Difference]:
    if [(each.start, each.size) for each in is_layout.partitions] != [
        (each.start, each.size) for each in wanted.partitions
    ]:
        yield Difference(where="partition table", what="other partitions than expected")


def _tables(disk: Path, parts: DiskParts) -> Iterator[Difference]:
    """Compare what lies outside of file systems, where a later piece may lie over an earlier."""
    expected: dict[int, bytes] = {}
    for piece in parts.pieces:
        under = expected.get(piece.offset, b"")
        expected[piece.offset] = piece.data + under[len(piece.data) :]
    names = {
        offset: " and ".join(piece.name for piece in parts.pieces if piece.offset == offset)
        for offset in expected
    }
    with disk.open("rb") as file:
        for offset, data in sorted(expected.items()):
            file.seek(offset)
            if file.read(len(data)) != data:
                yield Difference(where=names[offset], what=f"bytes from {offset} on differ")


def _boot_files(
    disk: Path, wanted: Path, partition: Partition, scratch: Path
) -> Iterator[Difference]:
    expected = _tree(f"{wanted}@@{partition.start}", scratch / "wanted")
    found = _tree(f"{disk}@@{partition.start}", scratch / "found")
    for path in sorted({*expected, *found}):
        if path.endswith(_CHANGING) or path.startswith(_OTHER_SLOT):
            continue
        where = f"system-boot: {path}"
        if path not in found:
            yield Difference(where=where, what="is missing")
        elif path not in expected:
            yield Difference(where=where, what="should not be there")
        elif expected[path].read_bytes() != found[path].read_bytes():
            yield Difference(where=where, what="has another content")


def _tree(drive: str, target: Path) -> dict[str, Path]:
    """Copy all files of a FAT file system into a folder and return them by their paths."""
    target.mkdir()
    copied = run.run(["mcopy", "-s", "-n", "-i", drive, "::/*", target], check=False)
    if copied.status:
        raise DataError("the boot partition cannot be read", hint="see what fsck.fat -n says")
    files = [path for path in target.rglob("*") if path.is_file()]
    return {f"/{path.relative_to(target).as_posix()}": path for path in files}


def _system(disk: Path, wanted: Path, partition: Partition) -> Iterator[Difference]:
    """Compare a whole partition; only the first difference is told."""
    with disk.open("rb") as found, wanted.open("rb") as expected:
        found.seek(partition.start)
        expected.seek(partition.start)
        position = 0
        while chunk := expected.read(min(CHUNK, partition.size - position)):
            other = found.read(len(chunk))
            if other != chunk:
                same = next(
                    (
                        at
                        for at, (one, two) in enumerate(zip(chunk, other, strict=False))
                        if one != two
                    ),
                    len(other),
                )
                yield Difference(where="system-a", what=f"byte {position + same} differs")
                return
            position += len(chunk)
