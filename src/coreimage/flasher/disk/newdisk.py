"""New disks: one sparse file, in which tables, file systems and a boot loader find their places.

The file has no name until it is whole and on the disk: killed at any instant, nothing is left, and
what was there before is never overwritten.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError
from coreimage.lib import files

# What open(2) says of O_TMPFILE on file systems and kernels that do not have it.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
# What link(2) says of file systems without hard links, such as FAT.
_NO_LINKS = frozenset({errno.EOPNOTSUPP, errno.EPERM})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDisk:
    """A disk that is being made in a directory, at first nothing but zeros."""

    descriptor: int
    directory: Path

    @property
    def path(self) -> Path:
        """Where programs that we start find the file, which has no name."""
        # Our number in the /proc that is mounted here, which may be that of other namespaces.
        return Path("/proc") / Path("/proc/self").readlink() / f"fd/{self.descriptor}"

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes at an offset from the start."""
        while data:
            written = os.pwrite(self.descriptor, data, offset)
            data, offset = data[written:], offset + written


@contextmanager
def new_disk(output: Path, *, size: int) -> Iterator[NewDisk]:
    """Yield a disk of `size` bytes that becomes the new file `output` when the block ends well.

    Raises CoreImageError when `output` exists, or where no file can be as large.
    """
    check_output(output)
    with _unnamed(output) as descriptor:
        _extend(descriptor, size, output)
        yield NewDisk(descriptor=descriptor, directory=output.absolute().parent)
        os.fsync(descriptor)


def _extend(descriptor: int, size: int, output: Path) -> None:
    try:
        os.ftruncate(descriptor, size)
    except (OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EFBIG:
            raise
        raise CoreImageError(
            f"a file in '{output.absolute().parent}' cannot have {size} bytes",
            hint="give a smaller --size, or choose another --output",
        ) from error


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
