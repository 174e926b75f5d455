"""Tarballs written as a table: one line for each member."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MTIME = 1_767_225_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a tarball; `link` is a hard link, `to` the target of a symbolic one."""

    name: str
    data: bytes | None = None
    to: str = ""
    link: str = ""
    kind: bytes = b""
    mode: int = 0o755
    owner: int = 0
    mtime: int = MTIME
    device: tuple[int, int] = (0, 0)
    headers: Mapping[str, str] = field(default_factory=dict)

    def info(self) -> tarfile.TarInfo:
        """Return it for tarfile; without anything else it is a directory."""
        made = tarfile.TarInfo(self.name)
        made.type = self.kind or (
            tarfile.REGTYPE
            if self.data is not None
            else tarfile.SYMTYPE
            if self.to
            else tarfile.LNKTYPE
            if self.link
            else tarfile.DIRTYPE
        )
        made.linkname, made.mode, made.mtime = self.to or self.link, self.mode, self.mtime
        made.uid = made.gid = self.owner
        made.devmajor, made.devminor = self.device
        made.size = len(self.data or b"")
        made.pax_headers = dict(self.headers)
        return made


def directory(name: str, **fields: Any) -> Member:
    return Member(name=name, **fields)


def file(name: str, data: bytes = b"", **fields: Any) -> Member:
    return Member(name=name, data=data, **fields)


def symlink(name: str, to: str, **fields: Any) -> Member:
    return Member(name=name, to=to, **fields)


def hard_link(name: str, link: str, **fields: Any) -> Member:
    return Member(name=name, link=link, **fields)


def tar_of(*members: Member) -> bytes:
    """Return a tar archive, not compressed, always the same bytes."""
    return tar_of_all(members)


def tar_of_all(members: Sequence[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as archive:
        for member in members:
            archive.addfile(member.info(), io.BytesIO(member.data or b""))
    return buffer.getvalue()
