"""The store of packages: every .deb once, under its sha256, shared by all builds.

Nothing here is precious. A build links what it uses into its own scratch folder, so the store may
be trimmed or deleted at any time; what is taken out is hashed once more, so that it does not
matter who has put it there.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from coreimage.lib.files import scratch_directory, sha256_of

# Files for others to use, whatever the umask.
_MODE = 0o644


class Wanted(Protocol):
    """A package that a build asks for."""

    @property
    def sha256(self) -> str:
        """The digest of its file."""

    @property
    def file(self) -> str:
        """The name of its file."""


_W = TypeVar("_W", bound=Wanted)


class Store:
    """Packages in a folder, at most `limit` bytes of them."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def place(self, sha256: str) -> Path:
        """Return where a package lies when it is there."""
        return self._folder / sha256[:2] / f"{sha256}.deb"

    def missing(self, packages: Iterable[_W]) -> list[_W]:
        """Return the packages that are not in the store."""
        return [each for each in packages if not self.place(each.sha256).is_file()]

    def take(self, packages: Iterable[_W], folder: Path) -> list[_W]:
        """Link or copy packages into a folder; return those that are not here, or damaged."""
        return [each for each in packages if not self._take(each, folder / each.file)]

    def _take(self, package: Wanted, target: Path) -> bool:
        place = self.place(package.sha256)
        try:
            # A link to a file of somebody else's could change under our hands.
            if place.stat().st_uid == os.geteuid():
                os.link(place, target)
            else:
                shutil.copyfile(place, target)
            with suppress(OSError):
                os.utime(place)
        except FileNotFoundError:
            return False
        except OSError:
            target.unlink(missing_ok=True)
            with suppress(OSError):
                shutil.copyfile(place, target)
        if target.is_file() and sha256_of(target) == package.sha256:
            return True
        target.unlink(missing_ok=True)
        with suppress(OSError):
            place.unlink()
        return False

    def add(self, packages: Iterable[Wanted], folder: Path) -> None:
        """Keep packages of a folder, whose digests were checked.

        Where we may not write, or have no room, they are not kept.
        """
        with suppress(OSError), scratch_directory(self._folder) as scratch:
            for each in packages:
                place = self.place(each.sha256)
                copy = scratch / place.name
                try:
                    os.link(folder / each.file, copy)
                except OSError:
                    shutil.copyfile(folder / each.file, copy)
                copy.chmod(_MODE)
                place.parent.mkdir(exist_ok=True)
                copy.replace(place)

    def trim(self, keep: Sequence[str] = ()) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        kept = set(keep)
        found = []
        for path in self._folder.glob("??/*.deb"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            if path.stem not in kept:
                with suppress(OSError):
                    path.unlink()
                    total -= size
