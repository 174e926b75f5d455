"""Generation: the files of an image, made in a scratch directory, signed, not yet published."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coreimage.config import Settings, Workspace
from coreimage.errors import TrustError
from coreimage.lib import compress, files
from coreimage.lib.progress import Progress, Task
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports.generators import inspection, version
from coreimage.systemimage.imports.generators.table import Writer
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import pool
from coreimage.systemimage.tree.pool import PoolFile, Recipe, SideCar

POOL_LEVEL = KeyringType.IMAGE_SIGNING
"""Who signs the pool: its files are shared by devices that have a key of their own and others."""


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
    """Makes files in `scratch`."""

    workspace: Workspace
    scratch: Path
    progress: Progress

    def convert(self, source: Path, writer: Writer, *, name: str, sidecar: SideCar) -> PoolFile:
        """Make a pool file from a compressed tarball that has the digest of the recipe.

        Raises TrustError when it has another one, or is written to meanwhile.
        """
        made, recipe = self._place(name), sidecar.recipe
        with source.open("rb") as file:
            before = _stamp(file)
            _require_digest(file, recipe, self.progress)
            size = os.fstat(file.fileno()).st_size
            with (
                self.progress.task(f"compressing {source.name}", size) as task,
                compress.decompressing(file, name=recipe.source) as unpacked,
                self._packed(made) as packed,
            ):
                writer(_Following(unpacked, file, task), packed, name=recipe.source)
            if _stamp(file) != before:
                raise TrustError(f"'{recipe.source}' was changed while it was read")
        return self._stage(made, name, sidecar)

    def generate(
        self, write: Callable[[BinaryIO], None], *, name: str, sidecar: SideCar
    ) -> PoolFile:
        """Make a pool file from nothing but what `write` writes, a tar stream."""
        made = self._place(name)
        with self._packed(made) as packed:
            write(packed)
        return self._stage(made, name, sidecar)

    def adopt(self, source: Path, *, name: str, sidecar: SideCar) -> PoolFile:
        """Publish a finished tar.xz byte for byte; it is read once to see what is in it.

        Raises TrustError when it is not the one of the recipe, DataError for unsafe members.
        """
        made = self._place(name)
        with source.open("rb") as file, made.open("wb") as target:
            files.copy_stream(file, target)
        with made.open("rb") as file:
            _require_digest(file, sidecar.recipe, self.progress)
            with compress.decompressing(file, name=sidecar.recipe.source) as stream:
                inspection.inspect(stream, archive=sidecar.recipe.source)
        return self._stage(made, name, sidecar)

    def make_version(
        self, identity: version.ImageIdentity, *, level: KeyringType, origin: str, mtime: int
    ) -> PoolFile:
        """Make the file that tells a device which image it has; `mtime` in UNIX seconds.

        `level` is whose key signs it: the device's own, if it has one.
        """
        made = self._place(f"version-{identity.version}")
        settings = self.workspace.settings
        with self._packed(made) as packed:
            version.write(packed, identity=identity, server=settings.server, mtime=mtime)
        sidecar = SideCar(
            recipe=version_recipe(settings),
            publication=origin,
            version_detail=identity.version_detail,
        )
        path = f"/{identity.channel}/{identity.device}/{made.name}"
        return pool.stage(
            made,
            path=path,
            sidecar=sidecar,
            signer=SigningService(self.workspace),
            level=level,
        )

    def version_outline(self) -> Path:
        """Write the version file of no image: with the members of all that are made today."""
        made = self._place("version-outline")
        nobody = version.ImageIdentity(channel="", device="", version=0, version_detail="")
        with self._packed(made) as packed:
            version.write(packed, identity=nobody, server=self.workspace.settings.server, mtime=0)
        return made

    def _place(self, name: str) -> Path:
        return self.scratch / f"{name}{pool.SUFFIX}"

    @contextmanager
    def _packed(self, made: Path) -> Iterator[BinaryIO]:
        level = self.workspace.settings.compression.xz
        with (
            made.open("wb") as target,
            compress.compressing(target, kind="xz", level=level) as packed,
        ):
            yield packed

    def _stage(self, made: Path, name: str, sidecar: SideCar) -> PoolFile:
        return self.stage(made, f"/pool/{name}-{{sha256}}{pool.SUFFIX}", sidecar)

    def stage(self, made: Path, path: str, sidecar: SideCar) -> PoolFile:
        """Sign a finished file of the pool, ready to be published; see `pool.stage`."""
        signer = SigningService(self.workspace)
        return pool.stage(made, path=path, sidecar=sidecar, signer=signer, level=POOL_LEVEL)


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    """Return what changes whenever somebody writes to an open file."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _require_digest(file: BinaryIO, recipe: Recipe, progress: Progress) -> None:
    """Refuse an input that is not the one that was vouched for."""
    size = os.fstat(file.fileno()).st_size
    hashing = files.HashingReader(file)
    with progress.task(f"checking {recipe.source}", size) as task:
        while chunk := hashing.read(files.CHUNK):
            task.advance(len(chunk))
    if hashing.sha256 != recipe.sha256:
        raise TrustError(
            f"'{recipe.source}' is not what was vouched for: its sha256 is {hashing.sha256}, "
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
