"""Deltas for an import: from which images, of which files, and whether they are worth it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import TrustError
from coreimage.lib import trust
from coreimage.lib.files import sha256_of
from coreimage.model.index import Image, ImageType, Index
from coreimage.systemimage.delta import write
from coreimage.systemimage.delta.image import Pair, Refusal, plan_image
from coreimage.systemimage.delta.plan import Plan
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.imports.generators import keyring
from coreimage.systemimage.tree import layout, pool
from coreimage.systemimage.tree.pool import PoolFile, Recipe, SideCar
from coreimage.systemimage.tree.versionfile import is_version_file

_NAME, _REVISION = "delta", 2
_VERSION = "version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What leads from a base image to the new one, in the order of applying.

    The version file, which comes last, is shared with the full image and not among them.
    """

    base: Image
    files: Sequence[PoolFile]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def find_bases(
    workspace: Workspace, channel: str, device: str, deltabase: Sequence[str], maker: Maker
) -> list[Image]:
    """Return the images that deltas are made from, in the order of `deltabase`.

    They are the newest full image of each channel, where it is an image of this channel too: only
    devices that have that number here can be told to start from it.
    """
    channels = layout.read_channels(workspace).channels
    if channel not in channels or device not in channels[channel].devices:
        return []
    own = {
        image.version: image
        for image in layout.read_index(workspace, channel, device).images
        if image.type is ImageType.FULL
    }
    found: dict[int, Image] = {}
    for name in deltabase:
        if name not in channels or device not in channels[name].devices:
            maker.progress.note(f"no delta from channel '{name}': it has no '{device}'")
            continue
        newest = layout.read_index(workspace, name, device).newest_full()
        if newest is None or newest.version not in own:
            number = "it has none" if newest is None else f"{newest.version} is not one of this"
            maker.progress.note(f"no delta from the newest image of '{name}': {number}")
            continue
        found[newest.version] = own[newest.version]
    return list(found.values())


def make_deltas(
    workspace: Workspace,
    bases: Sequence[Image],
    made: Sequence[PoolFile],
    *,
    chain: trust.Chain,
    maker: Maker,
) -> list[Delta]:
    """Make the deltas from each base to the files of the new image that are worth it.

    One that cannot be made exactly, or would be no smaller than the full image, is left out with a
    note; so is one from an image whose files are not what was published.
    """
    if not bases:
        return []
    # The compressors use all cores, reading and comparing uses one for each base.
    workers = max(1, len(os.sched_getaffinity(0)) // 2)
    outline = maker.version_outline()
    makers = [_Making(workspace, base, made, chain, maker, outline) for base in bases]
    with ThreadPoolExecutor(workers) as threads:
        try:
            found = list(threads.map(_Making.run, makers))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return [each for each in found if each is not None]


class _Making:
    """The delta from one base."""

    def __init__(
        self,
        workspace: Workspace,
        base: Image,
        made: Sequence[PoolFile],
        chain: trust.Chain,
        maker: Maker,
        outline: Path,
    ) -> None:
        self._workspace, self._base, self._made = workspace, base, made
        self._chain, self._maker, self._outline = chain, maker, outline
        files = [pool.find(workspace, file) for file in base.files]
        self._old = {
            pool.prefix_of(each.path): each
            for each in files
            if each is not None and pool.prefix_of(each.path) != _VERSION
        }
        self._complete = len(files) - 1 == len(self._old)
        self._version = next((file for file in base.files if is_version_file(file)), None)

    def run(self) -> Delta | None:
        if not self._complete:
            return self._refuse("some of its files have no record, or are gone")
        try:
            return self._delta()
        except FileNotFoundError as error:
            return self._refuse(f"'{error.filename}' was removed meanwhile")

    def _delta(self) -> Delta | None:
        try:
            for each in self._old.values():
                pool.require_intact(self._workspace, each, self._chain)
            version = self._version_pair()
        except (TrustError, pool.VanishedError) as error:
            return self._refuse(error.message)
        pairs = [self._pair(file) for file in self._made]
        kept = {pool.prefix_of(file.path) for file in self._made}
        gone = [
            Pair(base=self._path(each), target=None)
            for name, each in self._old.items()
            if name not in kept
        ]
        planned = plan_image([*pairs, *gone, version], progress=self._maker.progress)
        if isinstance(planned, Refusal):
            return self._refuse(planned.reason)
        files = [
            file if plan is None else self._written(plan, file)
            for plan, file in zip(planned.plans, self._made, strict=False)
            if plan is None or plan
        ]
        delta = Delta(base=self._base, files=files)
        full = sum(file.size for file in self._made)
        if delta.size >= full:
            return self._refuse(f"it would take {delta.size} bytes, the full image {full}")
        return delta

    def _refuse(self, reason: str) -> Delta | None:
        self._maker.progress.note(f"no delta from image {self._base.version}: {reason}")
        return None

    def _pair(self, file: PoolFile) -> Pair:
        old = self._old.get(pool.prefix_of(file.path))
        return Pair(
            base=None if old is None else self._path(old),
            target=self._path(file),
            whole=file.sidecar.recipe.generator == keyring.NAME,
        )

    def _version_pair(self) -> Pair:
        """Return the version files, of which the new one has no number yet, but all its paths.

        It is sent whole; an old one with other paths would leave them behind.
        """
        old = None
        if self._version is not None:
            old = layout.local_path(self._workspace, self._version.path)
            if sha256_of(old) != self._version.checksum:
                raise TrustError(f"'{self._version.path}' is not what was published")
        return Pair(base=old, target=self._outline, whole=True)

    def _path(self, file: PoolFile) -> Path:
        return file.staged or layout.local_path(self._workspace, file.path)

    def _written(self, plan: Plan, file: PoolFile) -> PoolFile:
        """Return the delta of one pair: the one that was made before, or a new one."""
        old = self._old[pool.prefix_of(file.path)]
        name = f"{_stem(file)}.delta-{_stem(old)}"
        level = self._workspace.settings.compression.xz
        recipe = Recipe(
            generator=_NAME,
            generator_version=_REVISION,
            source=old.path,
            sha256=sha256(f"{old.checksum} {file.checksum}".encode()).hexdigest(),
            settings={"xz": level},
        )
        recalled = pool.recall(self._workspace, name, recipe)
        if recalled is not None and self._is_intact(recalled):
            return recalled
        made = self._maker.scratch / f"{name}{pool.SUFFIX}"
        write.write(
            plan,
            target=self._path(file),
            output=made,
            level=level,
            progress=self._maker.progress,
        )
        detail = file.sidecar.version_detail
        sidecar = SideCar(recipe=recipe, publication=old.path, version_detail=detail)
        return self._maker.stage(made, f"/pool/{made.name}", sidecar)

    def _is_intact(self, file: PoolFile) -> bool:
        try:
            pool.require_intact(self._workspace, file, self._chain)
        except (TrustError, pool.VanishedError):
            return False
        return True


def _stem(file: PoolFile) -> str:
    return file.path.rpartition("/")[2].removesuffix(pool.SUFFIX)


def delta_image(delta: Delta, full: Image, version: PoolFile) -> Image:
    """Return the entry of a delta in the index of the full image that it leads to."""
    return Image(
        type=ImageType.DELTA,
        version=full.version,
        base=delta.base.version,
        files=[file.image_file(order) for order, file in enumerate((*delta.files, version))],
        description=full.description,
        translations=full.translations,
        version_detail=full.version_detail,
        phased_percentage=full.phased_percentage,
        bootme=full.bootme,
    )


def still_there(deltas: Sequence[Delta], index: Index) -> list[Delta]:
    """Return the deltas whose bases are still images of the channel."""
    fulls = {image.version for image in index.images if image.type is ImageType.FULL}
    return [each for each in deltas if each.base.version in fulls]
