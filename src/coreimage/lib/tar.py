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
from coreimage.lib.files import Reader

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


@contextmanager
def writing(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Yield a tar archive that is written to `stream` in one pass."""
    with _Writer.open(
        fileobj=stream,
        mode="w|",
        format=tarfile.GNU_FORMAT,
        bufsize=1 << 20,
        encoding=_ENCODING,
    ) as tar:
        yield tar


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
