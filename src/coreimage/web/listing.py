"""Directory listings of the publication tree."""

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from starlette.responses import HTMLResponse

from coreimage.errors import DataError
from coreimage.model.publication import build_id_key
from coreimage.web.pages import page
from coreimage.web.trees import is_shown

# What files are, for people: the first ending that fits counts.
_KINDS = (
    (".device.tar.gz", "kernel and boot files"),
    (".tar.gz", "root filesystem"),
    (".manifest", "packages and their versions"),
    (".cdx.json", "bill of materials (CycloneDX)"),
    ("SHA256SUMS", "checksums"),
    ("SHA256SUMS.gpg", "signature of the checksums"),
    (".asc", "signature"),
    (".log", "build log"),
)
_MARKS = {"pending": "the newest", "current": "the newest that passed its tests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a listing. Directories have no size; marks are symlinks and have a target."""

    name: str
    is_folder: bool
    modified: datetime
    size: int | None = None
    target: str = ""

    @property
    def href(self) -> str:
        """The URL relative to the page."""
        return "./" + quote(self.name) + ("/" if self.is_folder else "")

    @property
    def kind(self) -> str:
        """What this is, for people, or nothing when its name says it all."""
        if self.target:
            return _MARKS.get(self.name, "")
        if self.is_folder:
            return ""
        return next((kind for ending, kind in _KINDS if self.name.endswith(ending)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crumb:
    """A step of the way from the server's root to a page; the page itself has no link."""

    name: str
    href: str


def list_folder(folder: Path, root: Path) -> list[Entry]:
    """Return what may be shown of a directory: marks, directories newest first, files by name."""
    base = root.resolve()
    entries = [
        entry
        for name in os.listdir(folder)  # noqa: PTH208  names are what is needed
        if is_shown(name) and (entry := _entry(folder / name, base)) is not None
    ]
    return sorted(entries, key=_place)


def _place(entry: Entry) -> tuple[int, tuple[int, int], str]:
    """Return what entries sort by; build ids count as numbers, the newest before the others."""
    group = 0 if entry.target else 1 if entry.is_folder else 2
    try:
        day, serial = build_id_key(entry.name) if entry.is_folder else (0, 0)
    except DataError:
        day, serial = 0, 0
    return group, (-day, -serial), entry.name


def _entry(path: Path, base: Path) -> Entry | None:
    """Return the line of a file, or None when it may not be served or has gone."""
    try:
        state = path.stat()
        real = path.resolve(strict=True)
        target = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115
    except OSError:
        return None
    inside = real.is_relative_to(base) and all(map(is_shown, real.relative_to(base).parts))
    is_folder = stat.S_ISDIR(state.st_mode)
    if not inside or not (is_folder or stat.S_ISREG(state.st_mode)):
        return None
    return Entry(
        name=path.name,
        is_folder=is_folder,
        modified=datetime.fromtimestamp(state.st_mtime, UTC),
        size=None if is_folder else state.st_size,
        target=target,
    )


def crumbs(path: str) -> list[Crumb]:
    """Return the way to a directory, whose URL path ends with a slash."""
    names = path.strip("/").split("/")
    steps = [
        Crumb(name=name, href="/" + quote("/".join(names[: depth + 1])) + "/")
        for depth, name in enumerate(names)
    ]
    return [Crumb(name="Home", href="/"), *steps[:-1], Crumb(name=names[-1], href="")]


def listing_page(path: str, folder: Path, root: Path) -> HTMLResponse:
    """Return the page of a directory; `path` is its URL path, with a slash at the end."""
    way = crumbs(path)
    return page(
        "listing.html",
        path=path,
        crumbs=way,
        # A mark is a name for another directory of the same parent: say which.
        real_name="" if way[-1].name == folder.name or folder == root.resolve() else folder.name,
        entries=list_folder(folder, root),
    )
