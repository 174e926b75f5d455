"""Images in an index: what their numbers are and how a new one joins the others."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from coreimage.errors import CoreImageError, DataError
from coreimage.model.index import MAX_VERSION, Image, ImageType, Index

LAST_VERSION = "last_version"
_MIB = 1 << 20


def empty_index(now: datetime, *, last: int = 0) -> Index:
    """Return the index that a device starts with; `last` is the highest number used before."""
    return Index(generated_at=now, extra={LAST_VERSION: last} if last else {})


def last_version(index: Index) -> int:
    """Return the highest number that an image ever had here, 0 when there was none."""
    remembered = index.extra.get(LAST_VERSION, 0)
    known = [image.version for image in index.images]
    return max([remembered if isinstance(remembered, int) else 0, *known])


def next_version(index: Index) -> int:
    """Return the number of the next image: one that no device can have seen yet.

    The index remembers the last number, so that removing the newest image does not free it.
    Raises CoreImageError when the format has no higher number.
    """
    version = last_version(index) + 1
    if version > MAX_VERSION:
        raise CoreImageError(
            f"the channel is full: image versions end at {MAX_VERSION}",
            hint="start a new channel for these devices",
        )
    return version


def add_images(index: Index, images: Sequence[Image]) -> Index:
    """Return the index with images added, sorted; only the newest version keeps its phasing.

    A withdrawn image stays at 0 %: else it would be offered when newer ones are withdrawn too. A
    delta with a file that has the name of another one here is left out: old clients may want both.
    """
    images = _without_namesakes(index, images)
    newest = max(image.version for image in (*index.images, *images))
    merged = [
        image if image.version == newest or image.withdrawn is not None else _without_phasing(image)
        for image in (*index.images, *images)
    ]
    merged.sort(key=lambda image: (image.version, image.type, image.base or 0))
    merged = _without_detours(merged)
    last = max(newest, last_version(index))
    return replace(index, images=merged, extra={**index.extra, LAST_VERSION: last})


def _without_namesakes(index: Index, images: Sequence[Image]) -> list[Image]:
    """Return new images without the deltas that an old client could not put beside the others.

    It brings all files of a way into one folder, and stops when two have one name and are not the
    same. Names of whole files have their digest; a delta is named by those that it leads from and
    to, and has other bytes when, for example, the level of compression was changed.
    """
    known = {
        file.path.rpartition("/")[2]: (file.path, file.checksum)
        for image in index.images
        for file in image.files
    }
    return [
        image
        for image in images
        if image.type is ImageType.FULL
        or all(
            known.get(file.path.rpartition("/")[2], (file.path, file.checksum))
            == (file.path, file.checksum)
            for file in image.files
        )
    ]


def _without_detours(images: Sequence[Image]) -> list[Image]:
    """Keep old clients from older full images that they would take with deltas on top.

    They count whole MiB, so that a small delta costs nothing; and their recoveries, having
    formatted, do not remove what a delta lists. Such an image can still be asked for by its number.
    `images` are sorted.
    """
    fulls = [image for image in images if image.type is ImageType.FULL]
    if not fulls:
        return list(images)
    newest = fulls[-1]
    # The size of the deltas that lead from a version to the newest.
    rest = {newest.version: 0}
    for image in reversed(images):
        if image.base is not None and image.version in rest:
            size = image.size + rest[image.version]
            rest[image.base] = min(size, rest.get(image.base, size))
    return [
        replace(
            image,
            kept_from_old_clients=image.type is ImageType.FULL
            and image is not newest
            and image.version in rest
            and image.size + rest[image.version] < newest.size + _MIB,
        )
        for image in images
    ]


def check_minversion(minversion: int | None, version: int) -> None:
    """Raise DataError unless an image of a version can be for builds from a minversion on."""
    if minversion is not None and not 0 <= minversion < version:
        raise DataError(
            f"a minversion of {minversion} makes no sense for image {version}",
            hint=f"give a build from 0 to {version - 1}, or offer the image to nobody with "
            "'coreimage image withdraw'",
        )


def _without_phasing(image: Image) -> Image:
    return replace(image, phased_percentage=None)
