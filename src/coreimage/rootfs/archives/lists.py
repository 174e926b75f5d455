"""What apt knows of archives, kept between runs: an unchanged archive is asked, not read again.

apt verifies signatures and dates of what is kept exactly as of what it fetches. What it would
install follows from lists, wishes and its own version, so that is kept too.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coreimage.lib.files import scratch_directory, sha256_of, write_atomically

_LISTS = "lists"
# Archives that nobody asked about for so many others are forgotten.
_KEPT = 16


class KeptLists:
    """The lists of one set of sources, below `root`."""

    def __init__(self, root: Path, sources: Sequence[str]) -> None:
        self._root = root
        # Lists are believed only by who has fetched them.
        self._place = root / f"{os.geteuid()}-{_digest(sources)[:32]}"

    def lend(self, folder: Path) -> None:
        """Link what is kept into a folder, where apt may change it as it likes."""
        with suppress(OSError):
            if self._place.stat().st_uid == os.geteuid():
                for path in (self._place / _LISTS).iterdir():
                    if path.is_file():
                        os.link(path, folder / path.name)

    def keep(self, folder: Path) -> None:
        """Keep what a folder holds now; answers are forgotten when it is not what was kept."""
        new = {
            path.name: path for path in folder.iterdir() if path.is_file() and path.name != "lock"
        }
        with suppress(OSError):
            if all(path.samefile(self._place / _LISTS / name) for name, path in new.items()):
                os.utime(self._place)
                return
        with suppress(OSError), scratch_directory(self._root) as scratch:
            fresh = scratch / "fresh"
            (fresh / _LISTS).mkdir(parents=True)
            for name, path in new.items():
                os.link(path, fresh / _LISTS / name)
            if self._place.exists():
                self._place.rename(scratch / "old")
            fresh.rename(self._place)
        self._forget()

    def answer(self, question: str) -> bytes | None:
        """Return what was said to a question while the lists were as they are."""
        with suppress(OSError):
            if self._place.stat().st_uid == os.geteuid():
                return (self._place / f"{question}.json").read_bytes()
        return None

    def remember(self, question: str, answer: str) -> None:
        """Keep the answer to a question."""
        with suppress(OSError):
            write_atomically(self._place / f"{question}.json", answer)

    def _forget(self) -> None:
        with suppress(OSError):
            places = sorted(self._root.iterdir(), key=lambda path: -path.stat().st_mtime)
            for path in places[_KEPT:]:
                if path.stat().st_uid == os.geteuid() and not path.name.startswith("."):
                    shutil.rmtree(path, ignore_errors=True)


def question_of(lists: Path, words: Sequence[str]) -> str:
    """Return the digest of lists and of what is asked about them."""
    releases = [f"{path.name} {sha256_of(path)}" for path in sorted(lists.glob("*Release"))]
    return _digest([*releases, *words])


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()
