"""Inspection: tar members that every reader of an image can unpack without harm, or a refusal.

Old recoveries unpack as root with a tar that follows links. So nothing may lie behind a symlink,
and a name means one thing. What has to be remembered of a member are a few bytes.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.lib import files, tar
from coreimage.lib.files import Reader

# Device nodes are tolerated here, where the kernel makes its own.
_DEVICES = "system/dev/"
_MOST_MEMBERS = 1 << 20
_LARGEST = 64 << 30
_LONGEST_NAME = 255
_LONGEST_PATH = 2048
_DEEPEST = 128


class Inspector:
    """Checks the members of one archive, which are named as in an image."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._count = self._size = 0
        # Hashes of names: a million of them fit where a million names would not.
        self._symlinks: set[int] = set()
        self._files: set[int] = set()
        self._directories: set[int] = set()

    def check(self, member: tarfile.TarInfo) -> None:
        """Raise DataError for a member that cannot be published; names must be safe already."""
        self._check_bounds(member)
        self._check_place(member)
        if member.islnk() and hash(member.linkname) not in self._files:
            raise self._refusal(member, f"a hard link to '{member.linkname}', which is no file yet")
        node = not (member.isreg() or member.isdir() or member.issym() or member.islnk())
        if node and not (member.isdev() and member.name.startswith(_DEVICES)):
            raise self._refusal(member, "neither file, directory nor link")

    def _check_bounds(self, member: tarfile.TarInfo) -> None:
        self._count += 1
        self._size += max(0, member.size)
        if self._count > _MOST_MEMBERS:
            raise DataError(f"'{self._archive}' has more than {_MOST_MEMBERS} members")
        if self._size > _LARGEST:
            raise DataError(f"'{self._archive}' unpacks to more than {_LARGEST >> 30} GiB")
        parts = member.name.split("/")
        longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
        if len(member.name) > _LONGEST_PATH or longest > _LONGEST_NAME or len(parts) > _DEEPEST:
            shown = f"{member.name[:60]}…"
            raise DataError(f"'{self._archive}' has a member whose name is too long: '{shown}'")

    def _check_place(self, member: tarfile.TarInfo) -> None:
        key = hash(member.name)
        if key in self._files or key in self._symlinks:
            raise self._refusal(member, "there twice")
        if key in self._directories and not member.isdir():
            raise self._refusal(member, "a directory and something else")
        at = member.name.rfind("/")
        while at > 0:
            above = hash(member.name[:at])
            if above in self._symlinks:
                raise self._refusal(member, f"behind the symlink '{member.name[:at]}'")
            if above in self._files:
                raise self._refusal(member, f"below '{member.name[:at]}', which is a file")
            at = member.name.rfind("/", 0, at)
        kind = self._symlinks if member.issym() else self._files
        (self._directories if member.isdir() else kind).add(key)

    def _refusal(self, member: tarfile.TarInfo, what: str) -> DataError:
        return DataError(
            f"'{self._archive}': '{member.name}' is {what}",
            hint="no image is made of it; correct what made the tarball",
        )


class _Copying:
    """Pass bytes on to a second stream as they are read; the last ones can be looked at again."""

    def __init__(self, source: Reader, target: BinaryIO | None) -> None:
        self._source, self._target = source, target
        self._recent = b""
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if self._target is not None:
            self._target.write(data)
        self.size += len(data)
        self._recent = (self._recent + data)[-2 * files.CHUNK :]
        return data

    def since(self, offset: int) -> bytes:
        return self._recent[max(0, len(self._recent) - (self.size - offset)) :]


def inspect(source: Reader, *, archive: str) -> None:
    """Read a tar stream to its end; errors as in `copy`."""
    for _ in copy(source, None, archive=archive):
        pass


def copy(source: Reader, target: BinaryIO | None, *, archive: str) -> Iterator[tarfile.TarInfo]:
    """Copy a tar stream byte for byte, or only read it, and yield its members, inspected.

    Raises DataError for a member that cannot be published, and for anything but zeros after the
    end: other readers than ours might go on there.
    """
    copying = _Copying(source, target)
    inspector = Inspector(archive)
    with tar.reading(copying, archive=archive) as opened:
        for member in tar.members(opened, archive=archive):
            inspector.check(member)
            yield member
        rest = copying.since(opened.offset)
        while not rest.strip(b"\0"):
            rest = copying.read(files.CHUNK)
            if not rest:
                return
    raise DataError(f"'{archive}' goes on after its end")
