"""Publishing: finished builds of an image set become one publication."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.errors import DataError
from coreimage.farm import folder, queue
from coreimage.lib.progress import Progress
from coreimage.model.build import Build
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
from coreimage.systemimage.imports import publications
from coreimage.systemimage.signing.policy import Purpose
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import editing, layout

_PUBLISHED_NAMES: Mapping[str, Callable[[str, str, str], str]] = {
    "rootfs": rootfs_name,
    "device": device_name,
    "manifest": manifest_name,
    "sbom": sbom_name,
}
# What a build must have; a system without device tarball has none, an older build no more.
_REQUIRED = ("rootfs", "manifest")


def publish_finished(
    workspace: Workspace, *, progress: Progress, of: tuple[str, str] | None = None
) -> list[Publication]:
    """Publish every finished image set that is newer than its series' newest publication.

    `of` is the project and series to look at, by default all. A set counts as finished when no
    build of it waits or runs, and is published when one succeeded. The files of an arch or device
    that did not are carried over from the publication before.
    """
    published = []
    for publication, builds, failed in _waiting(workspace, of):
        progress.stage(f"Publishing {publication.project} {publication.version}")
        artifacts: dict[str, tuple[Path, str]] = {}
        records = [_record(workspace, build) for build in builds]
        for build, record in zip(builds, records, strict=True):
            artifacts.update(_artifacts(workspace, build, record))
        provenance: dict[str, Any] = {"builds": [build.id for build in builds], "records": records}
        for target in failed:
            found = _older_files(workspace, publication, records[0], target)
            if found is None:
                progress.note(f"{target} was not built, and there is no older one to carry over")
                continue
            version, files = found
            artifacts.update(files)
            provenance.setdefault("carried_over", {})[target] = version
            progress.note(f"{target} was not built: carried over from {version}")
        place = publish(
            workspace.publications,
            publication,
            artifacts=artifacts,
            provenance=provenance,
            seal=partial(sealed, workspace, publication),
            locks=workspace.state / "locks",
        )
        progress.note(f"published in '{place}'")
        published.append(publication)
    return published


@contextmanager
def sealed(
    workspace: Workspace, publication: Publication, checksums: Path, signature: Path
) -> Iterator[None]:
    """Sign the checksums of a publication, and let it become visible before keys change again.

    A key is retired or revoked by who holds the channel tree, when nothing published is signed by
    it. So we hold the tree too: the key that signs here is still good when others can see it.
    """
    with editing.locked(workspace, purpose="publish"):
        SigningService(workspace).sign(
            checksums,
            signature,
            level=KeyringType.IMAGE_SIGNING,
            purpose=Purpose.CHECKSUMS,
            name=f"{publication.path}/{checksums.name}",
        )
        yield


def _waiting(
    workspace: Workspace, of: tuple[str, str] | None
) -> Iterator[tuple[Publication, list[Build], list[str]]]:
    """Yield the publications that are to be made, oldest first.

    With each come the builds that succeeded, by target, and the targets of the others. A
    publication never changes: it waits until none of its builds is under way.
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
            failed = sorted(each.request.target for each in builds if each not in built)
            yield publication, sorted(built, key=lambda each: each.request.target), failed


def _older_files(
    workspace: Workspace,
    publication: Publication,
    sibling: Mapping[str, Any],
    target: str,
) -> tuple[str, dict[str, tuple[Path, str]]] | None:
    """Return the build id and the files of a target that were published last, None if never.

    They have a device tarball if the build has one that `sibling` is the record of. They are signed
    once more under their new build id, so their signature is verified first: raises TrustError.
    """
    by_kind = {
        kind: name(publication.series, sibling["product"], target)
        for kind, name in _PUBLISHED_NAMES.items()
    }
    names = list(by_kind.values())
    built = rootfs.artifact_names(publication.project)
    has_device = built["device"] in sibling["sha256"]
    older = [
        each
        for each in marks.publications(workspace.publications)
        if (each.project, each.series) == (publication.project, publication.series)
        and build_id_key(each.version) < build_id_key(publication.version)
        and (workspace.publications / each.path / by_kind["rootfs"]).is_file()
        and (workspace.publications / each.path / by_kind["device"]).is_file() is has_device
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
        name(build.request.series, record["product"], build.request.target): (
            place / names[kind],
            record["sha256"][names[kind]],
        )
        for kind, name in _PUBLISHED_NAMES.items()
        if names[kind] in record["sha256"]
    }
