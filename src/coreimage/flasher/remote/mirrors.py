"""Several servers of one channel tree: the first where nothing is wrong is believed."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from coreimage.errors import (
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UnavailableError,
)
from coreimage.flasher.remote.folder import TreeSource
from coreimage.flasher.remote.source import Source, short_name
from coreimage.flasher.remote.web import HttpSource
from coreimage.lib.fetch import is_url, local_path
from coreimage.lib.progress import Progress
from coreimage.lib.transport import PATIENT, Limits
from coreimage.model.index import Image, ImageFile

# The next mirror may be better than waiting for this one.
_TRIES_OF_A_MIRROR = 2
Found = TypeVar("Found")
# What a mirror can do wrong, and another one may not.
MIRROR_FAULTS = (DataError, NotFoundError, TrustError, UnavailableError)


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
