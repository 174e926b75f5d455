"""Locks: what a build took in, to the byte, so that it can be made again and compared.

A lock names packages, archives, the definition's files, extra archives, tools and settings. It
says nothing about where or by whom it was built: two builds of the same bytes have equal locks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from coreimage.errors import DataError, NotFoundError
from coreimage.model.build import Subproject
from coreimage.model.document import parse_object

VERSION = 2
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedPackage(_Strict):
    """One package: `file` is its name in the archive, `uri` where it came from."""

    name: str
    version: str
    architecture: str
    file: str
    size: int
    sha256: _Digest
    uri: str


class LockedArchive(_Strict):
    """One suite of an archive as it was: the digest and the date of its (In)Release file."""

    uri: str
    suite: str
    sha256: _Digest
    date: datetime


class LockedExtra(_Strict):
    """An archive beside the distribution's: digests of its sources and pins, and its keys."""

    name: str
    sources: _Digest
    preferences: _Digest
    keys: Sequence[str]


class LockedFile(_Strict):
    """One file of the definition: the digest of its content, or of where a link leads.

    Folders are named where they are empty.
    """

    kind: Literal["file", "program", "link", "folder"]
    sha256: _Digest


class LockedDefinition(_Strict):
    """What was built, and the digest of the definition with all that it extends."""

    name: str
    product: str
    release: str
    series: str
    arch: str
    device: str
    subproject: Subproject
    sha256: _Digest


class Lock(_Strict):
    """The inputs of a build; `files` are those beside definition.toml, by part and name.

    `sources` are the lines of the sources.list that the tree begins with.
    """

    version: int
    format: int
    source_date_epoch: int
    definition: LockedDefinition
    sources: Sequence[str]
    archives: Sequence[LockedArchive]
    extra_archives: Sequence[LockedExtra]
    packages: Sequence[LockedPackage]
    files: Mapping[str, LockedFile]
    tools: Mapping[str, str]
    settings: Mapping[str, int | str]

    def to_json(self) -> str:
        """Return the lock as a JSON document."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str) -> Self:
        """Parse a lock; `name` is what messages call it. Raises DataError."""
        document = parse_object(text, name=f"lock '{name}'")
        if document.get("version") != VERSION:
            raise DataError(
                f"lock '{name}' has version {document.get('version')!r}, expected {VERSION}",
                hint="it was written by another version of coreimage",
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"lock '{name}': '{where}': {first['msg'].lower()}") from error


def read_lock(path: Path) -> Lock:
    """Read a lock; raises NotFoundError and DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(
            f"the lock '{path}' cannot be read: {error.strerror}",
            hint="every build leaves one among its artifacts: livecd.NAME.lock.json",
        ) from error
    return Lock.from_json(data, name=str(path))


def digest(data: bytes | str) -> str:
    """Return the sha256 of bytes, or of text as UTF-8, in lower-case hex."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
