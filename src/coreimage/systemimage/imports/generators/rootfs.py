"""The generator of rootfs files: the root file system of a publication, moved below system/."""

import posixpath
import tarfile
from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.lib import tar
from coreimage.lib.files import Reader
from coreimage.systemimage.imports.generators.inspection import Inspector

_DROPPED = frozenset({"SWAP.swap", "etc/mtab"})
_PREFIX = "system"


def write(source: Reader, target: BinaryIO, *, name: str) -> None:
    """Rewrite a tar stream: every member below system/, what an image needs added at the end.

    Hard links are re-targeted, symlinks are not. Left out are SWAP.swap, etc/mtab and what is in
    dev/, which the kernel fills. Raises DataError for an archive that cannot be an image.
    """
    rewriter, inspector = _Rewriter(name), Inspector(name)
    with tar.reading(source, archive=name) as old, tar.writing(target) as new:
        for member in tar.members(old, archive=name):
            if rewriter.moves(member):
                inspector.check(member)
                data = old.extractfile(member) if member.isreg() else None
                _make_dense(member)
                new.addfile(tar.plain(member), data)
                new.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
        for member in rewriter.additions():
            inspector.check(member)
            new.addfile(member)


class _Rewriter:
    """What has to be remembered of the members that went by."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._newest = 0
        self._lib = "lib"
        # Of the members, only those that decide what is added.
        self._present: set[str] = set()

    def moves(self, member: tarfile.TarInfo) -> bool:
        """Move a member below system/, or return False for one that is left out."""
        name = member.name
        self._newest = max(self._newest, int(member.mtime))
        if _is_dropped(name):
            return False
        if name == "lib" and member.issym():
            self._lib = posixpath.normpath(posixpath.join("/", member.linkname))[1:]
        if name == "writable" or name.endswith("/modules"):
            self._present.add(name)
        member.name = _below(name)
        if member.islnk():
            if _is_dropped(member.linkname):
                raise DataError(
                    f"'{self._archive}': '{name}' is a hard link to '{member.linkname}', "
                    "which images do not carry"
                )
            member.linkname = _below(member.linkname)
        return True

    def additions(self) -> list[tarfile.TarInfo]:
        """Return the members that are added, as old as the newest of the archive."""
        directories = [
            tar.entry(_below(name), mtime=self._newest, mode=0o755, kind=tarfile.DIRTYPE)
            for name in ("writable", posixpath.join(self._lib, "modules"))
            if name not in self._present
        ]
        mtab = tar.entry(
            _below("etc/mtab"),
            mtime=self._newest,
            mode=0o444,
            kind=tarfile.SYMTYPE,
            linkname="/proc/mounts",
        )
        return [*directories, mtab]


def _is_dropped(name: str) -> bool:
    return name in _DROPPED or name.startswith("dev/")


def _below(name: str) -> str:
    return f"{_PREFIX}/{name}" if name else _PREFIX


def _make_dense(member: tarfile.TarInfo) -> None:
    """Turn a sparse member, which we cannot write, into an ordinary file of the same bytes."""
    if member.issparse():
        member.type, member.sparse = tarfile.REGTYPE, None
