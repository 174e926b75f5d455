"""Import: the newest publication becomes the next image of a device.

The slow part, rewriting and compressing, happens before the transaction and in a scratch
directory; the transaction then moves files and publishes the index in one step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from coreimage.config import ChannelSettings, Workspace
from coreimage.errors import NotFoundError
from coreimage.lib import files
from coreimage.lib.progress import Progress
from coreimage.model.channels import Channels
from coreimage.model.index import Image, ImageType, Index
from coreimage.systemimage import images, pool, publications, tree
from coreimage.systemimage.generation import Maker, source_recipe, version_recipe
from coreimage.systemimage.generators.table import GENERATORS, Generator
from coreimage.systemimage.generators.version import ImageIdentity
from coreimage.systemimage.pool import PoolFile, Recipe
from coreimage.systemimage.publications import VerifiedPublication


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
class _Job:
    """One import: from where, to where, and by which recipes."""

    workspace: Workspace
    channel: str
    device: str
    source: VerifiedPublication
    recipes: Mapping[Generator, Recipe]
    now: datetime


def import_image(
    workspace: Workspace,
    *,
    channel: str,
    device: str,
    settings: ChannelSettings,
    series: str,
    product: str = "core",
    progress: Progress,
    now: datetime,
) -> ImportResult:
    """Publish the newest publication of a channel's project as its next full image.

    The publication's SHA256SUMS is verified first and its files against it. Inputs that give the
    files of the newest image again make no new version. Raises NotFoundError (channel, device,
    publication), TrustError (signature, checksum), DataError (tarball); the tree is as before then.
    """
    arch = _arch(tree.read_channels(workspace), channel, device, settings)
    names = {each: each.source(series, product, arch) for each in GENERATORS}
    newest = publications.find_newest(
        workspace.publications,
        project=settings.project,
        series=series,
        wanted=list(names.values()),
        only_good=settings.accept == "good",
    )
    with tree.open_chain(workspace, now=now) as chain:
        source = publications.verify(workspace.publications, newest, chain=chain)
    recipes = {
        each: source_recipe(workspace.settings, each, name=name, sha256=source.sha256(name))
        for each, name in names.items()
    }
    job = _Job(
        workspace=workspace,
        channel=channel,
        device=device,
        source=source,
        recipes=recipes,
        now=now,
    )
    return _run(job, progress)


def _arch(channels: Channels, channel: str, device: str, settings: ChannelSettings) -> str:
    channels.require(channel)
    if device not in settings.devices:
        raise NotFoundError(
            f"channel '{channel}' is not configured for device '{device}'",
            hint="its devices in coreimage.toml are "
            + ", ".join(f"'{name}'" for name in sorted(settings.devices)),
        )
    return settings.devices[device]


def _run(job: _Job, progress: Progress) -> ImportResult:
    files.sweep(job.workspace.channel_tree)
    image, present = _newest_files(job)
    if image is not None and _is_current(job, present):
        return _result(job, image, changed=False)
    device = tree.read_channels(job.workspace).channels[job.channel].devices.get(job.device)
    with files.scratch_directory(job.workspace.channel_tree) as scratch:
        maker = Maker(
            workspace=job.workspace,
            source=job.source,
            scratch=scratch,
            level=tree.payload_level(device),
            progress=progress,
        )
        parts = [
            _reusable(job, present, recipe) or maker.make(generator, recipe)
            for generator, recipe in job.recipes.items()
        ]
        return _publish(job, parts, maker)


def _newest_files(job: _Job) -> tuple[Image | None, Sequence[PoolFile]]:
    """Return the device's newest full image and those of its files that have a record."""
    image = _index(job).newest_full()
    if image is None:
        return None, ()
    found = [pool.find(job.workspace, file) for file in image.files]
    return image, [each for each in found if each is not None]


def _index(job: _Job) -> Index:
    channel = tree.read_channels(job.workspace).channels[job.channel]
    if job.device not in channel.devices:
        return images.empty_index(job.now)
    return tree.read_index(job.workspace, job.channel, job.device)


def _is_current(job: _Job, present: Sequence[PoolFile]) -> bool:
    wanted = [*job.recipes.values(), version_recipe(job.workspace.settings)]
    found = [each.sidecar.recipe for each in present]
    return [each.identity for each in found] == [each.identity for each in wanted]


def _reusable(job: _Job, present: Sequence[PoolFile], recipe: Recipe) -> PoolFile | None:
    """Return the newest image's file of the same recipe, if it still is what it was."""
    for each in present:
        path = tree.local_path(job.workspace, each.path)
        if each.sidecar.recipe.identity == recipe.identity:
            return each if files.sha256_of(path) == each.checksum else None
    return None


def _publish(job: _Job, parts: Sequence[PoolFile], maker: Maker) -> ImportResult:
    """Add the image in one transaction, unless another importer has just done so."""
    purpose = f"image import {job.channel} {job.device}"
    with tree.edit(job.workspace, now=job.now, purpose=purpose) as edit:
        image, present = _newest_files(job)
        if image is not None and _is_current(job, present):
            return _result(job, image, changed=False)
        index = _index(job)
        new, members = _assemble(job, images.next_version(index), parts, maker)
        for member in members:
            member.publish(edit)
        edit.put_index(job.channel, job.device, images.add_images(index, [new]))
    maker.progress.note(f"image {new.version} of '{job.device}' in '{job.channel}' is published")
    return _result(job, new, changed=True)


def _assemble(
    job: _Job, number: int, parts: Sequence[PoolFile], maker: Maker
) -> tuple[Image, Sequence[PoolFile]]:
    """Return the next image and its files, the version file last."""
    details = [*(part.sidecar.version_detail for part in parts), f"version={number}"]
    identity = ImageIdentity(
        channel=job.channel, device=job.device, version=number, version_detail=",".join(details)
    )
    members = [*parts, maker.make_version(identity)]
    publication = job.source.publication
    image = Image(
        type=ImageType.FULL,
        version=number,
        files=[member.image_file(order) for order, member in enumerate(members)],
        description=f"{publication.project} {publication.series} {publication.version}",
        version_detail=identity.version_detail,
    )
    return image, members


def _result(job: _Job, image: Image, *, changed: bool) -> ImportResult:
    return ImportResult(image=image, changed=changed, publication=str(job.source.publication.path))
