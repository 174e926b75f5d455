"""Addition: a new image and its deltas join a device's index, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from coreimage.config import Workspace
from coreimage.errors import ConfigError
from coreimage.feeds import ChannelSettings
from coreimage.lib import trust
from coreimage.model.index import Image, ImageType, Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports import deltas
from coreimage.systemimage.imports.deltas import Delta
from coreimage.systemimage.imports.generation import Maker, version_recipe
from coreimage.systemimage.imports.generators.version import ImageIdentity
from coreimage.systemimage.imports.parts import Part
from coreimage.systemimage.operations.expiry import expire_as_configured
from coreimage.systemimage.tree import editing, images, layout, pool
from coreimage.systemimage.tree.pool import PoolFile

_EVERYBODY = 100
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """The newest image after an import; `changed` tells whether this import made it."""

    image: Image
    changed: bool
    publication: str

    @property
    def version(self) -> int:
        """The image's version."""
        return self.image.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One import: from where and to where."""

    workspace: Workspace
    channel: str
    device: str
    settings: ChannelSettings
    parts: Sequence[Part]
    chain: trust.Chain
    maker: Maker
    now: datetime

    @property
    def purpose(self) -> str:
        return f"image import {self.channel} {self.device}"


def newest_files(job: Job) -> tuple[Image | None, Sequence[PoolFile]]:
    """Return the device's newest full image and those of its files that have a record."""
    image = _index(job).newest_full()
    if image is None:
        return None, ()
    found = [pool.find(job.workspace, file) for file in image.files]
    return image, [each for each in found if each is not None]


def _index(job: Job) -> Index:
    channel = layout.read_channels(job.workspace).require(job.channel)
    if job.device not in channel.devices:
        retired = layout.read_retired(job.workspace).get(job.channel, {})
        return images.empty_index(job.now, last=retired.get(job.device, 0))
    return layout.read_index(job.workspace, job.channel, job.device)


def require_number(job: Job) -> int:
    """Return the number of the next image, as far as it is known before anything slow is done.

    Raises ConfigError when the image could be for no build, and CoreImageError when there is no
    number for it.
    """
    number, lowest = _next_number(job, _index(job)), job.settings.minversion
    if lowest is not None and lowest >= number:
        raise ConfigError(
            f"coreimage.toml offers images of channel '{job.channel}' to builds from {lowest} on, "
            f"and the next one is {number}: nobody could take it",
            hint=f"take its 'minversion' away, or go on from {lowest + 1} with 'versionbase'",
        )
    return number


def _next_number(job: Job, index: Index) -> int:
    return max(images.next_version(index), job.settings.versionbase)


def comes_from(job: Job, present: Sequence[PoolFile]) -> bool:
    """Tell whether an image's files were made by the recipes of today."""
    wanted = [(part.name, part.sidecar.recipe.identity) for part in job.parts]
    wanted.append(("version", version_recipe(job.workspace.settings).identity))
    return wanted == [(pool.prefix_of(each.path), each.sidecar.recipe.identity) for each in present]


def _is_same(job: Job, image: Image, present: Sequence[PoolFile], made: Sequence[PoolFile]) -> bool:
    """Tell whether an image's files are those that were made, whatever they were made of."""
    version = version_recipe(job.workspace.settings).identity
    same_version = bool(present) and present[-1].sidecar.recipe.identity == version
    return same_version and [each.path for each in image.files[:-1]] == [each.path for each in made]


def publish(job: Job, made: Sequence[PoolFile]) -> ImportResult:
    """Add the image and its deltas in one transaction, unless it is the newest one already.

    Deltas take long, and are made before it. When somebody else has published a newer base by
    then, they are made again from that one. Raises VanishedError, and publishes nothing, when a
    file that was to be used again is no longer there.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        if (current := _current(job, made)) is not None:
            return result(job, current, changed=False)
        bases = find_bases(job)
        made_deltas = deltas.make_deltas(
            job.workspace, bases, made, chain=job.chain, maker=job.maker
        )
        added = _add(job, made, made_deltas, bases=bases if attempts_left else None)
        if added is not None:
            return added
    raise AssertionError


def find_bases(job: Job) -> list[Image]:
    """Return the images that deltas are to lead from."""
    wanted = job.settings.deltabase
    return deltas.find_bases(job.workspace, job.channel, job.device, wanted, job.maker)


def _current(job: Job, made: Sequence[PoolFile]) -> Image | None:
    """Return the newest image if it is the one that an import would make."""
    image, present = newest_files(job)
    same = image is not None and (comes_from(job, present) or _is_same(job, image, present, made))
    return image if same else None


def _add(
    job: Job,
    made: Sequence[PoolFile],
    made_deltas: Sequence[Delta],
    *,
    bases: Sequence[Image] | None,
) -> ImportResult | None:
    """Publish; None when the bases are no longer these, and nothing was published."""
    with editing.edit(job.workspace, now=job.now, purpose=job.purpose) as edit:
        if (current := _current(job, made)) is not None:
            return result(job, current, changed=False)
        if bases is not None and [each.version for each in find_bases(job)] != [
            each.version for each in bases
        ]:
            return None
        index = edit.index(job.channel, job.device)
        number = _next_number(job, index)
        entry = edit.channels.require(job.channel).devices.get(job.device)
        new, version = _assemble(job, number, made, level=layout.payload_level(entry))
        offered = [
            replace(each, files=[pool.free_path(job.workspace, file) for file in each.files])
            for each in deltas.still_there(made_deltas, index)
        ]
        members = {
            file.path: file for file in (*made, *(f for each in offered for f in each.files))
        }
        for member in (*members.values(), version):
            pool.require_there(job.workspace, member)
            member.publish(edit)
        added = [new, *(deltas.delta_image(each, new, version) for each in offered)]
        grown = images.add_images(index, added)
        edit.put_index(job.channel, job.device, expire_as_configured(grown, job.settings))
    for member in members.values():
        pool.remember(job.workspace, member)
    kept = {(image.version, image.base) for image in grown.images}
    offered = [each for each in offered if (new.version, each.base.version) in kept]
    note = f"image {new.version} of '{job.device}' in '{job.channel}' is published"
    from_ = ", ".join(str(each.base.version) for each in offered)
    job.maker.progress.note(f"{note}, with deltas from {from_}" if from_ else note)
    return result(job, new, changed=True)


def _assemble(
    job: Job, number: int, made: Sequence[PoolFile], *, level: KeyringType
) -> tuple[Image, PoolFile]:
    """Return the next image and its version file."""
    details = [*(part.sidecar.version_detail for part in made), f"version={number}"]
    identity = ImageIdentity(
        channel=job.channel, device=job.device, version=number, version_detail=",".join(details)
    )
    mtime = max((part.mtime for part in job.parts if part.mtime is not None), default=None)
    version = job.maker.make_version(
        identity,
        level=level,
        origin=_origin(job),
        mtime=_midnight(job.now) if mtime is None else mtime,
    )
    image = Image(
        type=ImageType.FULL,
        version=number,
        files=[member.image_file(order) for order, member in enumerate((*made, version))],
        description=_description(job, number),
        version_detail=identity.version_detail,
        translations=job.settings.descriptions,
        minversion=job.settings.minversion,
        bootme=job.settings.bootme,
        phased_percentage=None if job.settings.phase == _EVERYBODY else job.settings.phase,
    )
    return image, version


def _description(job: Job, number: int) -> str:
    if job.settings.description is not None:
        return job.settings.description
    return next((part.title for part in job.parts if part.title), f"version {number}")


def _midnight(now: datetime) -> int:
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int(day.timestamp())


def _origin(job: Job) -> str:
    """Return where the image's main part comes from."""
    return job.parts[0].sidecar.publication if job.parts else ""


def result(job: Job, image: Image, *, changed: bool) -> ImportResult:
    return ImportResult(image=image, changed=changed, publication=_origin(job))
