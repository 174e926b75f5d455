"""Importing: what is published becomes images of a channel."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from coreimage.config import Workspace
from coreimage.errors import DataError, UsageError
from coreimage.feeds import SIMPLE, ChannelSettings, PublishedFeed
from coreimage.lib.progress import Progress
from coreimage.model.build import Subproject
from coreimage.publisher import marks
from coreimage.rootfs.definitions.definition import Selection, definition_places, select
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.imports.importer import import_image
from coreimage.systemimage.imports.publications import NoPublicationError
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations.channels import create_channel
from coreimage.systemimage.tree import layout


def import_published(
    workspace: Workspace, name: str, *, progress: Progress, needed: Collection[str] = ()
) -> dict[str, ImportResult]:
    """Import the newest publication into a channel, for each of its devices; make the channel.

    A channel that coreimage.toml does not name is fed by convention from its own name. A device
    that has no image yet, and for which nothing is published yet, does not keep the others from
    theirs, unless its architecture, such as amd64 or armhf.raspi2, is among `needed`.
    """
    settings = channel_settings(workspace, name)
    now = datetime.now(UTC)
    keyrings.generate(workspace, progress=progress, now=now)
    if name not in layout.read_channels(workspace).channels:
        create_channel(workspace, name, now=now, exist_ok=True)
    progress.stage(f"Importing into {name}")
    results: dict[str, ImportResult] = {}
    waiting: dict[str, NoPublicationError] = {}
    for device, arch in settings.devices.items():
        try:
            results[device] = import_image(
                workspace,
                channel=name,
                device=device,
                settings=settings,
                progress=progress,
                now=now,
            )
        except NoPublicationError as error:
            if arch in needed or device in layout.read_channels(workspace).require(name).devices:
                raise
            waiting[device] = error
    if waiting and not results:
        raise next(iter(waiting.values()))
    for device in waiting:
        progress.note(f"nothing is published for '{device}' yet")
    for device, result in results.items():
        if not result.changed:
            progress.note(f"nothing new for '{device}': version {result.version} stays the newest")
    return results


def is_fed(workspace: Workspace, settings: ChannelSettings) -> bool:
    """Tell whether there is a publication for every file that a channel takes of one."""
    wanted = {
        (each.project or settings.project, each.series, each.accept or settings.accept)
        for device in settings.devices
        for each in settings.feeds(device)
        if isinstance(each, PublishedFeed) and each.path is None
    }
    found = [
        (each, "good" in marks.marks(workspace.publications, each))
        for each in marks.publications(workspace.publications)
    ]
    return all(
        any(
            (each.project, each.series) == (project, series) and (good or accept == "any")
            for each, good in found
        )
        for project, series, accept in wanted
    )


def require_taken(workspace: Workspace, name: str, selections: Sequence[Selection]) -> None:
    """Raise UsageError when a channel takes no file of what is built of a definition and release.

    `selections` are the targets of one image set; it is enough that one of them is taken.
    """
    settings, first = channel_settings(workspace, name), selections[0]
    project, series = first.definition.name, first.release.series
    built = {each.target for each in selections}
    taken: dict[tuple[str, str], list[str]] = {}
    for device, target in settings.devices.items():
        for feed in settings.feeds(device):
            if not isinstance(feed, PublishedFeed):
                continue
            source = feed.project or settings.project or "", feed.series or ""
            if feed.path is not None:
                own = (workspace.publications / project / series).resolve()
                is_ours = (workspace.root / feed.path).resolve().is_relative_to(own)
                source = (project, series) if is_ours else (str(feed.path), "")
            if source == (project, series) and target in built:
                return
            targets = taken.setdefault(source, [])
            if target not in targets:
                targets.append(target)
    words = [
        f"{' '.join(filter(None, source))} for {', '.join(targets)}"
        for source, targets in taken.items()
    ]
    raise UsageError(
        f"channel '{name}' takes nothing of '{project}' {series} for {', '.join(sorted(built))}",
        hint=f"it takes {'; '.join(words) or 'no publications'}: name another channel, or change "
        "it in coreimage.toml",
    )


def require_parts(workspace: Workspace, name: str, selection: Selection) -> None:
    """Raise UsageError when a channel takes a device tarball that a build would not make."""
    if selection.has_device_tarball:
        return
    settings = channel_settings(workspace, name)
    project, series = selection.definition.name, selection.release.series
    for feed in (each for device in settings.devices for each in settings.feeds(device)):
        if (
            isinstance(feed, PublishedFeed)
            and feed.generator == "cdimage-device"
            and feed.path is None
            and (feed.project or settings.project, feed.series) == (project, series)
        ):
            raise UsageError(
                f"channel '{name}' takes a device tarball of '{project}', which builds of "
                f"subproject '{selection.subproject}' do not make",
                hint=f"build it with subproject '{Subproject.SYSTEM_IMAGE}' (the trigger's "
                "SUBPROJECT), or give the channel 'files' without 'cdimage-device'",
            )


def channel_settings(
    workspace: Workspace, name: str, *, series: str | None = None, product: str | None = None
) -> ChannelSettings:
    """Return what a channel is fed from: configured, or <project>/<release>/<channel>.

    The series and the product of every file of a publication are filled in: those given, or else
    the definition's. Raises NotFoundError, DataError.
    """
    found = workspace.settings.channels.get(name)
    if found is None:
        parts: Sequence[str] = name.split("/")
        if len(parts) != 3:  # noqa: PLR2004  project, release, channel
            raise DataError(
                f"channel '{name}' is not configured",
                hint=f'add [channels."{name}"] with its project and release to coreimage.toml',
            )
        found = ChannelSettings(project=parts[0], release=parts[1])
    given = {key: value for key, value in (("series", series), ("product", product)) if value}
    feeds = [
        _with_series(workspace, found, each.model_copy(update=given))
        if isinstance(each, PublishedFeed)
        else each
        for each in found.files or SIMPLE
    ]
    return found.model_copy(update={"files": feeds})


def _with_series(
    workspace: Workspace, settings: ChannelSettings, feed: PublishedFeed
) -> PublishedFeed:
    """Return a feed with the series and product of its release, where it has none of its own."""
    if feed.series and feed.product:
        return feed
    project, release = feed.project or settings.project, feed.release or settings.release
    if project is None or release is None:
        return feed
    arch = next(iter(settings.devices.values())).partition(".")[0]
    source = select(project, release, arch, definition_places(workspace.root))
    return feed.model_copy(
        update={
            "series": feed.series or source.release.series,
            "product": feed.product or source.definition.product,
        }
    )
