"""What changed between the files of two tarballs: content, kind, mode, owner, attributes.

Both are read once, as streams; what stays in memory is a digest and a few numbers for each entry.
Times do not count, nor does the day on which a password was last changed, as shadow(5) has it: for
most accounts it is that of the build.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tarfile import TarFile, TarInfo

from coreimage.lib import compress, tar
from coreimage.lib.files import CHUNK

_STATUS = "var/lib/dpkg/status"
_LISTS = re.compile(r"var/lib/dpkg/info/([^/:]+)(?::[^/]+)?\.list")
_MODULES = re.compile(r"(?:system/)?(?:usr/)?lib/modules/([^/]+)")
_DERIVED = re.compile(r"var/lib/dpkg/|etc/ld\.so\.cache$|assets/|(.*/)?lib/modules/[^/]+/modules\.")
_SHADOW = ("etc/shadow", "etc/shadow-")
_MAX_KEPT = 64 << 20
# Directories that say little by themselves: what lies in them is told apart.
_DEEP = ("usr", "var", "system", "system/usr", "usr/share", "usr/lib", "system/usr/lib")
_SET_ID = 0o6000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a tarball; `content` is a digest, or where a link leads."""

    kind: str
    size: int
    content: bytes
    mode: int
    uid: int
    gid: int
    attributes: bytes


@dataclass(slots=True)
class Scan:
    """What a tarball holds: entries by path, sizes, dpkg's database, the release of its kernel.

    `owners` are the packages of paths as dpkg knows them.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    size: int = 0
    status: bytes = b""
    owners: dict[str, str] = field(default_factory=dict)
    kernels: set[str] = field(default_factory=set)


class Presence(StrEnum):
    """Whether a path is new, gone, or other than before."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A path before and after, and the package that it belongs to, if any."""

    path: str
    before: Entry | None
    after: Entry | None
    package: str = ""

    @property
    def presence(self) -> Presence:
        """Whether the path is new, gone, or other than before."""
        if self.before is None:
            return Presence.ADDED
        return Presence.REMOVED if self.after is None else Presence.CHANGED

    @property
    def aspects(self) -> list[str]:
        """What is other than before; nothing for paths that are new or gone."""
        old, new = self.before, self.after
        if old is None or new is None:
            return []
        found = {
            "kind": old.kind != new.kind,
            "content": old.content != new.content,
            "mode": old.mode != new.mode,
            "owner": (old.uid, old.gid) != (new.uid, new.gid),
            "attributes": old.attributes != new.attributes,
        }
        return [name for name, differs in found.items() if differs]

    @property
    def growth(self) -> int:
        """The bytes that it takes more than before."""
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)

    @property
    def gives_rights(self) -> bool:
        """Whether rights changed: mode, owner, attributes, or a new program that has its own."""
        special = self.before is None and self.after is not None and self.after.mode & _SET_ID
        return bool(special) or bool({"mode", "owner", "attributes"}.intersection(self.aspects))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderChange:
    """How much changed below a directory; bytes are those that it takes more than before."""

    folder: str
    added: int
    removed: int
    changed: int
    growth: int


def scan(path: Path) -> Scan:
    """Return what a compressed tarball holds; raises DataError."""
    found = Scan()
    with (
        compress.opened(path) as stream,
        tar.reading(stream, archive=path.name) as archive,
    ):
        for member in tar.members(archive, archive=path.name):
            _enter(found, archive, member)
    return found


def _enter(found: Scan, archive: TarFile, member: TarInfo) -> None:
    name = member.name or "."
    listed = _LISTS.fullmatch(name)
    kept = listed is not None or name in (_STATUS, *_SHADOW)
    digest, data = _content(archive, member, keep=kept)
    size = member.size
    if name in _SHADOW and len(data) == size:
        data = b"\n".join(map(_undated, data.split(b"\n")))
        digest, size = hashlib.sha256(data).digest(), len(data)
    elif name == _STATUS:
        found.status = data
    elif listed:
        lines = data.decode(errors="surrogateescape").splitlines()
        found.owners.update((line.lstrip("/"), listed[1]) for line in lines)
    modules = _MODULES.match(name)
    if modules:
        found.kernels.add(modules[1])
    found.size += member.size
    attributes = sorted(tar.xattrs(member).items())
    found.entries[name] = Entry(
        _kind(member),
        size,
        digest,
        member.mode,
        member.uid,
        member.gid,
        repr(attributes).encode() if attributes else b"",
    )


def _content(archive: TarFile, member: TarInfo, *, keep: bool) -> tuple[bytes, bytes]:
    """Return what an entry's content is compared by, and the content itself if it is kept."""
    reader = archive.extractfile(member) if member.isreg() else None
    if reader is None:
        link = member.linkname.encode(errors="surrogateescape")
        return link or f"{member.devmajor}:{member.devminor}".encode(), b""
    state, data = hashlib.sha256(), bytearray()
    while chunk := reader.read(CHUNK):
        state.update(chunk)
        if keep and len(data) < _MAX_KEPT:
            data += chunk
    return state.digest(), bytes(data)


def _undated(line: bytes) -> bytes:
    fields = line.split(b":")
    return b":".join([*fields[:2], *fields[3:]])


def _kind(member: TarInfo) -> str:
    if member.isreg():
        return "file"
    if member.isdir():
        return "directory"
    if member.issym():
        return "link"
    return "hard link" if member.islnk() else "special"


def compare_files(before: Scan, after: Scan, owners: Mapping[str, str]) -> list[FileChange]:
    """Return what changed, by path; `owners` are the packages of paths as dpkg knows them.

    When the kernel is another one, files of its release are compared with those of the other.
    """
    former = _former_paths(before, after)
    changes = []
    for path in sorted((before.entries.keys() - former.values()) | after.entries.keys()):
        old, new = before.entries.get(former.get(path, path)), after.entries.get(path)
        if old != new:
            owner = _owner(path, owners)
            changes.append(FileChange(path=path, before=old, after=new, package=owner))
    return changes


def _former_paths(before: Scan, after: Scan) -> dict[str, str]:
    """Return where files of the new kernel were under the old one, by their paths."""
    if len(before.kernels) != 1 or len(after.kernels) != 1 or before.kernels == after.kernels:
        return {}
    (old,), (new,) = before.kernels, after.kernels
    moved = {path.replace(old, new): path for path in before.entries if old in path}
    return {path: former for path, former in moved.items() if path in after.entries}


def _owner(path: str, owners: Mapping[str, str]) -> str:
    # Packages may still name paths as they were before /usr was merged.
    names = [path, path.removeprefix("system/")]
    names += [name.removeprefix("usr/") for name in names]
    return next((owners[name] for name in names if name in owners), "")


def by_folder(changes: Iterable[FileChange]) -> list[FolderChange]:
    """Return changes by directory, the one first that grew or shrank most."""
    groups: dict[str, list[FileChange]] = {}
    for change in changes:
        groups.setdefault(_folder(change.path), []).append(change)
    found = [_sum(folder, group) for folder, group in groups.items()]
    return sorted(found, key=lambda each: (-abs(each.growth), each.folder))


def _sum(folder: str, changes: Sequence[FileChange]) -> FolderChange:
    count = {kind: sum(each.presence is kind for each in changes) for kind in Presence}
    return FolderChange(
        folder=folder,
        added=count[Presence.ADDED],
        removed=count[Presence.REMOVED],
        changed=count[Presence.CHANGED],
        growth=sum(each.growth for each in changes),
    )


def _folder(path: str) -> str:
    parts = path.split("/")
    depth = 1
    while "/".join(parts[:depth]) in _DEEP and depth < len(parts) - 1:
        depth += 1
    return "/".join(parts[:depth]) if len(parts) > 1 else "/"


def unexplained(changes: Iterable[FileChange], packages: set[str]) -> Iterator[FileChange]:
    """Yield the changes that do not come from packages that changed.

    `packages` are the names of those, without architecture. What is made of all packages, such as
    dpkg's own files and the initrd, changes with any.
    """
    for change in changes:
        derived = packages and _DERIVED.match(change.path)
        if not derived and change.package not in packages:
            yield change
