"""Builds of a workspace: what is there, and what has to be asked for."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from coreimage.config import ArchiveSettings, Workspace
from coreimage.errors import CoreImageError
from coreimage.farm import executor, folder, queue
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildResult, BuildStatus
from coreimage.model.publication import build_id_key
from coreimage.publisher import marks
from coreimage.rootfs import build as rootfs
from coreimage.rootfs.archives.extra import ExtraArchive, named_archives
from coreimage.rootfs.definitions.definition import Selection


def ensure_build(
    workspace: Workspace,
    selection: Selection,
    *,
    force: bool,
    progress: Progress,
    echo: Callable[[str], None] | None,
) -> tuple[Build, bool]:
    """Return a successful build of the inputs as they are now, and whether it had to be made."""
    definition = selection.definition
    progress.stage(f"Looking for changes to {definition.title} {selection.release_name}")
    fingerprint, found = look_for_build(workspace, selection)
    if found is not None and not force:
        progress.note(f"nothing changed since build {found.id} ({found.request.version})")
        return found, False
    requested = _unfinished(workspace, selection, fingerprint)
    if requested is None:
        (requested,) = request_builds(workspace, [selection], fingerprint=fingerprint)
    place = folder.folder_of(workspace, requested.id)
    progress.note(f"build {requested.id} ({requested.request.version}): log in '{place.log}'")
    # Whoever insists on a build does not want the artifacts of an earlier one.
    options = ["--no-cache"] if force else []
    argv = executor.argv_of(workspace, requested, executor.rootfs_argv, options)
    built = executor.run_build(workspace, requested.id, argv=argv, progress=progress, echo=echo)
    return built, True


def _unfinished(workspace: Workspace, selection: Selection, fingerprint: str) -> Build | None:
    """Return a build of the same inputs that was asked for and is not over, if there is one.

    Whoever asked for it was killed, or waits for it as we shall.
    """
    found = queue.list_builds(
        workspace,
        project=selection.definition.name,
        release=selection.release_name,
        arch=selection.arch,
        statuses=[BuildStatus.PENDING, BuildStatus.RUNNING],
    )
    same = [each for each in found if each.request.device == selection.own_device]
    return next((each for each in same if each.fingerprint == fingerprint), None)


def request_builds(
    workspace: Workspace,
    selections: Sequence[Selection],
    *,
    fingerprint: str = "",
    priority: int = 0,
    extra: Mapping[str, Any] | None = None,
    clock: Callable[[], datetime] = queue.now_utc,
) -> list[Build]:
    """Ask for the builds of one image set, one for each selection, and return them."""
    first = selections[0]
    definition, series = first.definition, first.release.series
    return queue.request(
        workspace,
        project=definition.name,
        release=first.release_name,
        series=series,
        arches=[each.target for each in selections],
        distribution=definition.distribution,
        subproject=first.subproject.suffix,
        priority=priority,
        fingerprint=fingerprint,
        taken=published_versions(workspace, definition.name, series),
        extra=extra,
        clock=clock,
    )


def retry_build(workspace: Workspace, build_id: int) -> Build:
    """Put a build that failed or was aborted back into the queue; CoreImageError if in vain."""
    build = queue.get(workspace, build_id)
    if build.result is BuildResult.SUCCESS:
        raise CoreImageError(
            f"build '{build_id}' cannot be tried again: it has succeeded",
            hint=f"ask for a new one: coreimage build request {build.request.project}",
        )
    request = build.request
    published = published_versions(workspace, request.project, request.series)
    if published and build_id_key(published[-1]) >= build_id_key(request.version):
        raise CoreImageError(
            f"build '{build_id}' would not be published: its image set {request.version} is not "
            f"newer than {published[-1]}",
            hint=f"ask for a new one: coreimage build request {request.project} "
            f"--release {request.release} --arch {request.arch}"
            + (f" --device {request.device}" if request.device else ""),
        )
    return queue.retry(workspace, build_id)


def look_for_build(
    workspace: Workspace, selection: Selection, names: Sequence[str] = ()
) -> tuple[str, Build | None]:
    """Return the fingerprint of the inputs as they are now, and the newest build of them.

    `names` are those of extra archives.
    """
    extras = extra_archives(workspace, selection, names)
    settings = _archive_settings(workspace, selection)
    inputs = rootfs.gather(selection, settings, workspace.cache, extras=extras)
    fingerprint = inputs.fingerprint()
    found = queue.open_store(workspace).newest_with(fingerprint)
    return fingerprint, found if found is not None and _has_artifacts(workspace, found) else None


def extra_archives(
    workspace: Workspace, selection: Selection, names: Sequence[str]
) -> list[ExtraArchive]:
    """Return extra archives by name; raises what `named_archives` does."""
    return named_archives(
        names,
        selection,
        settings=_archive_settings(workspace, selection),
        configured=workspace.settings.extra_archives,
        root=workspace.root,
    )


def _archive_settings(workspace: Workspace, selection: Selection) -> ArchiveSettings:
    found = workspace.settings.archives.get(selection.definition.distribution)
    return found or ArchiveSettings()


def _has_artifacts(workspace: Workspace, build: Build) -> bool:
    artifacts = folder.folder_of(workspace, build.id).artifacts
    return all((artifacts / name).is_file() for name in build.artifacts)


def published_versions(workspace: Workspace, project: str, series: str) -> list[str]:
    """Return the build ids that are published, oldest first."""
    return [
        each.version
        for each in marks.publications(workspace.publications)
        if (each.project, each.series) == (project, series)
    ]
