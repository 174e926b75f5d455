"""The server of an image: where it is, whom we trust, and a connection that was verified."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from coreimage.flasher.remote.mirrors import open_source
from coreimage.flasher.remote.server import Memory, Server, open_server
from coreimage.lib import files
from coreimage.lib.memory import default_directory
from coreimage.lib.transport import PATIENT, Limits, tls_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the image comes from, whom we trust, and where we may work.

    `servers` are URLs or paths of channel trees, and all serve the same one; one is enough. The
    first where nothing is wrong is believed. `archive_master` is the pinned keyring tarball.
    `cache` keeps downloads, `scratch` is the folder for what is removed again. `memory` is where
    it is remembered which states of the server were seen; `allow_unfresh` accepts a server that
    does not say how fresh it is.
    """

    servers: Sequence[str]
    archive_master: Path
    cache: Path
    scratch: Path
    verify_tls: bool = True
    limits: Limits = PATIENT
    memory: Path = field(default_factory=default_directory)
    allow_unfresh: bool = False


@contextmanager
def connected(place: Place, *, now: datetime) -> Iterator[tuple[Server, Path]]:
    """Yield a verified server and a scratch directory that lives as long."""
    with files.scratch_directory(place.scratch) as scratch:
        metadata = scratch / "metadata"
        metadata.mkdir()
        source = open_source(
            place.servers,
            scratch=metadata,
            cache=place.cache,
            tls=tls_context(verify=place.verify_tls),
            limits=place.limits,
        )
        server = open_server(
            source,
            archive_master=place.archive_master,
            scratch=scratch,
            memory_of=Memory(directory=place.memory, clock=now, allow_unfresh=place.allow_unfresh),
        )
        yield server, scratch
