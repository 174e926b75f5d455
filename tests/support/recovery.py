"""A recovery in memory: what an old device does with the tarballs of an image.

Written from the behaviour of the shell, rm and tar, and not from how deltas are made.
"""

import fnmatch
import io
import itertools
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_clock = itertools.count(10**9)


@dataclass(eq=False)
class Inode:
    """What a name leads to; `attributes` are None for a directory that tar made by itself."""

    kind: str
    attributes: dict[str, Any] | None = None
    content: bytes | str = b""
    mtime: object = None
    children: dict[str, "Inode"] = field(default_factory=dict)


class Recovery:
    """The file system of a device, changed by `update`."""

    def __init__(self) -> None:
        self.root = Inode("directory")

    def update(self, tarball: bytes) -> None:
        """Apply a tarball: the list of what goes first, then what it holds."""
        with tarfile.open(fileobj=io.BytesIO(tarball), encoding="utf-8") as archive:
            for member in archive:
                if member.name == "removed":
                    content = archive.extractfile(member)
                    assert content is not None
                    self._remove_listed(content.read())
            times = [
                self._unpack(archive, member) for member in archive if member.name != "removed"
            ]
            # GNU tar gives directories their times at the end.
            for inode, mtime in filter(None, times):
                inode.mtime = mtime

    def _remove_listed(self, listed: bytes) -> None:
        """Do `while read file; do rm -Rf $file; done`."""
        *lines, rest = listed.decode("utf-8", "surrogateescape").split("\n")
        assert rest == "", "the last line is never read"
        for line in lines:
            read = line.replace("\\", "").strip(" \t")
            for word in read.split():
                assert not word.startswith("-"), "rm takes it for an option"
                for path in self._matching(word):
                    self._remove(path)

    def _matching(self, pattern: str) -> list[str]:
        assert ".." not in pattern.split("/")
        if not set(pattern) & set("*?["):
            return [pattern]
        return [path for path in self.paths() if fnmatch.fnmatchcase(path, pattern)]

    def _remove(self, path: str) -> None:
        *above, name = path.split("/")
        folder = self.root
        for part in above:
            folder = folder.children.get(part, Inode("nothing"))
        if folder.children.pop(name, None) is not None:
            folder.mtime = next(_clock)

    def _unpack(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo
    ) -> tuple[Inode, object] | None:
        *above, name = [part for part in member.name.split("/") if part not in ("", ".")]
        folder = self.root
        for part in above:
            if part not in folder.children:
                folder.children[part] = Inode("directory", mtime=next(_clock))
                folder.mtime = next(_clock)
            folder = folder.children[part]
            assert folder.kind == "directory", f"{member.name} lies below no directory"
        found = folder.children.get(name)
        if member.isdir():
            if found is None:
                found = folder.children[name] = Inode("directory")
                folder.mtime = next(_clock)
            assert found.kind == "directory", f"{member.name} is in the way of a directory"
            # Unpacking over a directory takes no extended attributes away.
            before = (found.attributes or {}).get("xattrs", {})
            found.attributes = _attributes(member)
            found.attributes["xattrs"] = {**before, **found.attributes["xattrs"]}
            return found, _time(member)
        assert found is None or found.kind != "directory", f"{member.name} is a directory"
        folder.children[name] = (
            self._find(member.linkname) if member.islnk() else _made(archive, member)
        )
        folder.mtime = next(_clock)
        return None

    def _find(self, path: str) -> Inode:
        inode = self.root
        for part in path.split("/"):
            inode = inode.children[part]
        assert inode.kind != "directory"
        return inode

    def paths(self) -> list[str]:
        """Return every path."""
        return list(self._walk("", self.root))

    def _walk(self, prefix: str, inode: Inode) -> dict[str, Inode]:
        found: dict[str, Inode] = {}
        for name, child in sorted(inode.children.items()):
            found[prefix + name] = child
            found |= self._walk(f"{prefix}{name}/", child)
        return found

    def described(self) -> dict[str, Any]:
        """Return everything that can be seen of every path, with the names of the same file."""
        inodes = self._walk("", self.root)
        names: dict[int, list[str]] = {}
        for path, inode in inodes.items():
            names.setdefault(id(inode), []).append(path)
        return {
            path: (inode.kind, inode.attributes, inode.content, inode.mtime, names[id(inode)])
            for path, inode in inodes.items()
        }


def same_for_users(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Compare what `described` returns; directories that no tarball describes are as they are."""
    return found.keys() == wanted.keys() and all(
        found[path] == each or (each[0] == found[path][0] == "directory" and each[1] is None)
        for path, each in wanted.items()
    )


def _made(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Inode:
    kinds = {
        tarfile.REGTYPE: "file",
        tarfile.SYMTYPE: "link",
        tarfile.CHRTYPE: "character device",
        tarfile.FIFOTYPE: "pipe",
    }
    reader = archive.extractfile(member) if member.isreg() else None
    content = reader.read() if reader else f"{member.linkname} {member.devmajor}:{member.devminor}"
    return Inode(kinds[member.type], _attributes(member), content, _time(member))


def _attributes(member: tarfile.TarInfo) -> dict[str, Any]:
    return {
        "mode": None if member.issym() else member.mode,
        "owner": (member.uid, member.gid),
        "xattrs": {
            key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.")
        },
    }


def _time(member: tarfile.TarInfo) -> object:
    return member.pax_headers.get("mtime", str(member.mtime))
