"""Tar streams: read members with safe names, rewrite them, write archives that never vary.

Output is GNU format, in which old recoveries read names of any length and bytes; only members with
extended attributes have PAX headers, which those skip. Owners are numeric. Source: POSIX.1-2017,
pax, "pax Interchange Format", and GNU tar's manual, "Basic Tar Format".
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

from coreimage.errors import DataError
from coreimage.lib.files import CHUNK, Reader

_XATTR = "SCHILY.xattr."
# Names are bytes; whatever the locale, they come out as they went in.
_ENCODING = "utf-8"


def safe_name(name: str, *, archive: str) -> str:
    """Return a member's name relative to the root, without "./" or a trailing slash.

    The root itself is the empty string. Raises DataError for names that would leave it.
    """
    if "\0" in name:
        raise DataError(f"'{archive}' has a member whose name holds a NUL byte")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise DataError(f"'{archive}' has a member outside its root: '{name}'")
    return "/".join(parts)


@contextmanager
def reading(stream: Reader, *, archive: str) -> Iterator[tarfile.TarFile]:
    """Yield a tar stream, read in one pass; damage is a DataError that names the archive."""
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", encoding=_ENCODING) as tar:
            yield tar
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"'{archive}' is not a readable tar archive: {error}") from error


def members(tar: tarfile.TarFile, *, archive: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members with safe names, hard-link targets made relative to the root too."""
    for member in tar:
        member.name = safe_name(member.name, archive=archive)
        if member.islnk():
            member.linkname = safe_name(member.linkname, archive=archive)
        if (member.islnk() and not member.linkname) or "\0" in member.linkname:
            raise DataError(f"'{archive}' has a link that leads nowhere: '{member.name}'")
        tar.members.clear()  # type: ignore[attr-defined]  # else all members stay in memory
        yield member


class _Writer(tarfile.TarFile):
    """Writes each member in the plainest format that holds it."""

    def addfile(self, tarinfo: tarfile.TarInfo, fileobj: Any = None) -> None:
        self.format = tarfile.PAX_FORMAT if tarinfo.pax_headers else tarfile.GNU_FORMAT
        super().addfile(tarinfo, fileobj)


class _Gathered:
    """Gathers the many small writes of an archive into few large ones.

    tarfile's own streams (mode "w|") copy all that they hold at every write.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._held = 0
        self._size = 0

    def write(self, data: bytes) -> int:
        """Take some bytes; they may arrive later."""
        self._parts.append(data)
        self._held += len(data)
        self._size += len(data)
        if self._held >= CHUNK:
            self.flush()
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self._size

    def flush(self) -> None:
        """Write what is held."""
        self._stream.write(b"".join(self._parts))
        self._parts.clear()
        self._held = 0


@contextmanager
def writing(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Yield a tar archive that is written to `stream` in one pass.

    Nothing but the block's end, without an error, makes it whole.
    """
    gathered = _Gathered(stream)
    output = cast("IO[bytes]", gathered)
    with _Writer(fileobj=output, mode="w", format=tarfile.GNU_FORMAT, encoding=_ENCODING) as tar:
        yield tar
    gathered.flush()


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member as we publish it: whole seconds, numeric owners, no needless PAX header."""
    member.mtime = int(member.mtime)
    member.uname = member.gname = ""
    member.pax_headers = {
        key: value for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    }
    return member


def xattrs(member: tarfile.TarInfo) -> dict[str, bytes]:
    """Return the extended attributes of a member."""
    return {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }


def entry(
    name: str,
    *,
    mtime: int,
    mode: int,
    kind: bytes = tarfile.REGTYPE,
    linkname: str = "",
    size: int = 0,
) -> tarfile.TarInfo:
    """Return a member of our own, owned by root."""
    member = tarfile.TarInfo(name)
    member.mtime, member.mode, member.type, member.linkname = mtime, mode, kind, linkname
    member.size = size
    return member
