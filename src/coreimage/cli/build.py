"""`coreimage build`: ask for root filesystem builds, watch them, end them."""

import json
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli import console
from coreimage.cli.console import JsonOption, WorkspaceOption
from coreimage.cli.space import host_arch, load_space
from coreimage.cli.watch import Watch
from coreimage.errors import CoreImageError, TerminatedError, UsageError
from coreimage.model.build import Build, BuildState

if TYPE_CHECKING:
    from coreimage.config import Workspace

app = typer.Typer(help="Build root filesystems and look at builds.", no_args_is_help=True)

BuildArgument = Annotated[int, typer.Argument(metavar="ID", help="The build's number.")]

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
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the build's number and return at once.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a root filesystem and wait for it.

    Example: coreimage build request debian-core --release 13 --arch amd64
    """
    from coreimage.farm import queue
    from coreimage.farm.folder import folder_of
    from coreimage.rootfs.definition import definition_places, select

    space = load_space(workspace)
    places = definition_places(space.root)
    selection = select(project, release, arch or host_arch(), places)
    (build,) = queue.request(
        space,
        project=selection.definition.name,
        release=selection.release_name,
        series=selection.release.series,
        arches=[selection.arch],
    )
    if detach:
        _start_detached(space, build)
        console.print_json(_fields(build)) if as_json else print(build.id)
        return
    build = _wait_for(space, build)
    if as_json:
        console.print_json(_fields(build))
        return
    print(f"build {build.id}: {build.state} in {_duration(build)}")
    for name in build.artifacts:
        print(folder_of(space, build.id).artifacts / name)


def _start_detached(workspace: "Workspace", build: Build) -> None:
    from coreimage.farm.detach import detach
    from coreimage.farm.executor import rootfs_argv, run_build
    from coreimage.farm.folder import folder_of
    from coreimage.lib.progress import Silent

    folder = folder_of(workspace, build.id)
    argv = rootfs_argv(build.request, folder.partial)
    detach(
        lambda: run_build(workspace, build.id, argv=argv, progress=Silent()),
        log=folder.log,
    )


def _wait_for(workspace: "Workspace", build: Build) -> Build:
    from coreimage.farm import queue
    from coreimage.farm.executor import rootfs_argv, run_build
    from coreimage.farm.folder import folder_of

    folder = folder_of(workspace, build.id)
    print(f"build {build.id}: log in '{folder.log}'", file=sys.stderr, flush=True)
    watch = Watch()
    try:
        return run_build(
            workspace,
            build.id,
            argv=rootfs_argv(build.request, folder.partial),
            progress=watch,
            echo=watch.line,
        )
    except (KeyboardInterrupt, TerminatedError):
        # Before the build has begun there is nobody else who would end it.
        with suppress(CoreImageError):
            queue.cancel(workspace, build.id)
        raise
    finally:
        watch.clear()


@app.command("list")
def list_(
    *,
    state: Annotated[
        str | None, typer.Option(help="Only builds of this state, such as 'Failed to build'.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only builds of this project.")] = None,
    release: Annotated[str | None, typer.Option(help="Only builds of this release.")] = None,
    arch: Annotated[str | None, typer.Option(help="Only builds for this architecture.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List builds, the newest first.

    Example: coreimage build list --state "Failed to build"
    """
    from coreimage.farm import queue

    builds = queue.list_builds(
        load_space(workspace),
        project=project,
        release=release,
        arch=arch,
        states=[] if state is None else [parse_state(state)],
        limit=limit,
    )
    if as_json:
        console.print_json([_fields(build) for build in builds])
        return
    console.print_table(
        "Builds",
        ["build", "project", "release", "arch", "version", "state", "requested", "took"],
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
    lines = {
        **dict(
            zip(
                ("build", "project", "release", "arch", "version", "state"),
                _row(build),
                strict=False,
            )
        ),
        "message": build.message,
        "requested": _time(build.created_at),
        "took": _duration(build),
        "log": str(folder.log) if folder.log.exists() else "",
    }
    for name, value in lines.items():
        if value:
            print(f"{name + ':':<11}{value}")
    for name in build.artifacts:
        print(f"{'artifact:':<11}{folder.artifacts / name}")


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
def cancel(build_id: BuildArgument, *, workspace: WorkspaceOption = None) -> None:
    """End a build that waits or runs.

    Example: coreimage build cancel 7
    """
    from coreimage.farm import queue

    build = queue.cancel(load_space(workspace), build_id)
    print(f"build {build.id}: {build.state}")


def parse_state(text: str) -> BuildState:
    """Return a state from its words or its short name, in any case; raises UsageError."""
    wanted = text.strip().casefold()
    for state in BuildState:
        if wanted in (state.value.casefold(), state.name.casefold().replace("_", " ")):
            return state
    raise UsageError(
        f"there is no build state '{text}'",
        hint="the states are " + ", ".join(f"'{state}'" for state in BuildState),
    )


def _fields(build: Build) -> Any:
    return json.loads(build.to_json())


def _row(build: Build) -> list[str]:
    asked = build.request
    return [
        str(build.id),
        asked.project,
        asked.release,
        asked.arch,
        asked.version,
        build.state.value,
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
