"""Builds as pages and JSON show them: what is read, and from where."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.farm import log, queue
from coreimage.farm.folder import BuildFolder, folder_of
from coreimage.farm.store import Store
from coreimage.model.build import Build, BuildResult, BuildStatus
from coreimage.web.trees import Folder, open_beneath

PAGE_SIZE = 50
MAX_DIGITS = 15
# A log's end, as a page shows it before anybody asks for more.
_SHOWN_BYTES = 64 << 10
# Files whose digest is not recorded are hashed for each page: small ones only.
_HASHED_BYTES = 4 << 20
_RECORD = ".build.json"
_HEX_DIGITS = frozenset("0123456789abcdef")
_DIGEST_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file of a build; without a digest when none is known."""

    name: str
    size: int
    sha256: str

    @property
    def href(self) -> str:
        """The URL relative to the page of the build."""
        return f"files/{quote(self.name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which builds a list has; empty words mean all."""

    project: str = ""
    status: str = ""
    result: str = ""
    page: int = 1

    def href(self, page: int) -> str:
        """Return the URL of another page of the list."""
        named = {"project": self.project, "status": self.status, "result": self.result}
        words = [f"{key}={quote(value)}" for key, value in named.items() if value]
        return "?" + "&".join([*words, f"page={page}"])


def open_store(workspace: Workspace) -> Store | None:
    """Return the store after a look for builders that died; None when nothing was ever built."""
    if not queue.has_store(workspace):
        return None
    store = queue.open_store(workspace)
    with suppress(CoreImageError, OSError):  # who may only read shows what is recorded
        queue.recover(workspace, store)
    return store


def find(store: Store, wanted: Filter) -> tuple[list[Build], bool]:
    """Return a page of builds, those that run first, and whether there are more."""
    with suppress(ValueError):
        statuses = [BuildStatus(wanted.status)] if wanted.status else []
        results = [BuildResult(wanted.result)] if wanted.result else []
        found = store.find(
            project=wanted.project or None,
            statuses=statuses,
            results=results,
            limit=PAGE_SIZE + 1,
            offset=(wanted.page - 1) * PAGE_SIZE,
            running_first=True,
        )
        return found[:PAGE_SIZE], len(found) > PAGE_SIZE
    return [], False


def find_one(store: Store | None, project: str, number: str) -> Build:
    """Return the build of a project; NotFoundError when there is none."""
    is_number = number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS
    if store is None or not is_number:
        raise NotFoundError(f"there is no build '{number}'")
    build = store.get(int(number))
    if build.request.project != project or str(build.id) != number:
        raise NotFoundError(f"there is no build '{number}' of '{project}'")
    return build


def artifacts(workspace: Workspace, build: Build) -> list[Artifact]:
    """Return the files of a build that are there, with digests."""
    root = folder_of(workspace, build.id).artifacts
    digests = _recorded_digests(root, build.artifacts)
    found = []
    for name in build.artifacts:
        with suppress(NotFoundError):
            file = open_beneath(root, name)
            if isinstance(file, Folder):
                continue
            with file:
                size = file.seek(0, 2)
                digest = digests.get(name, "")
                if not digest and size <= _HASHED_BYTES:
                    file.seek(0)
                    digest = hashlib.sha256(file.read(_HASHED_BYTES)).hexdigest()
                found.append(Artifact(name=name, size=size, sha256=digest))
    return found


def _recorded_digests(root: Path, names: Sequence[str]) -> Mapping[str, str]:
    """Return what the record among the files says of the others; what is no digest is left out."""
    for name in names:
        if name.endswith(_RECORD):
            with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                said = json.loads((root / name).read_bytes())["sha256"]
                return {
                    str(key): value
                    for key, value in said.items()
                    if isinstance(value, str)
                    and len(value) == _DIGEST_LENGTH
                    and _HEX_DIGITS.issuperset(value)
                }
    return {}


def log_end(folder: BuildFolder) -> tuple[str, int, bool]:
    """Return the last whole lines of a log, the position after them, and whether it is all."""
    data, end = log.tail(folder, limit=_SHOWN_BYTES)
    whole = len(data) == end
    if not whole:
        data = data.partition(b"\n")[2]
    lines, newline, rest = data.rpartition(b"\n")
    text = (lines + newline).decode(errors="replace")
    return "\n".join(map(log.printable, text.splitlines())), end - len(rest), whole


def facts(build: Build) -> dict[str, Any]:
    """Return a build for machines: its record, and the words for people."""
    return {**json.loads(build.to_json()), "state": build.label}


def duration(begun: datetime | None, ended: datetime | None) -> str:
    """Return how long something took or takes, for people: 41 s, 3 min 5 s, 2 h 4 min."""
    if begun is None:
        return ""
    seconds = max(0, round(((ended or queue.now_utc()) - begun).total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
