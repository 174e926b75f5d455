"""Builds carried out here: the ones that are asked for, and whatever waits in the queue."""

import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import CoreImageError
from coreimage.farm import queue
from coreimage.farm.attempt import Running
from coreimage.farm.blame import ending
from coreimage.farm.crew import Crew
from coreimage.farm.folder import folder_of
from coreimage.farm.store import Store
from coreimage.farm.voice import Narrator, Voice
from coreimage.lib.progress import Progress
from coreimage.model.build import Build, BuildRequest, BuildStatus, Subproject

RootfsCommand = Callable[[BuildRequest, Path, Sequence[str]], Sequence[str]]
"""Returns the argv that builds a request into a directory, with further options."""

_QUEUE_INTERVAL = 1.0


def rootfs_argv(request: BuildRequest, output: Path, extra: Sequence[str] = ()) -> list[str]:
    """Return the command that builds the root filesystem of a request into a directory."""
    return [
        *[sys.executable, "-m", "coreimage", "rootfs", "build", request.project],
        *["--release", request.release],
        *["--arch", request.arch],
        *(["--device", request.device] if request.device else []),
        *["--subproject", request.subproject or Subproject.NONE],
        *["--output", str(output)],
        *extra,
    ]


def argv_of(
    workspace: Workspace, build: Build, command: RootfsCommand, more: Sequence[str] = ()
) -> Sequence[str]:
    """Return the command of a build, with the options that its record says, and further ones.

    Its users and groups must be those of the newest build of its kind, unless it says `new_ids`.
    """
    names = build.extra.get("extra_archives", [])
    options = [word for name in names for word in ("--extra-archive", str(name))]
    earlier = None if build.extra.get("new_ids") else _earlier_record(workspace, build)
    if earlier is not None:
        options += ["--ids-of", str(earlier)]
    return command(build.request, folder_of(workspace, build.id).partial, [*options, *more])


def _earlier_record(workspace: Workspace, build: Build) -> Path | None:
    """Return the record of the newest successful build of the same project, series and target."""
    asked = build.request
    found = queue.open_store(workspace).newest_of(asked.project, asked.series, asked.target)
    if found is None:
        return None
    place = folder_of(workspace, found.id).artifacts
    records = (place / name for name in found.artifacts if name.endswith(".build.json"))
    return next((each for each in records if each.is_file()), None)


@dataclass(slots=True, kw_only=True)
class Job:
    """A build that this process sees through, with its command; `error` says how it ended."""

    build: Build
    argv: Sequence[str]
    voice: Voice
    error: CoreImageError | None = None
    _narrator: Narrator | None = None

    def listen(self, workspace: Workspace) -> None:
        """Tell what a build says that another process carries out."""
        if self._narrator is None:
            self._narrator = Narrator(folder_of(workspace, self.build.id), self.voice)
        self._narrator.new_lines()


def run_build(
    workspace: Workspace,
    build_id: int,
    *,
    argv: Sequence[str],
    progress: Progress,
    echo: Callable[[str], None] | None = None,
    clock: Callable[[], datetime] = queue.now_utc,
) -> Build:
    """See one build through and return it with its artifacts.

    Lines of the log that begin a stage go to `progress`, the others to `echo`. Errors of this
    machine are retried as coreimage.toml says. A failure is raised with the program's exit code.
    """
    build = queue.get(workspace, build_id)
    if build.status.finished:
        raise CoreImageError(
            f"build '{build_id}' is not waiting: {build.label}",
            hint=f"have it tried again: coreimage build retry {build_id}",
        )
    job = Job(build=build, argv=argv, voice=Voice(progress=progress, echo=echo))
    with closing(see_through(workspace, [job], parallel=1, clock=clock)) as ended:
        for _ in ended:
            pass
    if job.error is not None:
        raise job.error
    return job.build


def see_through(
    workspace: Workspace,
    jobs: Sequence[Job],
    *,
    parallel: int,
    clock: Callable[[], datetime] = queue.now_utc,
) -> Generator[Job, None, None]:
    """Carry builds out, up to `parallel` at once, and yield each when it is over.

    A build that another process has taken is waited for. When this process is interrupted, or the
    generator closed, the builds that it carries out are aborted.
    """
    store = queue.open_store(workspace)
    rest = {job.build.id: job for job in jobs}
    with Crew(workspace, clock=clock) as crew:
        while rest:
            for number, job in list(rest.items()):
                if number in crew:
                    continue
                job.build = store.get(number)
                if job.build.status.finished:
                    job.error = job.error or ending(folder_of(workspace, number), job.build)
                    job.error = None if job.build.succeeded else job.error
                    yield rest.pop(number)
                elif job.build.status is BuildStatus.RUNNING:
                    job.listen(workspace)
                    queue.recover(workspace, store, clock=clock)
                elif len(crew) < parallel and _is_due(job.build, queue.now_utc()):
                    crew.take(job.build, argv=job.argv, voice=job.voice)
            for each in crew.wait() if rest else ():
                job = rest[each.build.id]
                job.error = each.error
                _tell_retry(each, job.voice)


def run_queue(
    workspace: Workspace,
    *,
    arches: Collection[str],
    parallel: int,
    command: RootfsCommand,
    voice_of: Callable[[Build], Voice],
    until_idle: bool = False,
) -> Generator[Build, None, None]:
    """Carry out what waits in the queue, by priority and age, and yield each build that is over.

    Goes on for ever, or with `until_idle` until nothing waits for these `arches`. When this process
    is interrupted, the builds that it carries out go back into the queue.
    """
    store = queue.open_store(workspace)
    next_look = 0.0
    with Crew(workspace, requeue=True) as crew:
        while True:
            if time.monotonic() >= next_look and len(crew) < parallel:
                next_look = time.monotonic() + _QUEUE_INTERVAL
                queue.recover(workspace, store)
                for build in store.due(now=queue.now_utc(), arches=arches, limit=parallel):
                    if len(crew) < parallel:
                        argv = argv_of(workspace, build, command)
                        crew.take(build, argv=argv, voice=voice_of(build))
                if until_idle and not crew and not _is_anything_left(store, arches):
                    return
            for each in crew.wait():
                next_look = 0.0
                _tell_retry(each, voice_of(each.build))
                if each.build.status.finished:
                    yield each.build


def _is_due(build: Build, now: datetime) -> bool:
    return build.not_before is None or build.not_before <= now


def _is_anything_left(store: Store, arches: Collection[str]) -> bool:
    pending = store.find(statuses=[BuildStatus.PENDING])
    return any(each.request.arch in arches for each in pending)


def _tell_retry(ended: Running, voice: Voice) -> None:
    build = ended.build
    if build.status is BuildStatus.PENDING and build.attempts:
        last = build.attempts[-1]
        again = f", again at {build.not_before:%H:%M:%S} UTC" if build.not_before else ""
        voice.note(f"attempt {last.number} failed: {last.message}{again}")
