"""Promotion: an image of one channel becomes an image of another, with the same payload."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, UsageError
from coreimage.lib.progress import Progress
from coreimage.model.index import MAX_VERSION, Image, ImageFile, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.operations import expiry
from coreimage.systemimage.operations.offers import FULL_PERCENTAGE, check_percentage
from coreimage.systemimage.tree import editing, images, layout, pool
from coreimage.systemimage.tree.followers import put_version
from coreimage.systemimage.tree.transaction import Edit
from coreimage.systemimage.tree.versionfile import Telling, is_version_file, renumbered


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """Which number a copy gets: the next one, the one it has (`keep`), or that plus `offset`."""

    keep: bool = False
    offset: int | None = None

    @property
    def shift(self) -> int | None:
        """What is added to numbers, None when the target counts by itself."""
        return 0 if self.keep else self.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The images of a copy: the full one first, then deltas that hold for the target, too."""

    images: Sequence[Image]
    changed: bool

    @property
    def version(self) -> int:
        """The number in the target channel."""
        return self.images[0].version


def copy_image(
    workspace: Workspace,
    *,
    source: str,
    target: str,
    device: str,
    revision: int = 0,
    numbering: Numbering | None = None,
    percentage: int | None = None,
    minversion: int | None = None,
    progress: Progress,
    now: datetime,
    dry_run: bool = False,
) -> Copy:
    """Publish a full image of a channel in another one, with its initial phased percentage.

    `revision` is a version, or counted from the newest: 0, -1. Without `percentage` it is that of
    the target's configuration. Only the version tarball is made anew. Deltas are taken over from
    images that both channels have. When the target's newest image has the same payload, nothing is
    done. Raises NotFoundError (channel, device, version), DataError (percentage, minversion) and
    CoreImageError (withdrawn image, number that is taken, target that follows another channel).
    """
    numbering = numbering or Numbering()
    if numbering.keep and numbering.offset is not None:
        raise UsageError(
            "a number is kept or shifted, not both", hint="give one of the two options"
        )
    if percentage is None:
        percentage = _usual_percentage(workspace, target)
    else:
        check_percentage(percentage)
    purpose = f"image copy {source} {target} {device}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        edit.channels.device(source, device)
        edit.channels.require(target)
        edit.require_own(target, device)
        job = _Job(edit, source, target, device)
        image = job.origin.full(revision)
        found = job.present(image)
        if found is not None:
            return Copy(images=[found], changed=False)
        if image.withdrawn is not None:
            raise CoreImageError(
                f"image {image.version} of '{source}' is withdrawn: {image.withdrawn}",
                hint="copy another one, or restore it first",
            )
        version = _number(image, job.goal, numbering, target)
        lowest = _minversion(image, numbering, minversion)
        images.check_minversion(lowest, version)
        new = replace(job.full(image, version), minversion=lowest)
        copies = [
            replace(each, phased_percentage=percentage) for each in (new, *job.deltas(image, new))
        ]
        grown = images.add_images(job.goal, copies)
        settings = workspace.settings.channels.get(target)
        edit.put_index(target, device, expiry.expire_as_configured(grown, settings))
    done = "would be" if dry_run else "is"
    progress.note(f"image {image.version} of '{source}' {done} image {version} of '{target}'")
    return Copy(images=copies, changed=True)


def _usual_percentage(workspace: Workspace, target: str) -> int | None:
    """Return which share of the devices is offered a new image first; None is all of them."""
    settings = workspace.settings.channels.get(target)
    return settings.phase if settings is not None and settings.phase < FULL_PERCENTAGE else None


def _number(image: Image, goal: Index, numbering: Numbering, target: str) -> int:
    if numbering.shift is None:
        return images.next_version(goal)
    version, last = image.version + numbering.shift, images.last_version(goal)
    if not last < version <= MAX_VERSION:
        raise CoreImageError(
            f"image {image.version} cannot be number {version} of '{target}'",
            hint=f"numbers there go on from {last}, and end at {MAX_VERSION}; choose an --offset, "
            "or let the channel count by itself",
        )
    return version


def _minversion(image: Image, numbering: Numbering, wanted: int | None) -> int | None:
    """Return the lowest build that the copy is for, in the numbers of the target."""
    if wanted is not None or image.minversion is None:
        return wanted or None
    if numbering.shift is None:
        raise CoreImageError(
            f"image {image.version} is for builds from {image.minversion} on, and the target "
            "counts by itself",
            hint="say with --minversion which builds of the target it is for; 0 means all",
        )
    return max(0, image.minversion + numbering.shift) or None


class _Job:
    """A copy under way: two indexes, and the files that the new image is made of."""

    def __init__(self, edit: Edit, source: str, target: str, device: str) -> None:
        self.edit = edit
        self.target = target
        self.device = device
        self.origin = edit.index(source, device)
        self.goal = edit.index(target, device)
        self._foreign = (
            layout.payload_level(edit.channels.device(source, device)) is KeyringType.DEVICE_SIGNING
        )
        self._level = layout.payload_level(edit.channels.channels[target].devices.get(device))

    def present(self, image: Image) -> Image | None:
        """Return the target's newest image if it has the payload of `image` already."""
        newest = self.goal.newest_full()
        return newest if newest is not None and _payload(newest) == _payload(image) else None

    def full(self, image: Image, version: int) -> Image:
        """Return an image under its new number, with a version tarball that tells it."""
        detail = renumbered(image.version_detail, version)
        telling = Telling(
            channel=self.target, device=self.device, version=version, version_detail=detail
        )
        return replace(
            image,
            version=version,
            version_detail=detail,
            files=[self._file(file, telling) for file in image.files],
        )

    def _file(self, file: ImageFile, telling: Telling) -> ImageFile:
        if not is_version_file(file):
            return self._shared(file)
        made = put_version(self.edit, file, telling, level=self._level)
        self._copy_sidecar(file, made, telling)
        return made

    def _shared(self, file: ImageFile) -> ImageFile:
        if self._foreign:
            # The device's own key, by which it is signed, means nothing in other channels.
            self.edit.resign(file.path, level=KeyringType.IMAGE_SIGNING)
        return file

    def _copy_sidecar(self, file: ImageFile, made: ImageFile, telling: Telling) -> None:
        """Tell in the new file's record what the old one's tells, for the next import."""
        old = self.edit.where(pool.sidecar_path(file.path))
        if not old.is_file():
            return
        record = json.loads(old.read_bytes()) | {"version_detail": telling.version_detail}
        text = json.dumps(record, indent=4, sort_keys=True) + "\n"
        self.edit.put_signed(pool.sidecar_path(made.path), text.encode(), level=self._level)

    def deltas(self, image: Image, new: Image) -> list[Image]:
        """Return the deltas to an image whose bases the target has too, under the new numbers."""
        fulls = {
            each.version: _payload(each)
            for each in self.origin.images
            if each.type is ImageType.FULL
        }
        own = {
            _payload(each): each.version for each in self.goal.images if each.type is ImageType.FULL
        }
        version_file = next((file for file in new.files if is_version_file(file)), None)
        return [
            replace(
                each,
                version=new.version,
                base=own[fulls[each.base]],
                version_detail=new.version_detail,
                files=[
                    replace(version_file, order=file.order)
                    if version_file is not None and is_version_file(file)
                    else self._shared(file)
                    for file in each.files
                ],
            )
            for each in self.origin.images
            if each.version == image.version and each.base in fulls and fulls[each.base] in own
        ]


def _payload(image: Image) -> tuple[tuple[str, str], ...]:
    """Return what an image is made of, apart from its number."""
    return tuple((file.path, file.checksum) for file in image.files if not is_version_file(file))
