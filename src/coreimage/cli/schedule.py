"""coreimage schedule: image sets that are made by themselves."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.cli.console import (
    DryRunOption,
    JsonOption,
    WorkspaceOption,
    print_json,
    print_table,
    report,
)
from coreimage.cli.space import host_arch, load_space
from coreimage.cli.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coreimage.config import ScheduleSettings, Workspace
    from coreimage.errors import CoreImageError
    from coreimage.farm.schedule import Memory, Ran
    from coreimage.schedule import Outlook

app = typer.Typer(help="Image sets that are made by themselves.", no_args_is_help=True)

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Only these; by default all.")
]


@app.command("list")
def list_(as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the schedules of coreimage.toml: when they were run last, and when they are next.

    Of one that cannot be run as it is, the complaint is on stderr, and the exit code its own.

    Example: coreimage schedule list
    """
    from coreimage import schedule
    from coreimage.farm.schedule import Memories

    space = load_space(workspace)
    memories = Memories(space.state)
    wanted, host = schedule.entries(space), host_arch()
    problems = {
        name: schedule.problem(space, name, each, host=host) for name, each in wanted.items()
    }
    found = {
        name: _fields(name, entry, memories.load(name), problems[name])
        for name, entry in wanted.items()
    }
    if as_json:
        print_json(list(found.values()))
        _complain(problems.values())
        return
    columns = ["name", "project", "release", "arches", "when", "last run", "result", "next"]
    print_table(
        "Schedules",
        columns,
        [[_cell(each[column.replace(" ", "_")]) for column in columns] for each in found.values()],
    )
    _complain(problems.values())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The schedule's name.")],
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show one schedule.

    Example: coreimage schedule show nightly
    """
    from coreimage import schedule
    from coreimage.farm.schedule import Memories

    space = load_space(workspace)
    (entry,) = schedule.entries(space, [name]).values()
    problem = schedule.problem(space, name, entry, host=host_arch())
    fields = _fields(name, entry, Memories(space.state).load(name), problem)
    if as_json:
        print_json(fields)
        return
    for key, value in fields.items():
        if _cell(value):
            print(f"{key.replace('_', ' ') + ':':<12}{_cell(value)}")


@app.command()
def run(
    names: NamesArgument = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Make the image sets that are due, publish them, and import them into their channels.

    Times that were missed, because the machine slept, count as one. Nothing is run twice: what
    another process runs is left to it. A run that was interrupted is taken up again. To be called
    by a timer, as often as is convenient. With --dry-run it says what is due, and what the others
    wait for; the exit code is that of the first one that cannot be run as it is.

    Example: coreimage schedule run --dry-run
    """
    from coreimage import schedule
    from coreimage.farm.schedule import State

    space = load_space(workspace)
    wanted = schedule.entries(space, names or ())
    if dry_run:
        _look(space, wanted, as_json=as_json)
        return
    ran: list[Ran] = []
    watch = Watch()

    def complain(target: str, error: "CoreImageError") -> None:
        watch.clear()
        print(f"coreimage: {target} was not built", file=sys.stderr)
        report(error)

    for each in schedule.run(
        space,
        wanted,
        host=host_arch(),
        clock=_now,
        progress=watch,
        echo=watch.line,
        complain=complain,
    ):
        watch.clear()
        ran.append(each)
        if each.error is not None:
            print(f"coreimage: schedule '{each.name}' failed", file=sys.stderr)
            report(each.error)
        elif each.state is State.DONE and not as_json:
            print(f"{each.name}\t{each.state}\t{each.reason}")
    if as_json:
        print_json([_outcome(each) for each in ran])
    for each in ran:
        if each.error is not None:
            raise typer.Exit(each.error.exit_code)


def _look(space: "Workspace", wanted: "Mapping[str, ScheduleSettings]", *, as_json: bool) -> None:
    from coreimage import schedule

    found = []
    for each in schedule.look(space, wanted, host=host_arch(), clock=_now):
        found.append(each)
        if not as_json:
            print("\t".join(filter(None, (each.name, each.state, each.reason))), flush=True)
    if as_json:
        print_json([_outlook(each) for each in found])
    _complain(each.error for each in found)


def _complain(problems: "Iterable[CoreImageError | None]") -> None:
    """Tell all problems, and end with the exit code of the first."""
    found = [each for each in problems if each is not None]
    sys.stdout.flush()
    for each in found:
        report(each)
    if found:
        raise typer.Exit(found[0].exit_code)


def _outlook(each: "Outlook") -> dict[str, Any]:
    return {
        "name": each.name,
        "state": each.state,
        "reason": each.reason,
        "next": each.next.isoformat() if each.next else None,
    }


def _outcome(each: "Ran") -> dict[str, Any]:
    return {
        "name": each.name,
        "state": each.state,
        "reason": each.reason,
        "error": each.error.message if each.error else None,
    }


def _now() -> datetime:
    return datetime.now(UTC)


def _fields(
    name: str,
    entry: "ScheduleSettings",
    memory: "Memory | None",
    problem: "CoreImageError | None",
) -> dict[str, Any]:
    from coreimage.farm.schedule import next_time

    when = [f"cron {entry.cron}"] if entry.cron else []
    when += ["when an input changed"] if entry.when_changed else []
    return {
        "name": name,
        "project": entry.project,
        "release": entry.release,
        "arches": list(entry.arches),
        "subproject": entry.subproject,
        "when": when,
        "channel": entry.channel,
        "force": entry.force,
        "last_run": memory.started_at if memory else None,
        "finished": memory.finished_at if memory else None,
        "result": memory.result.value if memory else "",
        "message": memory.message if memory else "",
        "next": next_time(entry.cron, _now()) if entry.cron else None,
        "problem": problem.message if problem else "",
    }


def _cell(value: Any) -> str:
    match value:
        case None | False:
            return ""
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case list():
            return ", ".join(value)
        case _:
            return str(value)
