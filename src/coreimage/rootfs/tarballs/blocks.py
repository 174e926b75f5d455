"""The members of a tar stream with the blocks that they are made of.

Most members of a tree are passed on as they are; taking every header apart and putting it together
again costs more than compressing what follows it. A header is plain when it is already as we
publish it (see `coreimage.lib.tar`); others are rewritten. Source: POSIX.1-2017, pax, "ustar
Interchange Format" and "pax Interchange Format".
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.lib import tar
from coreimage.lib.files import CHUNK, Reader
from coreimage.rootfs.tarballs.gzipped import GzipWriter, gzip_file

_BLOCK = 512
_RECORD = 20 * _BLOCK
_MAGIC = b"ustar\x0000"
_NO_NAMES = bytes(64)
_ZEROS = bytes(_BLOCK)
_PLAIN_TYPES = (b"0", b"1", b"2", b"3", b"4", b"5")
# Headers about the header that follows.
_EXTENDED = (b"x", b"g", b"L", b"K")
_BASE_256 = 0x80
_BROKEN = "'the built tree' is not a readable tar archive"


class BlockReader:
    """A stream of which exact amounts are taken."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._data = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes; raises DataError at an early end."""
        end = self._at + size
        if end <= len(self._data):
            taken = self._data[self._at : end]
            self._at = end
            return taken
        parts = [self._data[self._at :]]
        missing = size - len(parts[0])
        while missing > 0:
            self._data = self._source.read(CHUNK)
            if not self._data:
                raise DataError(f"{_BROKEN}: it is cut short")
            parts.append(self._data[:missing])
            self._at = min(missing, len(self._data))
            missing -= self._at
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Leave out `size` bytes."""
        while size:
            size -= len(self.take(min(size, CHUNK)))

    def drain(self) -> None:
        """Read to the end of the stream, which may have more zeros than it needs."""
        while self._source.read(CHUNK):
            pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member: what matters of it, and its headers as they came.

    `plain` says that they may be passed on.
    """

    name: str
    kind: bytes
    size: int
    link: str
    blocks: bytes
    plain: bool

    @property
    def mtime(self) -> int:
        """When it was changed, in UNIX seconds."""
        return int(_parse(self.blocks).mtime)

    def rewritten(self, name: str, link: str) -> bytes:
        """Return headers with another name and link."""
        if self.plain and (name, link) == (self.name, self.link):
            return self.blocks
        info = tar.plain(_parse(self.blocks))
        info.name, info.linkname = name, link
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class TarFile:
    """A gzipped tar that is written in one pass."""

    def __init__(self, output: GzipWriter) -> None:
        self._output = output
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write headers or content, in whole blocks."""
        self._output.write(data)
        self._size += len(data)

    def add(self, info: tarfile.TarInfo, content: bytes) -> None:
        """Write a member of our own."""
        self.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.write(content + bytes(-len(content) % _BLOCK))

    def finish(self) -> None:
        """Write the end of the archive."""
        self.write(bytes(2 * _BLOCK))
        self.write(bytes(-self._size % _RECORD))


@contextmanager
def gzipped_tar(path: Path, level: int) -> Iterator[TarFile]:
    """Yield a new gzipped tar, which is whole when the block is left without an error."""
    with gzip_file(path, level) as output:
        archive = TarFile(output)
        yield archive
        archive.finish()


def members(reader: BlockReader) -> Iterator[Member]:
    """Yield the members of a tree; their content must be taken before the next one is.

    Raises DataError for what is no tar, and for names that leave the tree.
    """
    pending: list[bytes] = []
    while True:
        header = reader.take(_BLOCK)
        if header == _ZEROS:
            reader.drain()
            return
        kind = header[156:157]
        if kind in _EXTENDED:
            pending += [header, reader.take(padded(_number(header[124:136])))]
            continue
        if not pending and kind in _PLAIN_TYPES and _is_plain(header, kind):
            yield _plain(header, kind)
        else:
            yield _member(b"".join([*pending, header]))
        pending = []


def padded(size: int) -> int:
    """Return how many bytes content of a size takes, in whole blocks."""
    return size + -size % _BLOCK


def _is_plain(header: bytes, kind: bytes) -> bool:
    """Tell whether a header can be passed on: no names of owners, a name relative to the root."""
    return (
        header[257:265] == _MAGIC
        and header[265:329] == _NO_NAMES
        and header[0] not in b"./"
        and b".." not in header[:100]
        and not (kind == tarfile.LNKTYPE and (header[157] in b"./" or b".." in header[157:257]))
        and not header[345]
        and header[124] < _BASE_256
    )


def _plain(header: bytes, kind: bytes) -> Member:
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise DataError(f"{_BROKEN}: a header is damaged")
    return Member(
        name=_text(header[:100]).rstrip("/"),
        kind=kind,
        size=_number(header[124:136]) if kind == tarfile.REGTYPE else 0,
        link=_text(header[157:257]),
        blocks=header,
        plain=True,
    )


def _member(blocks: bytes) -> Member:
    """Return a member whose headers must be taken apart."""
    info = _parse(blocks)
    link = info.linkname
    if info.islnk():
        link = tar.safe_name(link, archive="the built tree")
    name = tar.safe_name(info.name, archive="the built tree")
    if (info.islnk() and not link) or "\0" in link:
        raise DataError(f"'the built tree' has a link that leads nowhere: '{name}'")
    size = info.size if info.isreg() else 0
    return Member(name=name, kind=info.type, size=size, link=link, blocks=blocks, plain=False)


def _parse(blocks: bytes) -> tarfile.TarInfo:
    source = io.BytesIO(blocks + bytes(2 * _BLOCK))
    try:
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8") as archive:
            info = archive.next()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{_BROKEN}: {error}") from error
    if info is None:
        raise DataError(_BROKEN)
    return info


def _number(octal: bytes) -> int:
    try:
        return int(octal.rstrip(b" \0") or b"0", 8)
    except ValueError as error:
        raise DataError(f"{_BROKEN}: {error}") from error


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
