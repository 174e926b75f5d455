"""The road: builds become publications, publications become images. The stages meet only here.

Every step looks at what is there and does what is missing, so that a road that was interrupted
goes on where it stopped, and one that has nothing to do says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreimage.config import ArchiveSettings, Workspace
from coreimage.errors import (
    CoreImageError,
    DataError,
    IncompleteError,
    NotFoundError,
    TerminatedError,
)
from coreimage.farm import executor, folder, queue
from coreimage.farm.trigger import SYSTEM_IMAGE
from coreimage.feeds import SIMPLE, ChannelSettings, PublishedFeed
from coreimage.lib.files import lock
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildStatus
from coreimage.model.document import parse_object
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import (
    Publication,
    build_id_key,
    device_name,
    manifest_name,
    rootfs_name,
    sbom_name,
)
from coreimage.publisher import marks
from coreimage.publisher.publish import publish
from coreimage.rootfs import build as rootfs
from coreimage.rootfs.definition import Selection, definition_places, generic_device, select
from coreimage.systemimage.imports import publications
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.imports.importer import import_image
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations.channels import create_channel
from coreimage.systemimage.signing.policy import Purpose
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import layout
from coreimage.systemimage.upkeep import keep_up

_PUBLISHED_NAMES: Mapping[str, Callable[[str, str, str], str]] = {
    "rootfs": rootfs_name,
    "device": device_name,
    "manifest": manifest_name,
    "sbom": sbom_name,
}
# What a build must have; a system without device tarball has none, an older build no more.
_REQUIRED = ("rootfs", "manifest")


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
    channel: str,
    force: bool,
    progress: Progress,
    echo: Callable[[str], None] | None = None,
) -> RoadResult:
    """Go the whole road for one channel: build if anything changed, publish, import.

    `force` builds even if nothing changed. Raises BusyError when the road is in use, NotFoundError
    when the channel has no device of the architecture.
    """
    selection = select(project, release, arch, definition_places(workspace.root))
    name = channel_name(project, selection.release_name, channel)
    _require_device(workspace, name, arch)
    with lock(workspace.state / "locks/pipeline.lock", purpose=f"pipeline run {name}"):
        build, built = ensure_build(workspace, selection, force=force, progress=progress, echo=echo)
        publish_finished(workspace, progress=progress)
        imports = import_published(workspace, name, progress=progress)
        keep_up(workspace, progress=progress, now=datetime.now(UTC))
    return RoadResult(build=build, built=built, channel=name, imports=imports)


def _require_device(workspace: Workspace, channel: str, arch: str) -> None:
    """Raise NotFoundError when a channel would not take what is built for an architecture."""
    devices = channel_settings(workspace, channel).devices
    if arch not in devices.values():
        wanted = {**devices, generic_device(arch): arch}
        line = ", ".join(f'{device} = "{each}"' for device, each in wanted.items())
        raise NotFoundError(
            f"channel '{channel}' has no device of architecture '{arch}'",
            hint=f'write devices = {{ {line} }} below [channels."{channel}"] in coreimage.toml',
        )


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
                if _is_fed(workspace, channel_settings(workspace, name)):
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


def _is_fed(workspace: Workspace, settings: ChannelSettings) -> bool:
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
    argv = executor.rootfs_argv(requested.request, place.partial, options)
    built = executor.run_build(workspace, requested.id, argv=argv, progress=progress, echo=echo)
    return built, True


def _unfinished(workspace: Workspace, selection: Selection, fingerprint: str) -> Build | None:
    """Return a build of the same inputs that was asked for and is not over, if there is one.

    Whoever asked for it was killed, or waits for it as we shall.
    """
    under_way = queue.list_builds(
        workspace,
        project=selection.definition.name,
        release=selection.release_name,
        arch=selection.arch,
        statuses=[BuildStatus.PENDING, BuildStatus.RUNNING],
    )
    return next((each for each in under_way if each.fingerprint == fingerprint), None)


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
        arches=[each.arch for each in selections],
        distribution=definition.distribution,
        subproject=SYSTEM_IMAGE if definition.device_tarball else "",
        priority=priority,
        fingerprint=fingerprint,
        taken=published_versions(workspace, definition.name, series),
        extra=extra,
        clock=clock,
    )


def retry_build(workspace: Workspace, build_id: int) -> Build:
    """Put a build that failed or was aborted back into the queue; CoreImageError if in vain."""
    request = queue.get(workspace, build_id).request
    published = published_versions(workspace, request.project, request.series)
    if published and build_id_key(published[-1]) >= build_id_key(request.version):
        raise CoreImageError(
            f"build '{build_id}' would not be published: its image set {request.version} is not "
            f"newer than {published[-1]}",
            hint=f"ask for a new one: coreimage build request {request.project} "
            f"--release {request.release} --arch {request.arch}",
        )
    return queue.retry(workspace, build_id)


def look_for_build(workspace: Workspace, selection: Selection) -> tuple[str, Build | None]:
    """Return the fingerprint of the inputs as they are now, and the newest build of them."""
    distribution = selection.definition.distribution
    settings = workspace.settings.archives.get(distribution, ArchiveSettings())
    fingerprint = rootfs.gather(selection, settings, workspace.cache).fingerprint()
    found = queue.open_store(workspace).newest_with(fingerprint)
    return fingerprint, found if found is not None and _has_artifacts(workspace, found) else None


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


def publish_finished(
    workspace: Workspace, *, progress: Progress, of: tuple[str, str] | None = None
) -> list[Publication]:
    """Publish every finished image set that is newer than its series' newest publication.

    `of` is the project and series to look at, by default all. A set counts as finished when no
    build of it waits or runs, and is published when one succeeded. The files of an arch that did
    not are carried over from the publication before.
    """
    signer = SigningService(workspace)

    def sign(data: Path, signature: Path) -> None:
        signer.sign(data, signature, level=KeyringType.IMAGE_SIGNING, purpose=Purpose.CHECKSUMS)

    published = []
    for publication, builds, failed in _waiting(workspace, of):
        progress.stage(f"Publishing {publication.project} {publication.version}")
        artifacts: dict[str, tuple[Path, str]] = {}
        records = [_record(workspace, build) for build in builds]
        for build, record in zip(builds, records, strict=True):
            artifacts.update(_artifacts(workspace, build, record))
        provenance: dict[str, Any] = {"builds": [build.id for build in builds], "records": records}
        for arch in failed:
            found = _older_files(workspace, publication, records[0]["product"], arch)
            if found is None:
                progress.note(f"{arch} was not built, and there is no older one to carry over")
                continue
            version, files = found
            artifacts.update(files)
            provenance.setdefault("carried_over", {})[arch] = version
            progress.note(f"{arch} was not built: carried over from {version}")
        place = publish(
            workspace.publications,
            publication,
            artifacts=artifacts,
            provenance=provenance,
            sign=sign,
            locks=workspace.state / "locks",
        )
        progress.note(f"published in '{place}'")
        published.append(publication)
    return published


def _waiting(
    workspace: Workspace, of: tuple[str, str] | None
) -> Iterator[tuple[Publication, list[Build], list[str]]]:
    """Yield the publications that are to be made, oldest first.

    With each come the builds that succeeded, by arch, and the arches of the others. A publication
    never changes: it waits until none of its builds is under way.
    """
    newest: dict[tuple[str, str], tuple[int, int]] = {}
    for each in marks.publications(workspace.publications):
        newest[each.project, each.series] = build_id_key(each.version)
    groups: dict[Publication, list[Build]] = {}
    for build in queue.list_builds(workspace):
        request = build.request
        place = (request.project, request.series)
        key = build_id_key(request.version)
        if key > newest.get(place, (0, 0)) and of in (None, place):
            publication = Publication(
                project=request.project, series=request.series, version=request.version
            )
            groups.setdefault(publication, []).append(build)
    for publication, builds in sorted(
        groups.items(), key=lambda group: build_id_key(group[0].version)
    ):
        built = [each for each in builds if each.succeeded]
        if built and all(each.status.finished for each in builds):
            failed = sorted(each.request.arch for each in builds if each not in built)
            yield publication, sorted(built, key=lambda each: each.request.arch), failed


def _older_files(
    workspace: Workspace, publication: Publication, product: str, arch: str
) -> tuple[str, dict[str, tuple[Path, str]]] | None:
    """Return the build id and the files of an arch that were published last, None if never.

    They are signed once more under their new build id, so their signature is verified first:
    raises TrustError.
    """
    names = [name(publication.series, product, arch) for name in _PUBLISHED_NAMES.values()]
    older = [
        each
        for each in marks.publications(workspace.publications)
        if (each.project, each.series) == (publication.project, publication.series)
        and build_id_key(each.version) < build_id_key(publication.version)
        and (workspace.publications / each.path / names[0]).is_file()
    ]
    if not older:
        return None
    with layout.open_chain(workspace, now=datetime.now(UTC)) as chain:
        source = publications.verify(workspace.publications, older[-1], chain=chain)
    return older[-1].version, {
        name: (source.directory / name, source.sha256(name))
        for name in names
        if name in source.sums
    }


def _record(workspace: Workspace, build: Build) -> dict[str, Any]:
    names = rootfs.artifact_names(build.request.project)
    path = folder.folder_of(workspace, build.id).artifacts / names["record"]
    try:
        record = parse_object(path.read_bytes(), name=str(path))
        digests = {**record["sha256"]}
        words = [record["product"], *(digests[names[kind]] for kind in _REQUIRED)]
        if not all(isinstance(word, str) for word in (*words, *digests.values())):
            raise TypeError("names and digests are text")
    except (OSError, TypeError, KeyError) as error:
        raise DataError(
            f"'{path}' is not the record of build {build.id}: {error}",
            hint="request a new build",
        ) from error
    return record


def _artifacts(
    workspace: Workspace, build: Build, record: Mapping[str, Any]
) -> dict[str, tuple[Path, str]]:
    """Return the files of a build under the names that they are published by."""
    names = rootfs.artifact_names(build.request.project)
    place = folder.folder_of(workspace, build.id).artifacts
    return {
        name(build.request.series, record["product"], build.request.arch): (
            place / names[kind],
            record["sha256"][names[kind]],
        )
        for kind, name in _PUBLISHED_NAMES.items()
        if names[kind] in record["sha256"]
    }


def import_published(
    workspace: Workspace, name: str, *, progress: Progress
) -> dict[str, ImportResult]:
    """Import the newest publication into a channel, for each of its devices; make the channel.

    A channel that coreimage.toml does not name is fed by convention from its own name.
    """
    settings = channel_settings(workspace, name)
    now = datetime.now(UTC)
    keyrings.generate(workspace, progress=progress, now=now)
    if name not in layout.read_channels(workspace).channels:
        create_channel(workspace, name, now=now, exist_ok=True)
    progress.stage(f"Importing into {name}")
    results = {
        device: import_image(
            workspace,
            channel=name,
            device=device,
            settings=settings,
            progress=progress,
            now=now,
        )
        for device in settings.devices
    }
    for device, result in results.items():
        if not result.changed:
            progress.note(f"nothing new for '{device}': version {result.version} stays the newest")
    return results


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
