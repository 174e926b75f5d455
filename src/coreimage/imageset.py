"""One image set: builds of one definition and release for several architectures, published as one.

A set has one build id, and its architectures are built at the same time, as far as coreimage.toml
allows. It is published when at least one was built; the files of the others are carried over from
the publication before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, IncompleteError
from coreimage.farm import executor, folder, queue
from coreimage.farm.executor import Job, RootfsCommand, argv_of, see_through
from coreimage.farm.voice import Voice
from coreimage.lib.arches import is_native
from coreimage.lib.files import lock
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildStatus, Subproject
from coreimage.model.publication import IMAGE_TYPE, Publication
from coreimage.pipeline import builds, importing, publishing, road
from coreimage.rootfs.definitions.definition import (
    Selection,
    architectures,
    definition_places,
    load,
    select,
)
from coreimage.systemimage.imports.addition import ImportResult

# What the record of a build says when it belongs to a set that one process looks after.
_OWNED = "image_set"
_SUPERSEDED = "its image set was given up for a newer one"


class When(StrEnum):
    """Whether a set is built: always, when an input of one of its builds changed, or never."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for; no release, arches and subproject mean the definition's own.

    `arches` are words such as armhf or, for a device, armhf+raspi2.
    """

    project: str
    release: str | None = None
    arches: Sequence[str] = ()
    subproject: Subproject | None = None
    channel: str | None = None
    extra_archives: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: builds that succeeded, why others did not, what was published, imported.

    `failures` are by target: amd64, or armhf.raspi2 for a device.
    """

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
    """Return what is to be built, an entry for each target; raises NotFoundError, DataError.

    Without arches in the order: those of the definition whose programs the processor of `host` runs
    itself. Under qemu-user a build takes ten times as long, so that it has to be asked for, and so
    have devices.
    """
    places = definition_places(workspace.root)
    arches = order.arches
    if not arches:
        definition, _ = load(order.project, places)
        known = architectures(definition, order.release)
        arches = [arch for arch in known if is_native(arch, host=host)] or [host]
    words = [each.partition("+") for each in arches]
    selections = [
        select(
            order.project, order.release, arch, places, device or None, subproject=order.subproject
        )
        for arch, _, device in words
    ]
    return list({each.target: each for each in selections}.values())


def make_set(
    workspace: Workspace,
    order: Order,
    *,
    when: When,
    host: str,
    progress: Progress,
    echo: Callable[[str], None] | None = None,
    complain: Callable[[str, CoreImageError], None] = lambda _target, _error: None,
    command: RootfsCommand = executor.rootfs_argv,
    clock: Callable[[], datetime] = queue.now_utc,
) -> Outcome:
    """Build a set, publish it, and import it when the order names a channel.

    Sets that were built before and not published yet are published too. A set of the same day and
    the same order whose maker was killed is taken up again; what is left of another one is
    aborted. `complain` is told of each target that fails, when it fails. Raises BusyError when the
    same set is being made, UsageError when the channel takes nothing of the set, or takes a device
    tarball that it would lack.
    """
    selections = resolve(workspace, order, host=host)
    definition, series = selections[0].definition, selections[0].release.series
    key = (definition.name, series)
    channel = _channel_of(workspace, order, selections, when)
    purpose = f"image set {definition.name} {series} {IMAGE_TYPE}"
    name = "-".join(["imageset", *key, IMAGE_TYPE])
    with lock(workspace.state / f"locks/{name}.lock", purpose=purpose):
        outcome = Outcome()
        wanted = _interrupted(workspace, selections, order, when, clock)
        if wanted:
            progress.note(
                f"image set {wanted[0].request.version} was interrupted: going on with it"
            )
        elif _is_wanted(workspace, selections, order.extra_archives, when, progress):
            extra = {_OWNED: IMAGE_TYPE, "extra_archives": list(order.extra_archives)}
            wanted = builds.request_builds(workspace, selections, extra=extra, clock=clock)
        if wanted:
            outcome = _build(workspace, wanted, progress, echo, complain, command, clock)
        published = publishing.publish_finished(workspace, progress=progress, of=key)
        imports: Mapping[str, ImportResult] = {}
        if channel and (outcome.built or not outcome.failures):
            needed = [each.request.target for each in outcome.built]
            imports = importing.import_published(
                workspace, channel, progress=progress, needed=needed
            )
        return Outcome(
            version=outcome.version,
            built=outcome.built,
            failures=outcome.failures,
            published=published,
            imports=imports,
        )


def check(workspace: Workspace, order: Order, *, host: str) -> None:
    """Raise what an order would be refused for, as far as that is told without a look at archives.

    NotFoundError, DataError, ConfigError, UsageError and TrustError: its definition, release,
    architectures, channel and extra archives.
    """
    selections = resolve(workspace, order, host=host)
    _channel_of(workspace, order, selections, When.ALWAYS)
    for each in selections:
        builds.extra_archives(workspace, each, order.extra_archives)


def _channel_of(
    workspace: Workspace, order: Order, selections: Sequence[Selection], when: When
) -> str | None:
    """Return the full name of an order's channel; UsageError when it cannot take what is built."""
    if order.channel is None:
        return None
    first = selections[0]
    channel = road.channel_name(first.definition.name, first.release_name, order.channel)
    importing.require_taken(workspace, channel, selections)
    if when is not When.NEVER:
        importing.require_parts(workspace, channel, first)
    return channel


def changed_targets(
    workspace: Workspace, selections: Sequence[Selection], extra_archives: Sequence[str]
) -> dict[str, str]:
    """Return the targets that have no build of their inputs as they are now, with fingerprints."""
    looked = {
        each.target: builds.look_for_build(workspace, each, extra_archives) for each in selections
    }
    return {target: fingerprint for target, (fingerprint, build) in looked.items() if not build}


def _is_wanted(
    workspace: Workspace,
    selections: Sequence[Selection],
    extra_archives: Sequence[str],
    when: When,
    progress: Progress,
) -> bool:
    if when is not When.CHANGED:
        return when is When.ALWAYS
    first = selections[0]
    progress.stage(f"Looking for changes to {first.definition.title} {first.release_name}")
    changed = changed_targets(workspace, selections, extra_archives)
    progress.note(f"changed for {', '.join(changed)}" if changed else "nothing changed")
    return bool(changed)


def _build(
    workspace: Workspace,
    requested: Sequence[Build],
    progress: Progress,
    echo: Callable[[str], None] | None,
    complain: Callable[[str, CoreImageError], None],
    command: RootfsCommand,
    clock: Callable[[], datetime],
) -> Outcome:
    built: list[Build] = []
    failures: dict[str, CoreImageError] = {}
    with _aborted_together(workspace, requested):
        jobs = []
        for each in requested:
            place, target = folder.folder_of(workspace, each.id), each.request.target
            progress.note(f"{target}: build {each.id} ({each.request.version}), log '{place.log}'")
            prefix = f"{target}: " if len(requested) > 1 else ""
            voice = Voice(progress=progress, echo=echo, prefix=prefix)
            jobs.append(Job(build=each, argv=argv_of(workspace, each, command), voice=voice))
        parallel = workspace.settings.farm.parallel
        with closing(see_through(workspace, jobs, parallel=parallel, clock=clock)) as ended:
            for job in ended:
                if job.error is None:
                    built.append(job.build)
                    continue
                failures[job.build.request.target] = job.error
                complain(job.build.request.target, job.error)
    version = requested[0].request.version
    return Outcome(version=version, built=built, failures=dict(sorted(failures.items())))


@contextmanager
def _aborted_together(workspace: Workspace, builds: Sequence[Build]) -> Iterator[None]:
    """End the builds that still wait when the block ends before its time: nobody else would."""
    try:
        yield
    except BaseException:
        store = queue.open_store(workspace)
        for each in builds:
            with suppress(CoreImageError):  # it has begun, or is over
                store.abort_pending(each.id, now=queue.now_utc(), message=queue.CANCELLED)
        raise


def _interrupted(
    workspace: Workspace,
    selections: Sequence[Selection],
    order: Order,
    when: When,
    clock: Callable[[], datetime],
) -> list[Build]:
    """Return the builds of a set that a process that was killed has begun, and this order wants.

    What is left of other sets is aborted; we hold the lock that their makers held.
    """
    project, series = selections[0].definition.name, selections[0].release.series
    under_way = [BuildStatus.PENDING, BuildStatus.RUNNING]
    if not queue.list_builds(workspace, project=project, statuses=under_way):
        return []
    sets: dict[str, list[Build]] = {}
    for build in reversed(queue.list_builds(workspace, project=project)):
        if build.request.series == series and _OWNED in build.extra:
            sets.setdefault(build.request.version, []).append(build)
    found: list[Build] = []
    for one_set in sets.values():
        waiting = [each for each in one_set if not each.status.finished]
        if not waiting:
            continue
        same = {each.request.target for each in one_set} == {each.target for each in selections}
        same &= one_set[0].request.subproject == selections[0].subproject.suffix
        same &= one_set[0].extra.get("extra_archives") == list(order.extra_archives)
        same &= one_set[0].created_at.date() == clock().date()
        if same and when is not When.NEVER:
            found = one_set
            continue
        for each in waiting:
            with suppress(CoreImageError):  # a runner has just taken it, or it is over
                queue.open_store(workspace).abort_pending(each.id, now=clock(), message=_SUPERSEDED)
    return found
