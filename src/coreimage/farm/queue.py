"""The queue: requests go in, builds are found again, those whose builder died are noticed."""

import json
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.errors import BusyError, CoreImageError, RightsError
from coreimage.farm.folder import PURPOSE, BuildFolder, folder_of, highest_id, record
from coreimage.farm.store import Store
from coreimage.lib import files
from coreimage.model.build import Build, BuildState

KILLED = "the builder was killed"
CANCELLED = "cancelled before it began"
_RUNNING = (BuildState.BUILDING, BuildState.UPLOADING)
# How long a builder may take to end its program and to clean up, in seconds.
_CANCEL_TIME = 30.0
_POLL = 0.2


def now_utc() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def open_store(workspace: Workspace) -> Store:
    """Return the store of a workspace, which keeps each build.json up to date."""
    return Store(
        workspace.state / "coreimage.sqlite", record=lambda build: record(workspace, build)
    )


def request(
    workspace: Workspace,
    *,
    project: str,
    release: str,
    series: str,
    arches: Sequence[str],
    fingerprint: str = "",
    taken: Collection[str] = (),
    extra: Mapping[str, Any] | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> list[Build]:
    """Queue the builds of one image set, one for each arch, and return them.

    `taken` are versions that the set must not have because they are published already; `extra`
    is what else the record of each build is to say.
    """
    store = open_store(workspace)
    fail_lost(workspace, store, clock=clock)
    return store.request(
        project=project,
        release=release,
        series=series,
        arches=arches,
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
    states: Collection[BuildState] = (),
    limit: int | None = None,
) -> list[Build]:
    """Return the builds that fit, newest first, after a look for builders that died."""
    store = open_store(workspace)
    fail_lost(workspace, store)
    return store.find(project=project, release=release, arch=arch, states=states, limit=limit)


def get(workspace: Workspace, build_id: int) -> Build:
    """Return one build, after a look for builders that died; raises NotFoundError."""
    store = open_store(workspace)
    fail_lost(workspace, store)
    return store.get(build_id)


def fail_lost(
    workspace: Workspace, store: Store, *, clock: Callable[[], datetime] = now_utc
) -> None:
    """Mark builds as failed that should be running but whose lock is free."""
    for build in store.find(states=_RUNNING):
        folder = folder_of(workspace, build.id)
        with suppress(BusyError), files.lock(folder.lock, purpose="looking for its builder"):
            # The builder may have ended well since we asked: change() leaves that alone.
            store.change(build.id, lambda build: _ended(build, BuildState.FAILED, KILLED, clock()))
            folder.discard_partial()


def _ended(build: Build, state: BuildState, message: str, now: datetime) -> Build:
    return replace(build, state=state, message=message, finished_at=now)


def cancel(workspace: Workspace, build_id: int) -> Build:
    """End a build and return it; one that was cancelled before is returned as it is.

    Raises CoreImageError when it has ended otherwise, BusyError when it does not end in time,
    RightsError when its builder is another user's.
    """
    store = open_store(workspace)
    folder = folder_of(workspace, build_id)
    deadline = time.monotonic() + _CANCEL_TIME
    signalled = 0
    while True:
        fail_lost(workspace, store)
        build = store.get(build_id)
        if build.state is BuildState.CANCELLED:
            return build
        if build.state.finished and not signalled:
            raise CoreImageError(f"build '{build_id}' has ended already: {build.state}")
        if build.state.finished:
            return build
        if time.monotonic() >= deadline:
            raise BusyError(f"build '{build_id}' does not end, its builder is process {signalled}")
        if build.state is BuildState.NEEDS_BUILDING:
            _cancel_waiting(store, folder, build_id)
        elif not signalled:
            signalled = _signal_holder(folder.lock)
        time.sleep(_POLL)


def _cancel_waiting(store: Store, folder: BuildFolder, build_id: int) -> None:
    def end(build: Build) -> Build:
        if build.state is not BuildState.NEEDS_BUILDING:
            return build
        return _ended(build, BuildState.CANCELLED, CANCELLED, now_utc())

    with suppress(BusyError), files.lock(folder.lock, purpose="cancelling"):
        store.change(build_id, end)


def _signal_holder(lock: Path) -> int:
    """Send SIGTERM to the process that holds a lock and return its id, 0 when there is none.

    The id in the lock file may be an old one: a signal goes only to a process that has the very
    file open, by a descriptor that cannot come to mean another process in the meantime.
    """
    holder = _noted_holder(lock)
    if holder is None:
        return 0
    try:
        process = os.pidfd_open(holder)
    except ProcessLookupError:
        return 0
    try:
        if not _has_open(holder, lock):
            return 0
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except (ProcessLookupError, FileNotFoundError):
        return 0  # it has ended in the meantime
    except PermissionError:
        raise RightsError(
            f"process {holder}, which holds '{lock}', belongs to another user",
            hint="cancel the build as that user",
        ) from None
    finally:
        os.close(process)
    return holder


def _noted_holder(lock: Path) -> int | None:
    try:
        note = json.loads(lock.read_text())
        return int(note["pid"]) if note["purpose"] == PURPOSE else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has_open(process_id: int, path: Path) -> bool:
    for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(FileNotFoundError):
            if descriptor.samefile(path):
                return True
    return False
