"""The cache of builds: packages, trees of the package stage, and finished images.

Each entry of a shelf lies under the digest of all that it was made from, beside the list of it, so
that a miss can be explained. Entries come and go by a rename; readers hold what they have opened or
linked, so a shelf may be trimmed or deleted at any time, and two builds never wait for each other.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coreimage.config import CacheSettings
from coreimage.lib.files import scratch_directory
from coreimage.rootfs.archives.store import Store, Wanted

_ENTRY = "entry.json"
Recipe = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Where a workspace, or a user without one, keeps what can be used again."""

    folder: Path
    settings: CacheSettings = field(default_factory=CacheSettings)

    @property
    def packages(self) -> Store:
        """The packages."""
        return Store(self.folder / "packages", limit=_bytes(self.settings.packages_gib))

    @property
    def stages(self) -> "Shelf":
        """Trees after the packages are set up."""
        return Shelf(self.folder / "stages", limit=_bytes(self.settings.stages_gib))

    @property
    def images(self) -> "Shelf":
        """What builds have left."""
        return Shelf(self.folder / "images", limit=_bytes(self.settings.images_gib))


def _bytes(gib: float) -> int:
    return int(gib * (1 << 30))


def key_of(recipe: Recipe) -> str:
    """Return the digest of what something is made from."""
    return hashlib.sha256(json.dumps(sorted(recipe.items())).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: its folder, what it was made from, and what its maker noted."""

    path: Path
    recipe: Recipe
    notes: Mapping[str, Any]


class Shelf:
    """Entries of one kind, at most `limit` bytes of them."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def find(self, recipe: Recipe) -> Entry | None:
        """Return the entry that was made from the same, and note that it was used."""
        entry = self._read(self._folder / key_of(recipe))
        if entry is not None:
            with suppress(OSError):
                os.utime(entry.path)
        return entry if entry is not None and entry.recipe == recipe else None

    def entries(self) -> Iterator[Entry]:
        """Yield what is there, in any order."""
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                entry = self._read(path)
                if entry is not None:
                    yield entry

    @staticmethod
    def _read(path: Path) -> Entry | None:
        try:
            # Only our own are believed, and those of root: there is no signature on them.
            if path.stat().st_uid not in (os.geteuid(), 0):
                return None
            document = json.loads((path / _ENTRY).read_bytes())
            return Entry(path=path, recipe=document["recipe"], notes=document["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def open(self) -> bool:
        """Whether anything may be put here."""
        return self._limit > 0

    def put(self, recipe: Recipe, files: Mapping[str, Path], notes: Mapping[str, Any]) -> None:
        """Keep files, by links where that is possible; where there is no room they are not kept."""
        if not self.open:
            return
        with suppress(OSError), scratch_directory(self._folder, mode=0o755) as scratch:
            for name, path in files.items():
                link_or_copy(path, scratch / name)
            document = {"recipe": dict(recipe), "notes": dict(notes)}
            (scratch / _ENTRY).write_text(json.dumps(document))
            (scratch / _ENTRY).chmod(0o644)
            with suppress(OSError):  # somebody else was as fast, and has the same
                scratch.rename(self._folder / key_of(recipe))
        self.trim()

    def discard(self, entry: Entry) -> None:
        """Remove an entry that turned out to be damaged."""
        with suppress(OSError), scratch_directory(self._folder) as scratch:
            entry.path.rename(scratch / entry.path.name)

    def trim(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        found = []
        for entry in self.entries():
            with suppress(OSError):
                size = sum(path.stat().st_size for path in entry.path.iterdir())
                found.append((entry.path.stat().st_mtime, size, entry))
        total = sum(size for _, size, _ in found)
        for _, size, entry in sorted(found, key=lambda each: each[0]):
            if total <= self._limit:
                return
            self.discard(entry)
            total -= size


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or one like it where they cannot be the same."""
    try:
        os.link(source, target)
    except OSError:
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o644)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether something can be used again; if not, what the nearest entry has otherwise."""

    stage: str
    hit: bool
    differences: Sequence[str] = ()


def explain(
    cache: Cache, packages: Sequence[Wanted], *, stage: Recipe, image: Recipe
) -> list[Verdict]:
    """Return what of a build could be used again: packages, package stage, image."""
    missing = cache.packages.missing(packages)
    return [
        Verdict(
            stage="packages",
            hit=not missing,
            differences=[f"package {each.file} is to be fetched" for each in missing],
        ),
        _judge("package stage", cache.stages, stage),
        _judge("image", cache.images, image),
    ]


def _judge(stage: str, shelf: Shelf, recipe: Recipe) -> Verdict:
    if shelf.find(recipe) is not None:
        return Verdict(stage=stage, hit=True)
    known = [
        differences(each.recipe, recipe)
        for each in shelf.entries()
        if each.recipe.get("definition") == recipe.get("definition")
    ]
    if not known:
        return Verdict(stage=stage, hit=False, differences=["nothing of this definition is kept"])
    nearest = sorted(known, key=len)  # mypy cannot see what min returns
    return Verdict(stage=stage, hit=False, differences=nearest[0])


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return a line for each input that two recipes do not agree about."""
    lines = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if before is None:
            lines.append(f"{name} is new")
        elif now is None:
            lines.append(f"{name} is gone")
        else:
            lines.append(f"{name} was {_short(before)}, is {_short(now)}")
    return lines


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:12]}…"  # noqa: PLR2004  a digest is too long to read
