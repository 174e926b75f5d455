"""One image set: builds of one definition and release for several architectures, published as one.

A set has one build id. It is published when at least one architecture was built; the files of
the others are carried over from the publication before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from coreimage import pipeline
from coreimage.config import Workspace
from coreimage.errors import CoreImageError, IncompleteError, TerminatedError
from coreimage.farm import executor, folder, queue
from coreimage.lib.arches import buildable
from coreimage.lib.files import lock
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildRequest, BuildState
from coreimage.model.publication import IMAGE_TYPE, Publication
from coreimage.rootfs.definition import (
    Selection,
    architectures,
    definition_places,
    load,
    select,
)
from coreimage.systemimage.importer import ImportResult

RootfsCommand = Callable[[BuildRequest, Path, Sequence[str]], Sequence[str]]
"""Returns the argv that builds a request into a directory, with further options."""

# What the record of a build says when it belongs to a set that one process looks after.
_OWNED = "image_set"


class When(StrEnum):
    """Whether a set is built: always, when an input of one of its builds changed, or never."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for; no release and no arches mean the definition's own."""

    project: str
    release: str | None = None
    arches: Sequence[str] = ()
    channel: str | None = None
    extra_archives: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: builds that succeeded, why others did not, what was published, imported."""

    version: str | None = None
    built: Sequence[Build] = ()
    failures: Mapping[str, CoreImageError] = field(default_factory=dict)
    published: Sequence[Publication] = ()
    imports: Mapping[str, ImportResult] = field(default_factory=dict)

    def complaint(self) -> CoreImageError | None:
        """Return the error that the whole ends with: None when every architecture was built."""
        if not self.failures:
            return None
        failed = ", ".join(self.failures)
        if self.built:
            return IncompleteError(
                f"image set {self.version} is published without new builds for: {failed}",
                hint="their complaints are above; the files published before were carried over",
            )
        first, *others = self.failures.values()
        error = CoreImageError(
            f"image set {self.version} is not published, nothing was built for: {failed}",
            hint="the complaints are above",
        )
        if all(each.exit_code == first.exit_code for each in others):
            error.exit_code = first.exit_code
        return error


def resolve(workspace: Workspace, order: Order, *, host: str) -> list[Selection]:
    """Return what is to be built, an entry for each arch; raises NotFoundError, DataError.

    Without arches in the order: those of the definition whose programs run on `host`.
    """
    places = definition_places(workspace.root)
    arches = order.arches
    if not arches:
        definition, _ = load(order.project, places)
        arches = buildable(architectures(definition, order.release), host=host) or [host]
    return [select(order.project, order.release, arch, places) for arch in arches]


def make_set(
    workspace: Workspace,
    order: Order,
    *,
    when: When,
    host: str,
    progress: Progress,
    echo: Callable[[str], None] | None = None,
    complain: Callable[[str, CoreImageError], None] = lambda _arch, _error: None,
    command: RootfsCommand = executor.rootfs_argv,
    clock: Callable[[], datetime] = queue.now_utc,
) -> Outcome:
    """Build a set, publish it, and import it when the order names a channel.

    Sets that were built before and not published yet are published too. `complain` is told of
    each arch that fails, when it fails. Raises BusyError when the same set is being made.
    """
    selections = resolve(workspace, order, host=host)
    definition, series = selections[0].definition, selections[0].release.series
    key = (definition.name, series)
    purpose = f"image set {definition.name} {series} {IMAGE_TYPE}"
    name = "-".join(["imageset", *key, IMAGE_TYPE])
    with lock(workspace.state / f"locks/{name}.lock", purpose=purpose):
        _cancel_leftovers(workspace, *key)
        outcome = Outcome()
        if _is_wanted(workspace, selections, when, progress):
            requested = _request(workspace, selections, order, clock)
            outcome = _build(workspace, requested, order, progress, echo, complain, command)
        published = pipeline.publish_finished(workspace, progress=progress, of=key)
        imports: Mapping[str, ImportResult] = {}
        if order.channel is not None and (outcome.built or not outcome.failures):
            channel = pipeline.channel_name(
                definition.name, selections[0].release_name, order.channel
            )
            imports = pipeline.import_published(workspace, channel, progress=progress)
        return Outcome(
            version=outcome.version,
            built=outcome.built,
            failures=outcome.failures,
            published=published,
            imports=imports,
        )


def changed_arches(workspace: Workspace, selections: Sequence[Selection]) -> dict[str, str]:
    """Return the arches that have no build of their inputs as they are now, with fingerprints."""
    looked = {each.arch: pipeline.look_for_build(workspace, each) for each in selections}
    return {arch: fingerprint for arch, (fingerprint, build) in looked.items() if build is None}


def _is_wanted(
    workspace: Workspace, selections: Sequence[Selection], when: When, progress: Progress
) -> bool:
    if when is not When.CHANGED:
        return when is When.ALWAYS
    first = selections[0]
    progress.stage(f"Looking for changes to {first.definition.title} {first.release_name}")
    changed = changed_arches(workspace, selections)
    progress.note(f"changed for {', '.join(changed)}" if changed else "nothing changed")
    return bool(changed)


def _request(
    workspace: Workspace,
    selections: Sequence[Selection],
    order: Order,
    clock: Callable[[], datetime],
) -> list[Build]:
    first = selections[0]
    project, series = first.definition.name, first.release.series
    extra: dict[str, Any] = {_OWNED: IMAGE_TYPE, "extra_archives": list(order.extra_archives)}
    return queue.request(
        workspace,
        project=project,
        release=first.release_name,
        series=series,
        arches=[each.arch for each in selections],
        taken=pipeline.published_versions(workspace, project, series),
        extra=extra,
        clock=clock,
    )


def _build(
    workspace: Workspace,
    requested: Sequence[Build],
    order: Order,
    progress: Progress,
    echo: Callable[[str], None] | None,
    complain: Callable[[str, CoreImageError], None],
    command: RootfsCommand,
) -> Outcome:
    options = [word for name in order.extra_archives for word in ("--extra-archive", name)]
    built: list[Build] = []
    failures: dict[str, CoreImageError] = {}
    with _cancelled_together(workspace, requested):
        for each in requested:
            place, arch = folder.folder_of(workspace, each.id), each.request.arch
            progress.note(f"{arch}: build {each.id} ({each.request.version}), log '{place.log}'")
            argv = command(each.request, place.partial, options)
            try:
                done = executor.run_build(
                    workspace, each.id, argv=argv, progress=progress, echo=echo
                )
            except TerminatedError:
                raise
            except CoreImageError as error:
                failures[arch] = error
                complain(arch, error)
            else:
                built.append(done)
    return Outcome(version=requested[0].request.version, built=built, failures=failures)


@contextmanager
def _cancelled_together(workspace: Workspace, builds: Sequence[Build]) -> Iterator[None]:
    """End the builds that still wait when the block ends before its time: nobody else would."""
    try:
        yield
    except BaseException:
        for each in builds:
            with suppress(CoreImageError):
                _cancel_waiting(workspace, each.id)
        raise


def _cancel_waiting(workspace: Workspace, build_id: int) -> None:
    if queue.get(workspace, build_id).state is BuildState.NEEDS_BUILDING:
        queue.cancel(workspace, build_id)


def _cancel_leftovers(workspace: Workspace, project: str, series: str) -> None:
    """Cancel what a process that was killed has asked for; we hold the lock that it held."""
    waiting = queue.list_builds(workspace, project=project, states=[BuildState.NEEDS_BUILDING])
    for each in waiting:
        if each.request.series == series and _OWNED in each.extra:
            queue.cancel(workspace, each.id)
