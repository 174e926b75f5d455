"""Assembly: one sparse disk file from a partition table, partition images and a boot loader.

The file has no name until it is whole and on the disk: killed at any instant, nothing is left, and
what was there before is never overwritten.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from coreimage.errors import CoreImageError, DataError
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.disk.plan import Piece
from coreimage.lib import files
from coreimage.lib.progress import Progress, Task

_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
# What open(2) says of O_TMPFILE on file systems and kernels that do not have it.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
# What link(2) says of file systems without hard links, such as FAT.
_NO_LINKS = frozenset({errno.EOPNOTSUPP, errno.EPERM})


def assemble(
    layout: Layout,
    *,
    images: Mapping[str, Path],
    pieces: Sequence[Piece],
    output: Path,
    progress: Progress,
) -> None:
    """Write the disk as the new file `output`.

    `images` are by the names of partitions; those without one stay empty. `pieces` are written
    last, in their order. Raises DataError when an image is larger than its
    partition, CoreImageError when `output` exists or there is no space for it.
    """
    check_output(output)
    for name, image in images.items():
        _check_fit(name, image.stat().st_size, layout.partition(name).size)
    # Asked once: while the kernel decides where new files lie, the answers differ in their zeros.
    extents = {name: list(_extents(image)) for name, image in images.items()}
    total = sum(length for found in extents.values() for _, length in found)
    files.require_space(output.parent, total, purpose="the disk image")
    with _unnamed(output) as descriptor, progress.task("writing the disk image", total) as task:
        os.ftruncate(descriptor, layout.size)
        for name, image in images.items():
            start = layout.partition(name).start
            _copy(image, extents[name], descriptor, start, task)
        for piece in pieces:
            _write(descriptor, piece.data, piece.offset)
        os.fsync(descriptor)


def check_output(output: Path) -> None:
    """Raise CoreImageError when something is at `output`, or its directory is not there."""
    if output.is_symlink() or output.exists():
        raise _exists(output)
    if not output.parent.is_dir():
        raise CoreImageError(
            f"there is no directory '{output.parent}'", hint="make it, or choose another --output"
        )


def _exists(output: Path) -> CoreImageError:
    return CoreImageError(
        f"'{output}' exists and is not overwritten", hint="remove it, or choose another --output"
    )


def _check_fit(name: str, size: int, room: int) -> None:
    if size > room:
        raise DataError(f"the image of '{name}' has {size} bytes, its partition only {room}")


def _extents(image: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the parts of a file that are not holes, in whole blocks."""
    with image.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return
            hole = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            start = max(end, start // _BLOCK * _BLOCK)
            end = min(size, -(-hole // _BLOCK) * _BLOCK)
            yield start, end - start


def _copy(
    image: Path, extents: Sequence[tuple[int, int]], target: int, offset: int, task: Task
) -> None:
    """Copy the blocks that are not zero: what is not written stays a hole."""
    with image.open("rb") as file:
        for start, length in extents:
            for position in range(start, start + length, _BLOCK):
                block = os.pread(file.fileno(), min(_BLOCK, start + length - position), position)
                if block != _ZEROS[: len(block)]:
                    _write(target, block, offset + position)
                task.advance(len(block))


def _write(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


@contextmanager
def _unnamed(output: Path) -> Iterator[int]:
    """Yield a descriptor of a new file that gets its name when the block ends well."""
    directory = output.absolute().parent
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        with _in_scratch(output) as descriptor:
            yield descriptor
        return
    try:
        yield descriptor
        give_name(f"/proc/self/fd/{descriptor}", output)
    finally:
        os.close(descriptor)


@contextmanager
def _in_scratch(output: Path) -> Iterator[int]:
    """Do the same where files without a name do not exist: one in a directory that is swept."""
    with files.scratch_directory(output.absolute().parent) as scratch:
        temporary = scratch / output.name
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        give_name(str(temporary), output)


def give_name(source: str, output: Path) -> None:
    """Give a file its final name, unless that is taken by now."""
    directory = os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A directory descriptor makes Python call linkat(2) with AT_SYMLINK_FOLLOW, without which
        # the link in /proc itself would get the new name.
        os.link(source, output.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_output(output)
        Path(source).rename(output)
    finally:
        os.close(directory)
