"""Generation: the files of an image, made in a scratch directory, signed, not yet published."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from coreimage.config import Settings, Workspace
from coreimage.errors import TrustError
from coreimage.lib import compress, files
from coreimage.lib.progress import Progress, Task
from coreimage.model.keyring import KeyringType
from coreimage.systemimage import pool
from coreimage.systemimage.generators import version
from coreimage.systemimage.generators.table import Generator
from coreimage.systemimage.pool import PoolFile, Recipe, SideCar
from coreimage.systemimage.publications import VerifiedPublication
from coreimage.systemimage.signing import SigningService


def source_recipe(settings: Settings, generator: Generator, *, name: str, sha256: str) -> Recipe:
    """Return what decides the bytes of a file made from a publication's file."""
    return Recipe(
        generator=generator.name,
        generator_version=generator.revision,
        source=name,
        sha256=sha256,
        settings={"xz": settings.compression.xz},
    )


def version_recipe(settings: Settings) -> Recipe:
    """Return what decides the bytes of a version file, apart from the numbers in it."""
    return Recipe(
        generator=version.NAME,
        generator_version=version.REVISION,
        source="",
        sha256="",
        settings={"server": settings.server.model_dump(), "xz": settings.compression.xz},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes files in `scratch`, signed by the key of `level`."""

    workspace: Workspace
    source: VerifiedPublication
    scratch: Path
    level: KeyringType
    progress: Progress

    def make(self, generator: Generator, recipe: Recipe) -> PoolFile:
        """Make a pool file from a file of the publication.

        Raises TrustError when the input is not what the publisher signed for.
        """
        made = self.scratch / f"{generator.prefix}{pool.SUFFIX}"
        with (self.source.directory / recipe.source).open("rb") as file:
            before = _stamp(file)
            _require_digest(file, recipe, self.progress)
            size = os.fstat(file.fileno()).st_size
            with self.progress.task(f"compressing {recipe.source}", size) as task:
                _convert(file, made, generator, recipe, task)
            if _stamp(file) != before:
                raise TrustError(f"'{recipe.source}' was changed while it was read")
        detail = f"{generator.prefix}={self.source.publication.version}"
        path = f"/pool/{generator.prefix}-{{sha256}}{pool.SUFFIX}"
        return self._stage(made, path=path, recipe=recipe, detail=detail)

    def make_version(self, identity: version.ImageIdentity) -> PoolFile:
        """Make the file that tells a device which image it has."""
        made = self.scratch / f"version-{identity.version}{pool.SUFFIX}"
        settings = self.workspace.settings
        mtime = _build_time(self.source.publication.version)
        with (
            made.open("wb") as target,
            compress.compressing(target, kind="xz", level=settings.compression.xz) as packed,
        ):
            version.write(packed, identity=identity, server=settings.server, mtime=mtime)
        return self._stage(
            made,
            path=f"/{identity.channel}/{identity.device}/{made.name}",
            recipe=version_recipe(settings),
            detail=identity.version_detail,
        )

    def _stage(self, made: Path, *, path: str, recipe: Recipe, detail: str) -> PoolFile:
        sidecar = SideCar(
            recipe=recipe,
            publication=str(self.source.publication.path),
            version_detail=detail,
        )
        signer = SigningService(self.workspace)
        return pool.stage(made, path=path, sidecar=sidecar, signer=signer, level=self.level)


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    """Return what changes whenever somebody writes to an open file."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _require_digest(file: BinaryIO, recipe: Recipe, progress: Progress) -> None:
    """Refuse an input that is not the one the publisher signed for."""
    size = os.fstat(file.fileno()).st_size
    hashing = files.HashingReader(file)
    with progress.task(f"checking {recipe.source}", size) as task:
        while chunk := hashing.read(files.CHUNK):
            task.advance(len(chunk))
    if hashing.sha256 != recipe.sha256:
        raise TrustError(
            f"'{recipe.source}' is not what SHA256SUMS says: its sha256 is {hashing.sha256}, "
            f"expected {recipe.sha256}",
            hint="publish the build again",
        )


class _Following:
    """Pass bytes through and advance a task by how far the compressed input was read."""

    def __init__(self, source: files.Reader, file: BinaryIO, task: Task) -> None:
        self._source, self._file, self._task = source, file, task
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        # The decompressor reads through the same open file, and so moves our position.
        position = os.lseek(self._file.fileno(), 0, os.SEEK_CUR)
        self._task.advance(position - self._position)
        self._position = position
        return data


def _convert(file: BinaryIO, made: Path, generator: Generator, recipe: Recipe, task: Task) -> None:
    level = recipe.settings["xz"]
    with (
        made.open("wb") as target,
        compress.decompressing(file, name=recipe.source) as unpacked,
        compress.compressing(target, kind="xz", level=level) as packed,
    ):
        generator.write(_Following(unpacked, file, task), packed, name=recipe.source)


def _build_time(build_id: str) -> int:
    """Return midnight of the build's day in UNIX seconds, so that equal inputs give equal bytes."""
    day = datetime.strptime(build_id.partition(".")[0], "%Y%m%d").replace(tzinfo=UTC)
    return int(day.timestamp())
