"""Import: what a channel is fed from becomes the next image of a device.

What has changed is found out first. The slow part, rewriting and compressing, happens before the
transaction and in a scratch directory; the transaction then moves files and publishes the index,
full image and deltas, in one step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NotRequired, TypedDict, Unpack

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError
from coreimage.feeds import ChannelSettings
from coreimage.lib import files
from coreimage.lib.progress import Progress
from coreimage.systemimage.imports.addition import (
    ImportResult,
    Job,
    comes_from,
    find_bases,
    newest_files,
    publish,
    require_number,
    result,
)
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.imports.origins.table import resolve
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import layout, pool
from coreimage.systemimage.tree.pool import PoolFile

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import would do now: the number it would publish, and of what.

    `made` and `reused` are the words of version_detail, `bases` the images that deltas would lead
    from, if they can be exact. Without `changed` the number is that of the newest image.
    """

    version: int
    changed: bool
    publication: str
    made: Sequence[str] = ()
    reused: Sequence[str] = ()
    bases: Sequence[int] = ()


class Target(TypedDict):
    """What is imported: the device of a channel, and how that is fed.

    `series` and `product` are for files of publications that do not say their own.
    """

    channel: str
    device: str
    settings: ChannelSettings
    series: NotRequired[str | None]
    product: NotRequired[str | None]
    progress: Progress
    now: datetime


def import_image(workspace: Workspace, **target: Unpack[Target]) -> ImportResult:
    """Publish what a channel is fed from, as it is now, as its next full image.

    Inputs that give the files of the newest image again make no new version. Raises NotFoundError
    (channel, device, publication), TrustError (signature, checksum), DataError (tarball),
    UnavailableError (server); the tree is as before then.
    """
    with _job(workspace, target) as job:
        return _run(job)


def plan_import(workspace: Workspace, **target: Unpack[Target]) -> ImportPlan:
    """Return what `import_image` would do, from the same recipes, and do nothing; raises as it."""
    with _job(workspace, target) as job:
        image, present = newest_files(job)
        publication = job.parts[0].sidecar.publication if job.parts else ""
        if image is not None and comes_from(job, present):
            return ImportPlan(version=image.version, changed=False, publication=publication)
        number = require_number(job)
        known = {each.sidecar.version_detail: _known(job, present, each) for each in job.parts}
        return ImportPlan(
            version=number,
            changed=True,
            publication=publication,
            made=[detail for detail, found in known.items() if not found],
            reused=[detail for detail, found in known.items() if found],
            bases=[base.version for base in find_bases(job)],
        )


@contextmanager
def _job(workspace: Workspace, target: Target) -> Iterator[Job]:
    """Yield an import whose parts are known."""
    channel, device, settings = target["channel"], target["device"], target["settings"]
    progress, now = target["progress"], target["now"]
    found = layout.read_channels(workspace).require(channel)
    entry = found.devices.get(device)
    followed = found.follows or (entry.redirect if entry else None)
    if followed is not None:
        raise CoreImageError(
            f"'{device}' of channel '{channel}' follows channel '{followed}'",
            hint=f"import into '{followed}': '{channel}' follows in the same step",
        )
    arch = _arch(channel, device, settings)
    with (
        layout.open_chain(workspace, now=now) as chain,
        files.scratch_directory(workspace.channel_tree) as scratch,
    ):
        feeds = settings.feeds(device)
        context = Context(
            workspace=workspace,
            channel=channel,
            device=device,
            arch=arch,
            feeds=feeds,
            series=target.get("series"),
            product=target.get("product"),
            project=settings.project,
            accept=settings.accept,
            chain=chain,
            scratch=scratch,
            progress=progress,
            now=now,
        )
        parts = [resolve(each, context) for each in feeds]
        maker = Maker(workspace=workspace, scratch=scratch, progress=progress)
        yield Job(
            workspace=workspace,
            channel=channel,
            device=device,
            settings=settings,
            parts=parts,
            chain=chain,
            maker=maker,
            now=now,
        )


def _arch(channel: str, device: str, settings: ChannelSettings) -> str:
    if device not in settings.devices:
        raise NotFoundError(
            f"channel '{channel}' is not configured for device '{device}'",
            hint="its devices in coreimage.toml are "
            + ", ".join(f"'{name}'" for name in sorted(settings.devices)),
        )
    return settings.devices[device]


def _run(job: Job) -> ImportResult:
    image, present = newest_files(job)
    if image is not None and comes_from(job, present):
        return result(job, image, changed=False)
    require_number(job)
    SigningService(job.workspace).require_key(pool.LEVEL, what=f"image of '{job.device}'")
    for attempts_left in reversed(range(_ATTEMPTS)):
        made = [_reusable(job, present, part) or part.make(job.maker) for part in job.parts]
        try:
            return publish(job, made)
        except pool.VanishedError as error:
            # Nothing names what we use again until it is published, so 'image gc' may take it.
            if not attempts_left:
                raise
            job.maker.progress.note(error.message)
    raise AssertionError


def _known(job: Job, present: Sequence[PoolFile], part: Part) -> list[PoolFile]:
    """Return the published files that were made by the recipe of a part."""
    recipe = part.sidecar.recipe
    candidates = [each for each in present if pool.prefix_of(each.path) == part.name]
    recalled = pool.recall(job.workspace, part.name, recipe)
    return [
        each
        for each in (*candidates, *([recalled] if recalled else []))
        if each.sidecar.recipe.identity == recipe.identity
    ]


def _reusable(job: Job, present: Sequence[PoolFile], part: Part) -> PoolFile | None:
    """Return the file of the same recipe that is published already, if it still is what it was."""
    for each in _known(job, present, part):
        try:
            pool.require_intact(job.workspace, each, job.chain)
        except (TrustError, pool.VanishedError) as error:
            job.maker.progress.note(f"'{each.path}' is made anew: {error.message}")
        else:
            return each
    return None
