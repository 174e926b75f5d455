"""Staging: a file tree unpacked as plain files by an ordinary user.

What an ordinary user cannot give a file - owner, special mode bits, extended attributes - is kept
in memory beside the tree, for whoever makes a file system of it. Symlinks are followed inside the
tree only, as a process would that has it as its root.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

from coreimage.errors import DataError, NotFoundError
from coreimage.lib.files import CHUNK, Reader

# Of Linux: MAXSYMLINKS of path_resolution(7), NAME_MAX, and PATH_MAX with room for our own prefix.
_MOST_LINKS = 40
_LONGEST_NAME = 255
_LONGEST_PATH = 2048
# Removing a tree keeps one directory open for each level.
_DEEPEST = 256
_LONGEST_TARGET = 4095
# (uid_t) -1 means "leave it" to chown(2).
_NO_ID = (1 << 32) - 1
_XATTR = re.compile(r"[!#-~]{1,255}\Z")


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """What a path is, as the system shall see it; hard links share one entry.

    `mode` are the twelve permission bits. `mtime` is in whole UNIX seconds, None for the time of
    the image. `target` is where a symlink points to.
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    target: str = ""

    def __post_init__(self) -> None:
        """Refuse what no file system can store, or no tool takes; raises DataError."""
        if bad := [name for name in self.xattrs if not _XATTR.match(name)]:
            raise DataError(f"{bad[0]!r} cannot be the name of an extended attribute")
        if not (0 <= self.uid < _NO_ID and 0 <= self.gid < _NO_ID):
            raise DataError(f"'{self.uid}:{self.gid}' cannot be the owner of a file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be put into a tree before it is taken for an attack; sizes in bytes.

    What was replaced or removed again counts too.
    """

    entries: int = 500_000
    size: int = 16 << 30


class Staging:
    """A tree below a directory of ours. Paths are relative to its root, without a leading slash."""

    def __init__(self, root: Path, *, limits: Limits = Limits()) -> None:
        """Begin with an empty root directory; `root` must not exist."""
        root.mkdir(mode=0o700)
        self.root = root
        self._limits = limits
        self._entries = {"": Entry(kind=Kind.DIRECTORY, mode=0o755)}
        self._written = 0
        self._puts = 0

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All paths, parents before children; the root is the empty path."""
        return MappingProxyType(self._entries)

    @property
    def content_size(self) -> int:
        """Bytes of all files, hard links counted once."""
        files = {entry: path for path, entry in self._entries.items() if entry.kind is Kind.FILE}
        return sum((self.root / path).lstat().st_size for path in files.values())

    def file(self, path: str) -> Path:
        """Return where the content of a file lies; symlinks are followed inside the tree.

        Raises NotFoundError when there is no file at `path`.
        """
        found = self._resolve(_checked(path), last=True)
        entry = self._entries.get(found)
        if entry is None or entry.kind is not Kind.FILE:
            raise NotFoundError(f"there is no file '{path}' in the tree")
        return self.root / found

    def has(self, path: str) -> bool:
        """Tell whether there is anything at `path`, symlinks followed."""
        return self._resolve(_checked(path), last=True) in self._entries

    def put_file(
        self,
        path: str,
        content: bytes | Reader,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write a file, replacing what was at `path`, with everything below it.

        Parents that are missing are made, owned by root with mode 0755, here and below.
        """
        entry = Entry(kind=Kind.FILE, mode=mode, uid=uid, gid=gid, mtime=mtime, xattrs=xattrs or {})
        place = self._make_room(path)
        source = BytesIO(content) if isinstance(content, bytes) else content
        with os.fdopen(_create_private(self.root / place), "wb") as file:
            while chunk := source.read(CHUNK):
                self._written += len(chunk)
                self.require_room(0)
                file.write(chunk)
        self._entries[place] = entry

    def put_directory(
        self,
        path: str,
        *,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        mtime: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a directory, or give the one at `path` these attributes.

        Where a symlink leads to a directory nothing changes: that is how `lib` of one tarball
        finds its way to the `usr/lib` of another. Other symlinks are replaced.
        """
        entry = Entry(
            kind=Kind.DIRECTORY, mode=mode, uid=uid, gid=gid, mtime=mtime, xattrs=xattrs or {}
        )
        place = self._resolve(_checked(path), make=True)
        current = self._entries.get(place)
        if current is not None and current.kind is Kind.SYMLINK and self._leads_to_directory(place):
            return
        if current is None or current.kind is not Kind.DIRECTORY:
            self._make_room(path)
            (self.root / place).mkdir(mode=0o700)
        else:
            self._count()
        self._entries[place] = entry

    def put_symlink(
        self,
        path: str,
        target: str,
        *,
        uid: int = 0,
        gid: int = 0,
        mtime: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a symlink, replacing what was at `path`, with everything below it."""
        if not 0 < len(os.fsencode(target)) <= _LONGEST_TARGET or "\0" in target:
            raise DataError(f"symlink '{path}' has a target that no symlink can have")
        entry = Entry(
            kind=Kind.SYMLINK,
            mode=0o777,
            uid=uid,
            gid=gid,
            mtime=mtime,
            xattrs=xattrs or {},
            target=target,
        )
        place = self._make_room(path)
        (self.root / place).symlink_to(target)
        self._entries[place] = entry

    def put_hard_link(self, path: str, target: str) -> None:
        """Make `path` another name of what is at `target`.

        Raises DataError when there is nothing at `target`, or a directory.
        """
        source = self._resolve(_checked(target))
        entry = self._entries.get(source)
        if entry is None or entry.kind is Kind.DIRECTORY:
            raise DataError(f"hard link '{path}' leads to '{target}', which is no file of the tree")
        if self._entries.get(self._resolve(_checked(path))) is entry:
            return
        place = self._make_room(path)
        os.link(self.root / source, self.root / place, follow_symlinks=False)
        self._entries[place] = entry

    def remove(self, path: str) -> None:
        """Remove what is at `path`, with everything below it; nothing happens when it is absent."""
        place = self._resolve(_checked(path))
        entry = self._entries.get(place)
        if not place or entry is None:
            return
        if entry.kind is Kind.DIRECTORY:
            shutil.rmtree(self.root / place)
            below = f"{place}/"
            for name in [name for name in self._entries if name.startswith(below)]:
                del self._entries[name]
        else:
            (self.root / place).unlink()
        del self._entries[place]

    def require_room(self, size: int) -> None:
        """Raise DataError when `size` bytes more would be more than the limits allow."""
        if self._written + size > self._limits.size:
            raise DataError(f"the tree is larger than {self._limits.size >> 20} MiB")

    def _count(self) -> None:
        self._puts += 1
        if self._puts > self._limits.entries:
            raise DataError(f"the tree has more than {self._limits.entries} entries")

    def _make_room(self, path: str) -> str:
        """Return the place of a new entry: its parents exist, and nothing is there."""
        self._count()
        place = self._resolve(_checked(path), make=True)
        if not place:
            raise DataError("the root of the tree is not a directory")
        self.remove(place)
        return place

    def _leads_to_directory(self, place: str) -> bool:
        found = self._entries.get(self._resolve(place, last=True))
        return found is not None and found.kind is Kind.DIRECTORY

    def _resolve(self, path: str, *, make: bool = False, last: bool = False) -> str:
        """Return a path whose parents are directories, symlinks followed inside the tree.

        `make` makes parents that are missing; `last` follows a symlink at the very end too.
        """
        pending = _reversed_parts(path)
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del done[-1:]
                continue
            here = "/".join((*done, part))
            entry = self._entries.get(here)
            if entry is not None and entry.kind is Kind.SYMLINK and (pending or last):
                links += 1
                if links > _MOST_LINKS:
                    raise DataError(f"the symlinks on the way to '{path}' lead in a circle")
                pending += _reversed_parts(entry.target)
                done = [] if entry.target.startswith("/") else done
                continue
            if pending:
                self._require_directory(here, path, make=make and len(done) < _DEEPEST)
            done.append(part)
        place = "/".join(done)
        if len(done) > _DEEPEST or len(os.fsencode(place)) > _LONGEST_PATH:
            raise DataError(f"the path '{path[:80]}...' leads too deep")
        return place

    def _require_directory(self, here: str, path: str, *, make: bool) -> None:
        entry = self._entries.get(here)
        if entry is None and make:
            self._count()
            (self.root / here).mkdir(mode=0o700)
            self._entries[here] = Entry(kind=Kind.DIRECTORY, mode=0o755)
        elif entry is not None and entry.kind is not Kind.DIRECTORY:
            raise DataError(f"'{path}' would lie below '{here}', which is not a directory")


def _create_private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def _reversed_parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _checked(path: str) -> str:
    """Return a path that stays in the tree and that file systems and their tools can digest."""
    parts = path.split("/")
    encoded = os.fsencode(path)
    if path.startswith("/") or ".." in parts or "\0" in path or "\n" in path:
        raise DataError(f"{path!r} is not a path that a tree can have")
    if len(encoded) > _LONGEST_PATH or any(
        len(os.fsencode(part)) > _LONGEST_NAME for part in parts
    ):
        raise DataError(f"the path '{path[:80]}...' is too long")
    return path
