"""What a build takes in, as it is found now."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coreimage.config import ArchiveSettings
from coreimage.errors import DataError
from coreimage.lib.files import scratch_directory
from coreimage.rootfs.archives.archive import Archive, Resolution, find_archive, resolve
from coreimage.rootfs.archives.extra import ExtraArchive
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.reuse.recipe import fingerprint, image_recipe, package_recipe

# Raised whenever the same inputs would give other bytes than before.
FORMAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that decides about the bytes of a build.

    `time` is SOURCE_DATE_EPOCH; without it the time of the newest package counts, so that the same
    packages give the same bytes.
    """

    selection: Selection
    archive: Archive
    resolution: Resolution
    time: datetime | None

    def fingerprint(self) -> str:
        """Return a digest that changes when a build would give something new."""
        parts = [FORMAT, self.selection.digest(), self.resolution.digest()]
        if self.archive.extras:
            parts += [text.decode() for text in self.archive.apt_files().values()]
        return fingerprint(parts)

    def package_recipe(self) -> dict[str, str]:
        """Return what decides about the package stage."""
        return package_recipe(
            self.selection, self.archive, self.resolution, time=self.time, build_format=FORMAT
        )

    def image_recipe(self, gzip_level: int) -> dict[str, str]:
        """Return what decides about the artifacts."""
        packages = self.package_recipe()
        return image_recipe(self.selection, self.archive, packages, gzip_level=gzip_level)


def gather(
    selection: Selection,
    settings: ArchiveSettings,
    cache: Path,
    *,
    extras: Sequence[ExtraArchive] = (),
) -> Inputs:
    """Look up what a build would take in now; `extras` are archives beside the definition's own.

    SOURCE_DATE_EPOCH decides about time stamps when it is set.
    """
    time = _epoch()
    with scratch_directory(cache) as scratch:
        archive = find_archive(selection, settings, scratch, extras)
        resolution = resolve(selection, archive, scratch, keep=cache / "apt")
    return Inputs(selection=selection, archive=archive, resolution=resolution, time=time)


def _epoch() -> datetime | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    try:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(text)
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise DataError(f"SOURCE_DATE_EPOCH is '{text}', expected UNIX seconds") from None
