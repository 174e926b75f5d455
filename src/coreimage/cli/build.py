"""`coreimage build`: ask for root filesystem builds, carry them out, watch them, end them."""

import json
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli import console
from coreimage.cli.console import JsonOption, WorkspaceOption
from coreimage.cli.rootfs_options import (
    BuiltDeviceOption,
    ExtraOption,
    SubprojectOption,
    extra_archives,
    given_arch,
)
from coreimage.cli.space import host_arch, load_space
from coreimage.cli.watch import Watch
from coreimage.errors import CoreImageError, TerminatedError, UsageError
from coreimage.model.build import (
    LABELS,
    Build,
    BuildResult,
    BuildStatus,
    Subproject,
    status_of_label,
)

if TYPE_CHECKING:
    from coreimage.config import Workspace

app = typer.Typer(help="Build root filesystems and look at builds.", no_args_is_help=True)

BuildArgument = Annotated[int, typer.Argument(metavar="ID", help="The build's number.")]
_LIMIT = 1_000_000  # the database keeps numbers of 64 bits, and nobody needs them
PriorityOption = Annotated[
    int, typer.Option(min=-_LIMIT, max=_LIMIT, help="Builds of higher priority begin first.")
]

# What could steer a terminal, and has no place in a log.
_STEERING = bytes({*range(32), 127} - set(b"\t\n\r"))


@app.command()
def request(
    project: Annotated[str, typer.Argument(help="The image definition to build.")],
    *,
    release: Annotated[str | None, typer.Option(help="The release, such as 13 or 24.04.")] = None,
    arch: Annotated[
        str | None, typer.Option(help="The architecture; by default this machine's.")
    ] = None,
    device: BuiltDeviceOption = None,
    subproject: SubprojectOption = None,
    extra_archive: ExtraOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the build's number and return at once.")
    ] = False,
    queued: Annotated[
        bool, typer.Option("--queue", help="Leave the build to 'coreimage build run'.")
    ] = False,
    new_ids: Annotated[
        bool,
        typer.Option(
            "--new-ids", help="Let users and groups have other numbers than in earlier builds."
        ),
    ] = False,
    priority: PriorityOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a root filesystem and wait for it.

    With --detach it is built in the background, with --queue when it is its turn. Which build is
    first in the queue is decided by priority, then by age.

    Example: coreimage build request debian-core --release 13 --arch amd64
    """
    from coreimage.farm.folder import folder_of
    from coreimage.pipeline import builds
    from coreimage.rootfs.definitions.definition import definition_places, select

    if queued and detach:
        raise UsageError(
            "--queue and --detach exclude each other",
            hint="leave one out: with --queue the build waits for 'coreimage build run', with "
            "--detach it begins at once",
        )
    space = load_space(workspace)
    places = definition_places(space.root)
    arch = given_arch(project, arch, device, places)
    selection = select(project, release, arch, places, device, subproject=subproject)
    extra_archives(extra_archive, space, selection)  # complain now, not when it is built
    extra = {"extra_archives": extra_archive or [], **({"new_ids": True} if new_ids else {})}
    (build,) = builds.request_builds(space, [selection], priority=priority, extra=extra)
    if queued:
        console.print_json(_fields(build)) if as_json else print(build.id)
        return
    if detach:
        _start_detached(space, build)
        console.print_json(_fields(build)) if as_json else print(build.id)
        return
    build = _wait_for(space, build)
    if as_json:
        console.print_json(_fields(build))
        return
    print(f"build {build.id}: {build.label} in {_duration(build)}")
    for name in build.artifacts:
        print(folder_of(space, build.id).artifacts / name)


def _start_detached(workspace: "Workspace", build: Build) -> None:
    from coreimage.farm.detach import detach
    from coreimage.farm.executor import argv_of, rootfs_argv, run_build
    from coreimage.farm.folder import folder_of
    from coreimage.lib.progress import Silent

    argv = argv_of(workspace, build, rootfs_argv)
    detach(
        lambda: run_build(workspace, build.id, argv=argv, progress=Silent()),
        log=folder_of(workspace, build.id).log,
    )


def _wait_for(workspace: "Workspace", build: Build) -> Build:
    from coreimage.farm import queue
    from coreimage.farm.executor import argv_of, rootfs_argv, run_build
    from coreimage.farm.folder import folder_of

    folder = folder_of(workspace, build.id)
    print(f"build {build.id}: log in '{folder.log}'", file=sys.stderr, flush=True)
    watch = Watch()
    try:
        return run_build(
            workspace,
            build.id,
            argv=argv_of(workspace, build, rootfs_argv),
            progress=watch,
            echo=watch.line,
        )
    except (KeyboardInterrupt, TerminatedError):
        # Before the build has begun there is nobody else who would end it.
        with suppress(CoreImageError):
            queue.ask_abort(workspace, build.id)
        raise
    finally:
        watch.clear()


@app.command("list")
def list_(
    *,
    status: Annotated[BuildStatus | None, typer.Option(help="Only builds that are so far.")] = None,
    result: Annotated[
        BuildResult | None, typer.Option(help="Only builds with this result.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Status and result in Launchpad's words, such as 'Failed to build'."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only builds of this project.")] = None,
    release: Annotated[str | None, typer.Option(help="Only builds of this release.")] = None,
    arch: Annotated[str | None, typer.Option(help="Only builds for this architecture.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List builds, the newest first.

    Example: coreimage build list --result failure
    """
    from coreimage.farm import queue

    statuses, results = [status] if status else [], [result] if result else []
    if state is not None:
        status, result = parse_state(state)
        statuses, results = [status], [result] if result else []
    builds = queue.list_builds(
        load_space(workspace),
        project=project,
        release=release,
        arch=arch,
        statuses=statuses,
        results=results,
        limit=limit,
    )
    if as_json:
        console.print_json([_fields(build) for build in builds])
        return
    console.print_table(
        "Builds",
        [
            "build",
            "project",
            "release",
            "arch",
            "version",
            "priority",
            "state",
            "requested",
            "took",
        ],
        [_row(build) for build in builds],
    )


@app.command()
def show(
    build_id: BuildArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Show one build.

    Example: coreimage build show 7
    """
    from coreimage.farm import queue
    from coreimage.farm.folder import folder_of

    space = load_space(workspace)
    build = queue.get(space, build_id)
    if as_json:
        console.print_json(_fields(build))
        return
    folder = folder_of(space, build_id)
    asked = build.request
    lines = {
        "build": str(build.id),
        "project": asked.project,
        "release": asked.release,
        "arch": asked.arch,
        "device": asked.device,
        "subproject": asked.subproject or Subproject.NONE.value,
        "archives": ", ".join(map(str, build.extra.get("extra_archives", []))),
        "new ids": "yes" if build.extra.get("new_ids") else "",
        "version": asked.version,
        "status": build.status.value,
        "result": build.result.value if build.result else "",
        "state": build.label,
        "priority": str(build.priority),
        "message": build.message,
        "requested": _time(build.created_at),
        "worker": build.worker,
        "not before": _time(build.not_before) if build.not_before else "",
        "took": _duration(build),
        "log": str(folder.log if folder.log.exists() else folder.packed_log or ""),
    }
    for name, value in lines.items():
        if value:
            print(f"{name + ':':<12}{value}")
    for each in build.attempts:
        came = each.result.value if each.result else "aborted"
        words = [f"{each.number} by {each.worker}", came, each.message]
        print(f"{'attempt:':<12}{', '.join(filter(None, words))}")
    for name in build.artifacts:
        print(f"{'artifact:':<12}{folder.artifacts / name}")


@app.command()
def log(
    build_id: BuildArgument,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the build has ended.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Print the log of a build, also while it runs.

    Example: coreimage build log 7 --follow
    """
    from coreimage.farm import log as logs
    from coreimage.farm import queue
    from coreimage.farm.folder import folder_of

    space = load_space(workspace)
    queue.get(space, build_id)
    folder = folder_of(space, build_id)
    unwanted = _STEERING if sys.stdout.isatty() else b""
    for chunk in logs.follow(folder) if follow else logs.read_log(folder):
        sys.stdout.buffer.write(chunk.translate(None, unwanted))
        sys.stdout.buffer.flush()


@app.command()
def abort(
    build_id: BuildArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """End a build that waits or runs, with all its processes.

    Example: coreimage build abort 7
    """
    from coreimage.farm import queue

    build = queue.abort(load_space(workspace), build_id)
    _print_changed(build, build.label, as_json=as_json)


app.command("cancel", hidden=True)(abort)


@app.command()
def retry(
    build_id: BuildArgument, *, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Put a build that failed or was aborted back into the queue.

    Example: coreimage build retry 7
    """
    from coreimage.pipeline import builds

    build = builds.retry_build(load_space(workspace), build_id)
    _print_changed(build, build.label, as_json=as_json)


@app.command()
def prioritise(
    build_id: BuildArgument,
    priority: Annotated[
        int,
        typer.Argument(min=-_LIMIT, max=_LIMIT, help="Higher ones begin first; 0 is usual."),
    ],
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the priority of a build that waits in the queue.

    Example: coreimage build prioritise 7 10
    """
    from coreimage.farm import queue

    build = queue.prioritise(load_space(workspace), build_id, priority)
    _print_changed(build, f"priority {build.priority}", as_json=as_json)


@app.command("run")
def run_(
    *,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="How many builds at once; by default as coreimage.toml says."),
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Return when nothing waits any more.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Carry out builds that wait in the queue, until interrupted.

    Takes the builds of the highest priority first, of these the oldest, for architectures whose
    programs run on this machine. A build that its machine fails, or whose runner was killed, is
    tried again, as often as coreimage.toml allows. When this command is interrupted, what it was
    building goes back into the queue. Prints a line for each build that is over.

    Example: coreimage build run --until-idle
    """
    from contextlib import closing

    from coreimage.farm import executor
    from coreimage.farm.voice import Voice
    from coreimage.lib.arches import buildable, known_arches

    space = load_space(workspace)
    watch = Watch()

    def voice_of(build: Build) -> Voice:
        asked = build.request
        prefix = f"{build.id} {asked.project} {asked.target}: "
        return Voice(progress=watch, echo=watch.line, prefix=prefix)

    runner = executor.run_queue(
        space,
        arches=buildable(known_arches(), host=host_arch()),
        parallel=parallel or space.settings.farm.parallel,
        command=executor.rootfs_argv,
        voice_of=voice_of,
        until_idle=until_idle,
    )
    with closing(runner) as ended:
        for build in ended:
            watch.clear()
            print(*_row(build), sep="\t", flush=True)


def parse_state(text: str) -> tuple[BuildStatus, BuildResult | None]:
    """Return status and result from Launchpad's words, in any case; raises UsageError."""
    wanted = text.strip().casefold()
    for label in LABELS:
        if wanted == label.casefold():
            return status_of_label(label)
    raise UsageError(
        f"there is no build state '{text}'",
        hint="the states are " + ", ".join(f"'{label}'" for label in LABELS),
    )


def _print_changed(build: Build, what: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(_fields(build))
    else:
        print(f"build {build.id}: {what}")


def _fields(build: Build) -> Any:
    return {**json.loads(build.to_json()), "state": build.label}


def _row(build: Build) -> list[str]:
    asked = build.request
    return [
        str(build.id),
        asked.project,
        asked.release,
        asked.target,
        asked.version,
        str(build.priority),
        build.label,
        _time(build.created_at),
        _duration(build),
    ]


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _duration(build: Build) -> str:
    if build.started_at is None or build.finished_at is None:
        return ""
    seconds = round((build.finished_at - build.started_at).total_seconds())
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
