"""The queue: requests go in, builds are found again, those whose builder died begin anew."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from coreimage.config import FarmSettings, Workspace
from coreimage.errors import BusyError, CoreImageError
from coreimage.farm import log
from coreimage.farm.folder import folder_of, highest_id, record
from coreimage.farm.store import Store
from coreimage.lib import files
from coreimage.model.build import Attempt, Build, BuildResult, BuildStatus

KILLED = "the builder was killed"
CANCELLED = "cancelled before it began"
ABORTED = "cancelled while it ran"
_DATABASE = "coreimage.sqlite"
# How long a builder may take to clean up when the program's own time is over, in seconds.
_CLEANING_TIME = 30.0
_POLL = 0.2


def now_utc() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def open_store(workspace: Workspace) -> Store:
    """Return the store of a workspace, which keeps each build.json up to date."""
    return Store(workspace.state / _DATABASE, record=lambda build: record(workspace, build))


def has_store(workspace: Workspace) -> bool:
    """Tell whether anything was ever asked for."""
    return (workspace.state / _DATABASE).exists()


def request(
    workspace: Workspace,
    *,
    project: str,
    release: str,
    series: str,
    arches: Sequence[str],
    distribution: str = "",
    subproject: str = "",
    priority: int = 0,
    fingerprint: str = "",
    taken: Collection[str] = (),
    extra: Mapping[str, Any] | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> list[Build]:
    """Queue the builds of one image set and return them.

    There is one for each of `arches`, such as amd64 or, for a device, armhf.raspi2. `taken` are
    versions that the set must not have because they are published already; `extra` is what else the
    record of each build is to say.
    """
    store = open_store(workspace)
    recover(workspace, store, clock=clock)
    return store.request(
        project=project,
        release=release,
        series=series,
        arches=arches,
        distribution=distribution,
        subproject=subproject,
        priority=priority,
        fingerprint=fingerprint,
        taken=taken,
        extra=extra,
        now=clock(),
        after=highest_id(workspace),
    )


def list_builds(
    workspace: Workspace,
    *,
    project: str | None = None,
    release: str | None = None,
    arch: str | None = None,
    statuses: Collection[BuildStatus] = (),
    results: Collection[BuildResult] = (),
    limit: int | None = None,
) -> list[Build]:
    """Return the builds that fit, newest first, after a look for builders that died."""
    store = open_store(workspace)
    recover(workspace, store)
    return store.find(
        project=project,
        release=release,
        arch=arch,
        statuses=statuses,
        results=results,
        limit=limit,
    )


def get(workspace: Workspace, build_id: int) -> Build:
    """Return one build, after a look for builders that died; raises NotFoundError."""
    store = open_store(workspace)
    recover(workspace, store)
    return store.get(build_id)


def recover(workspace: Workspace, store: Store, *, clock: Callable[[], datetime] = now_utc) -> None:
    """Put builds back into the queue that should be running but whose lock is free.

    That is the machine's fault, and counts as one of a build's retries: what kills every builder
    is not tried for ever.
    """
    for build in store.find(statuses=[BuildStatus.RUNNING]):
        lock = folder_of(workspace, build.id).lock
        if files.is_locked(lock):
            continue
        with suppress(CoreImageError), files.lock(lock, purpose="looking for its builder"):
            now = clock()
            lost = end_of(build, now=now, result=BuildResult.ERROR, message=KILLED)
            # What its builder did since we asked is refused to us by the store.
            settle(workspace, store, lost, build_id=build.id, at_once=True)


def end_of(
    build: Build,
    *,
    now: datetime,
    result: BuildResult | None,
    message: str = "",
    exit_code: int | None = None,
) -> Attempt:
    """Return the running attempt of a build as one that is over."""
    return Attempt(
        number=build.attempt,
        worker=build.worker,
        started_at=build.started_at or build.created_at,
        finished_at=now,
        result=result,
        message=message,
        exit_code=exit_code,
    )


def settle(
    workspace: Workspace,
    store: Store,
    ended: Attempt,
    *,
    build_id: int,
    requeue: bool = False,
    at_once: bool = False,
) -> Build:
    """Record an attempt that came to nothing: the build is over, or comes again after a while.

    With `requeue` it comes again at once, which is none of its retries; with `at_once` it does not
    wait for a retry. The caller holds the build's lock.
    """
    settings = workspace.settings.farm
    folder = folder_of(workspace, build_id)
    build = store.get(build_id)
    if build.status is not BuildStatus.RUNNING or build.attempt != ended.number:
        return build
    folder.discard()
    if requeue and not build.abort_asked:
        return store.requeue(build_id, ended, not_before=None, counts=False)
    is_retried = ended.result is BuildResult.ERROR and build.retries < settings.retries
    if is_retried and not build.abort_asked:
        later = ended.finished_at + delay(settings, build.retries)
        return store.requeue(build_id, ended, not_before=None if at_once else later)
    log.pack(folder, build.request)
    if ended.result is None or build.abort_asked:
        return store.abort_running(build_id, replace(ended, result=None))
    return store.complete(build_id, ended)


def delay(settings: FarmSettings, retries: int) -> timedelta:
    """Return how long a build waits that was retried so often before."""
    return timedelta(seconds=settings.retry_delay * 2**retries)


def abort(workspace: Workspace, build_id: int) -> Build:
    """End a build and return it; one that was aborted before is returned as it is.

    Raises CoreImageError when it has ended otherwise, BusyError when it does not end in time.
    """
    store = open_store(workspace)
    grace = workspace.settings.farm.abort_grace + _CLEANING_TIME
    deadline = time.monotonic() + grace
    asked = False
    while True:
        recover(workspace, store)
        build = store.get(build_id)
        if build.status.finished:
            if asked or build.status is BuildStatus.ABORTED:
                return build
            raise CoreImageError(f"build '{build_id}' has ended already: {build.label}")
        if time.monotonic() >= deadline:
            raise BusyError(f"build '{build_id}' does not end, it is run by '{build.worker}'")
        if build.abort_asked:
            time.sleep(_POLL)
        else:
            # Its status may change at any moment; then the next look sees another one.
            with suppress(CoreImageError):
                ask_abort(workspace, build_id, store=store)
                asked = True


def ask_abort(workspace: Workspace, build_id: int, *, store: Store | None = None) -> Build:
    """End a build that waits, or ask the builder of one that runs to end it; return at once."""
    store = store or open_store(workspace)
    if store.get(build_id).status is BuildStatus.RUNNING:
        return store.ask_abort(build_id)
    return store.abort_pending(build_id, now=now_utc(), message=CANCELLED)


def retry(workspace: Workspace, build_id: int) -> Build:
    """Put a build that is over back into the queue; CoreImageError when it cannot be."""
    store = open_store(workspace)
    recover(workspace, store)
    return store.retry(build_id)


def prioritise(workspace: Workspace, build_id: int, priority: int) -> Build:
    """Change the priority of a build that is pending; CoreImageError when it is not."""
    store = open_store(workspace)
    recover(workspace, store)
    return store.prioritise(build_id, priority)
