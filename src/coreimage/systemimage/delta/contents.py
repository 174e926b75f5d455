"""Contents: what unpacking a tarball makes, by path and without the bytes of the files."""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from coreimage.lib import files, tar
from coreimage.lib.files import Reader

LIST = "removed"
"""The member that lists what goes; no other may have its name."""

# Of PAX headers, those that say how a file is to be, beyond what tarfile takes care of itself.
_KEPT = ("SCHILY.xattr.", "SCHILY.acl.", "RHT.security.")
_MOST_ENTRIES = 500_000


class UnsuitableError(Exception):
    """There can be no delta, and why: a full image serves instead."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A file of any kind; hard links are names of one node.

    `digest` covers type, mode, owner, device number, link target, attributes and bytes, `mtime` is
    in UNIX seconds, `attributes` are the names of extended ones. A directory that no member
    describes has none of these: it is there because something lies in it.
    """

    directory: bool
    digest: bytes = b""
    mtime: str = ""
    attributes: frozenset[str] = frozenset()

    @property
    def implicit(self) -> bool:
        """Whether no member describes it."""
        return not self.digest


def same(old: Node | None, new: Node | None, *, directory_times: bool = True) -> bool:
    """Tell whether nothing needs to be done to make the one the other."""
    if old is None or new is None or old.directory != new.directory:
        return old is new
    if new.implicit:
        return True
    timeless = new.directory and not directory_times
    return old.digest == new.digest and (timeless or old.mtime == new.mtime)


class Contents:
    """A tree of nodes, changed as tar and `rm -R` change a file system.

    What an unpacker could do in more than one way is refused with UnsuitableError.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes by path, in the order in which they were put."""
        return MappingProxyType(self._nodes)

    def put(self, path: str, node: Node) -> None:
        """Add a node, or replace one of the same kind; parents that are missing are made."""
        found = self._nodes.get(path)
        if found is not None and found.directory != node.directory:
            raise UnsuitableError(f"'{path}' of '{self.name}' replaces another kind of file")
        if found is None:
            self._make_parents(path)
            if len(self._nodes) >= _MOST_ENTRIES:
                raise UnsuitableError(f"'{self.name}' has more than {_MOST_ENTRIES} entries")
        if found is None or not node.implicit:
            self._nodes[path] = node

    def _make_parents(self, path: str) -> None:
        for parent in parents(path):
            found = self._nodes.get(parent)
            if found is None:
                self.put(parent, Node(directory=True))
            elif not found.directory:
                raise UnsuitableError(f"'{path}' of '{self.name}' lies below a file or link")
            else:
                return

    def remove(self, paths: Iterable[str]) -> None:
        """Remove paths, with everything below them."""
        gone = frozenset(paths)
        if gone:
            self._nodes = {
                path: node
                for path, node in self._nodes.items()
                if path not in gone and gone.isdisjoint(parents(path))
            }

    def overlay(self, other: "Contents", only: frozenset[str] | None = None) -> None:
        """Put the nodes of another tree, or some of them, over this one."""
        for path, node in other.nodes.items():
            if only is None or path in only:
                self.put(path, node)

    @property
    def newest(self) -> int:
        """The time of the newest node, in whole UNIX seconds."""
        return max(
            (int(Decimal(node.mtime)) for node in self._nodes.values() if node.mtime), default=0
        )

    def groups(self) -> list[list[str]]:
        """Return the sorted names of each node that has several."""
        counts = Counter(map(id, self._nodes.values()))
        groups: dict[int, list[str]] = {}
        for path, node in self._nodes.items():
            if counts[id(node)] > 1:
                groups.setdefault(id(node), []).append(path)
        return [sorted(group) for group in groups.values()]


def parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first; the root is none of them."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def read(stream: Reader, *, name: str) -> Contents:
    """Return what a tar stream unpacks to, in one pass; file bytes are hashed and let go.

    Raises DataError for a damaged archive, UnsuitableError for one that is not plain enough.
    """
    found = Contents(name)
    with tar.reading(stream, archive=name) as archive:
        for member in tar.members(archive, archive=name):
            _add(found, archive, member)
    return found


def _add(found: Contents, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = member.name
    if not path:
        if not member.isdir():
            raise UnsuitableError(f"the root of '{found.name}' is not a directory")
        return
    if path == LIST:
        raise UnsuitableError(f"'{found.name}' has a member '{LIST}' of its own")
    if path in found.nodes and not member.isdir():
        raise UnsuitableError(f"'{found.name}' has '{path}' twice")
    if member.islnk():
        target = found.nodes.get(member.linkname)
        if target is None or target.directory:
            raise UnsuitableError(f"'{path}' of '{found.name}' is a hard link to no earlier file")
        found.put(path, target)
    else:
        digest = _digest(archive, member)
        names = frozenset(key for key in member.pax_headers if key.startswith(_KEPT))
        node = Node(directory=member.isdir(), digest=digest, mtime=_time(member), attributes=names)
        found.put(path, node)


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    kinds = {
        "directory": member.isdir(),
        "link": member.issym(),
        "file": member.isreg(),
        "character device": member.ischr(),
        "block device": member.isblk(),
        "pipe": member.isfifo(),
    }
    kind = next((name for name, true in kinds.items() if true), None)
    if kind is None:
        raise UnsuitableError(f"'{member.name}' is of an unknown type")
    described = (
        kind,
        # Links have no mode of their own.
        0 if kind == "link" else member.mode & 0o7777,
        (member.uid, member.gid),
        (member.devmajor, member.devminor) if kind.endswith("device") else None,
        member.linkname if kind == "link" else None,
        sorted((key, value) for key, value in member.pax_headers.items() if key.startswith(_KEPT)),
    )
    digest = hashlib.sha256(ascii(described).encode())
    content = archive.extractfile(member) if kind == "file" else None
    while content is not None and (chunk := content.read(files.CHUNK)):
        digest.update(chunk)
    return digest.digest()


def _time(member: tarfile.TarInfo) -> str:
    """Return a member's time exactly; tarfile's own number has no room for nanoseconds."""
    whole = int(member.mtime)  # raises for what is no time at all
    text = member.pax_headers.get("mtime")
    return format(Decimal(text).normalize(), "f") if text else str(whole)


def delivered(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member as a delta carries it: the same file, with numeric owners and dense bytes."""
    headers = {
        key: value
        for key, value in member.pax_headers.items()
        if key.startswith(_KEPT) or key == "mtime"
    }
    if member.issparse():
        member.type, member.sparse = tarfile.REGTYPE, None
    member.uname = member.gname = ""
    member.pax_headers = headers
    return member
