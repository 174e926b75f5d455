"""Places for file systems: files of zeros, and disks with a boot partition and nothing else."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from coreimage.flasher.disk.filesystems import make_fat
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.disk.newdisk import new_disk
from coreimage.flasher.disk.plan import Piece
from coreimage.flasher.disk.space import Space


def new_space(image: Path, size: int) -> Space:
    """Return the space that a new file of zeros is."""
    with image.open("xb") as file:
        file.truncate(size)
    return Space(image=image, size=size)


def write_boot_disk(
    output: Path,
    layout: Layout,
    *,
    files: Mapping[str, bytes | Path],
    pieces: Iterable[Piece],
    scratch: Path,
) -> None:
    """Make a disk with files on its boot partition."""
    partition = layout.partition("system-boot")
    with new_disk(output, size=layout.size) as disk:
        make_fat(
            files,
            Space(image=disk.path, start=partition.start, size=partition.size),
            label="system-boot",
            volume_id=1,
            time=1_700_000_000,
            scratch=scratch,
        )
        for piece in pieces:
            disk.write(piece.data, piece.offset)
