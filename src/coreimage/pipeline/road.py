"""The road: every stage after the other, for one channel or for all that are configured.

Every step looks at what is there and does what is missing, so that a road that was interrupted
goes on where it stopped, and one that has nothing to do says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, IncompleteError, NotFoundError, TerminatedError
from coreimage.lib.files import lock
from coreimage.lib.progress import Progress
from coreimage.model.build import Build
from coreimage.pipeline.builds import ensure_build
from coreimage.pipeline.importing import channel_settings, import_published, is_fed, require_parts
from coreimage.pipeline.publishing import publish_finished
from coreimage.rootfs.definitions.definition import Selection, definition_places, select
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.upkeep import keep_up


@dataclass(frozen=True, slots=True, kw_only=True)
class RoadResult:
    """Where the road led: the build that the image is made of, and the image."""

    build: Build
    built: bool
    channel: str
    imports: Mapping[str, ImportResult]


def channel_name(project: str, release: str, channel: str) -> str:
    """Return a channel's full name: debian-core/13/edge. One with slashes is one already."""
    return channel if "/" in channel else f"{project}/{release}/{channel}"


def run_road(
    workspace: Workspace,
    *,
    project: str,
    release: str | None,
    arch: str,
    device: str | None = None,
    channel: str,
    force: bool,
    progress: Progress,
    echo: Callable[[str], None] | None = None,
) -> RoadResult:
    """Go the whole road for one channel: build if anything changed, publish, import.

    `force` builds even if nothing changed. Raises BusyError when the road is in use, NotFoundError
    when the channel takes nothing of the architecture or device, UsageError when the channel takes
    a device tarball that the definition does not make.
    """
    selection = select(project, release, arch, definition_places(workspace.root), device)
    name = channel_name(project, selection.release_name, channel)
    _require_device(workspace, name, selection)
    require_parts(workspace, name, selection)
    with lock(workspace.state / "locks/pipeline.lock", purpose=f"pipeline run {name}"):
        build, built = ensure_build(workspace, selection, force=force, progress=progress, echo=echo)
        publish_finished(workspace, progress=progress)
        imports = import_published(workspace, name, progress=progress, needed=[selection.target])
        keep_up(workspace, progress=progress, now=datetime.now(UTC))
    return RoadResult(build=build, built=built, channel=name, imports=imports)


def _require_device(workspace: Workspace, channel: str, selection: Selection) -> None:
    """Raise NotFoundError when a channel would not take what is built for an arch or device."""
    devices, target = channel_settings(workspace, channel).devices, selection.target
    if target not in devices.values():
        wanted = {**devices, _name_in_channel(selection): target}
        line = ", ".join(f'{device} = "{each}"' for device, each in wanted.items())
        raise NotFoundError(
            f"channel '{channel}' has no device of architecture '{target}'",
            hint=f'write devices = {{ {line} }} below [channels."{channel}"] in coreimage.toml',
        )


def _name_in_channel(selection: Selection) -> str:
    """Return what channels usually call a device: raspi2_armhf, as they do generic_armhf."""
    ending = f"_{selection.arch}"
    return selection.device.removesuffix(ending) + ending


def advance(workspace: Workspace, *, progress: Progress) -> dict[str, Mapping[str, ImportResult]]:
    """Publish finished builds and import published ones into every configured channel.

    A channel for which there is nothing yet, such as one that waits for a publication to be marked
    good, is left out. One whose import fails does not keep the others from theirs: their errors
    are told at the end, as one IncompleteError when anything was imported at all.
    """
    imports: dict[str, Mapping[str, ImportResult]] = {}
    failures: dict[str, CoreImageError] = {}
    with lock(workspace.state / "locks/pipeline.lock", purpose="pipeline advance"):
        publish_finished(workspace, progress=progress)
        for name in workspace.settings.channels:
            try:
                if is_fed(workspace, channel_settings(workspace, name)):
                    imports[name] = import_published(workspace, name, progress=progress)
            except TerminatedError:
                raise
            except CoreImageError as error:
                failures[name] = error
                progress.note(f"'{name}' is as before: {error.message}")
        keep_up(workspace, progress=progress, now=datetime.now(UTC))
    if failures:
        raise _complaint(failures, imports)
    return imports


def _complaint(
    failures: Mapping[str, CoreImageError], imports: Mapping[str, object]
) -> CoreImageError:
    """Return the error that a run ends with in which channels failed."""
    first, *others = failures.values()
    if not others and not imports:
        return first
    names = ", ".join(f"'{name}'" for name in failures)
    text = f"nothing could be imported into {names}: {first.message}"
    if imports:
        return IncompleteError(text, hint=first.hint)
    error = CoreImageError(text, hint=first.hint)
    if all(each.exit_code == first.exit_code for each in others):
        error.exit_code = first.exit_code
    return error
