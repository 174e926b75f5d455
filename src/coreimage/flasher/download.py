"""Where a channel tree is: on a web server, with a cache of what was downloaded, or in a folder.

Payload is handed out as open files whose bytes were checked: what is unpacked later is read
through the same descriptor, so that it cannot be exchanged in between.
"""

import os
import re
import shutil
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from coreimage.errors import (
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UnavailableError,
)
from coreimage.lib.fetch import Wanted, check_digest, fetch, is_url, local_path, open_regular
from coreimage.lib.progress import Progress, Task
from coreimage.lib.transport import PATIENT, Limits
from coreimage.model.index import Image, ImageFile, check_path

_MAX_METADATA = 8 << 20
# The next mirror may be better than waiting for this one.
_TRIES_OF_A_MIRROR = 2
_MAX_PAYLOAD = 16 << 30
Found = TypeVar("Found")
_DIGEST = re.compile(r"([0-9a-f]{8})[0-9a-f]{56}")
_SWITCHED = ("channels.json", "gpg/")
# What a mirror can do wrong, and another one may not.
MIRROR_FAULTS = (DataError, NotFoundError, TrustError, UnavailableError)


class Source(Protocol):
    """A channel tree. Paths are root-relative, as in channels.json."""

    @property
    def name(self) -> str:
        """What people call it: its URL or its path."""

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified; NotFoundError when there is none."""

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image must be downloaded."""

    def turn(self) -> bool:
        """Ask another server for metadata from now on; False when all were asked."""

    def stop(self) -> None:
        """End what is being downloaded, because nobody waits for it any more."""


def short_name(path: str) -> str:
    """Return a file's name as people want to read it: of a digest, the first eight digits."""
    return _DIGEST.sub(r"\1", path.rsplit("/", 1)[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A file of an image, open, with its checksum and signature verified."""

    entry: ImageFile
    file: BinaryIO

    @property
    def name(self) -> str:
        """The file's name for people."""
        return short_name(self.entry.path)


class TreeSource:
    """A channel tree in a folder: payload is read where it lies."""

    def __init__(self, root: Path, *, scratch: Path) -> None:
        if not root.is_dir():
            raise NotFoundError(
                f"there is no channel tree '{root}'",
                hint="name a server with --server URL or a channel tree with --server FOLDER",
            )
        self.name = str(root)
        self._root = root
        self._scratch = scratch
        # Our own trees keep what changes together in one directory, and switch a link to it.
        self._state = (root / "state").resolve() if (root / "state").is_dir() else root

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        name = check_path(path).lstrip("/")
        target = self._scratch / name
        home = self._state if name.startswith(_SWITCHED) else self._root
        fetch(str(home / name), target, wanted=Wanted(max_size=_MAX_METADATA))
        return target

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._root / check_path(file.path).lstrip("/")
        try:
            opened = open_regular(path)
        except FileNotFoundError:
            raise NotFoundError(f"the channel tree has no file '{path}'") from None
        progress.note(f"checking {short_name(file.path)}")
        return _checked(opened, file, str(path))

    def missing(self, image: Image) -> int:
        """Return 0: everything is here."""
        del image
        return 0

    def turn(self) -> bool:
        """Return False: there is one folder."""
        return False

    def stop(self) -> None:
        """Do nothing: nothing is downloaded."""


class HttpSource:
    """A channel tree at the root of a web server, or below a path of it.

    Downloads are kept in `cache` under their sha256 and hashed again whenever they are used.
    """

    def __init__(
        self,
        base: str,
        *,
        scratch: Path,
        cache: Path,
        tls: ssl.SSLContext | None = None,
        limits: Limits = PATIENT,
    ) -> None:
        self.name = base.rstrip("/")
        self._scratch = scratch
        self._cache = cache
        self._tls = tls
        self._limits = limits
        self._stop = threading.Event()

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        target = self._scratch / check_path(path).lstrip("/")
        wanted = Wanted(max_size=_MAX_METADATA)
        self._fetch(path, target, wanted)
        return target

    def _fetch(self, path: str, target: Path, wanted: Wanted, task: Task | None = None) -> None:
        fetch(
            self.name + path,
            target,
            wanted=wanted,
            limits=self._limits,
            task=task,
            tls=self._tls,
            stop=self._stop,
        )

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._cache / file.checksum
        try:
            opened = _checked(open_regular(path), file, str(path))
        except FileNotFoundError:
            pass
        except TrustError:
            progress.note(
                f"{short_name(file.path)} was damaged in the cache and is downloaded again"
            )
            path.unlink(missing_ok=True)
        else:
            progress.note(f"{short_name(file.path)} is in the cache")
            return opened
        wanted = Wanted(max_size=_MAX_PAYLOAD, size=file.size, sha256=file.checksum)
        with progress.task(short_name(file.path), file.size) as task:
            self._fetch(check_path(file.path), path, wanted, task)
        return _checked(open_regular(path), file, str(path))

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image are not in the cache."""
        return sum(file.size for file in image.files if not (self._cache / file.checksum).exists())

    def turn(self) -> bool:
        """Return False: there is one server."""
        return False

    def stop(self) -> None:
        """End what is being downloaded."""
        self._stop.set()


class Mirrors:
    """Several servers of one channel tree.

    Metadata comes from one of them at a time, so that it is of one state; payload from any, since
    its checksum says that it is the right one.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._turn = 0

    @property
    def name(self) -> str:
        """The server whose metadata is believed."""
        return self._sources[self._turn].name

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        return self._sources[self._turn].metadata(path)

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file from the first server that has it whole.

        What one has brought of a file, the next goes on with.
        """
        refusals = []
        for source in (*self._sources[self._turn :], *self._sources[: self._turn]):
            try:
                return source.payload(file, progress)
            except MIRROR_FAULTS as error:
                progress.note(f"{short_name(file.path)}: {error.message}")
                refusals.append(error)
        raise refusals[0]

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image must be downloaded."""
        return min(source.missing(image) for source in self._sources)

    def turn(self) -> bool:
        """Ask the next server for metadata; False when all were asked."""
        if self._turn + 1 == len(self._sources):
            return False
        self._turn += 1
        return True

    def stop(self) -> None:
        """End what is being downloaded."""
        for source in self._sources:
            source.stop()


def from_mirrors(source: Source, ask: Callable[[], Found]) -> Found:
    """Return what is found with the metadata of the first server where nothing is wrong with it.

    When all were asked, the fault of the first one is raised.
    """
    fault: CoreImageError | None = None
    while True:
        try:
            return ask()
        except MIRROR_FAULTS as error:
            fault = fault or error
            if not source.turn():
                raise fault from None


def open_source(
    servers: Sequence[str],
    *,
    scratch: Path,
    cache: Path,
    tls: ssl.SSLContext | None = None,
    limits: Limits = PATIENT,
) -> Source:
    """Return the channel tree that URLs or paths name; there are several where it is mirrored."""
    if len(servers) > 1:
        limits = replace(limits, attempts=min(limits.attempts, _TRIES_OF_A_MIRROR))
    sources: list[Source] = []
    for number, server in enumerate(servers):
        own = scratch / str(number)
        own.mkdir()
        if is_url(server):
            http = HttpSource(server, scratch=own, cache=cache, tls=tls, limits=limits)
            sources.append(http)
        else:
            sources.append(TreeSource(local_path(server), scratch=own))
    return sources[0] if len(sources) == 1 else Mirrors(sources)


def _checked(opened: BinaryIO, file: ImageFile, name: str) -> BinaryIO:
    try:
        size = os.fstat(opened.fileno()).st_size
        if size != file.size:
            raise TrustError(f"'{name}' has {size} bytes, expected {file.size}")
        check_digest(opened, file.checksum, name=name)
    except BaseException:
        opened.close()
        raise
    return opened


def clean_cache(cache: Path) -> int:
    """Remove all downloads and return the number of bytes that they took."""
    size = sum(path.stat().st_size for path in cache.glob("*") if path.is_file())
    shutil.rmtree(cache, ignore_errors=True)
    return size
