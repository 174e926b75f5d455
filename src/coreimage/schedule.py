"""The schedule at work: entries of coreimage.toml become image sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from coreimage import imageset
from coreimage.config import ScheduleSettings, Workspace
from coreimage.errors import CoreImageError, NotFoundError, TerminatedError
from coreimage.farm import executor
from coreimage.farm.schedule import (
    Due,
    Memories,
    Ran,
    State,
    check_entries,
    decide,
    recall,
    run_due,
    upcoming,
)
from coreimage.lib.files import is_locked
from coreimage.lib.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What `run` would do with an entry now, and why; `next` is the next time of its calendar.

    FAILED with its error: an entry that cannot be run as it is.
    """

    name: str
    state: State
    reason: str
    next: datetime | None
    error: CoreImageError | None = None


def entries(workspace: Workspace, names: Sequence[str] = ()) -> dict[str, ScheduleSettings]:
    """Return the entries of coreimage.toml, or the named ones; ConfigError, NotFoundError."""
    found = dict(workspace.settings.schedules)
    check_entries(workspace)
    for name in names:
        if name not in found:
            raise NotFoundError(
                f"there is no schedule '{name}'",
                hint="the schedules are " + ", ".join(found)
                if found
                else "add [schedules.NAME] to coreimage.toml",
            )
    return {name: found[name] for name in names} if names else found


def order_of(entry: ScheduleSettings) -> imageset.Order:
    """Return what an entry asks for."""
    return imageset.Order(
        project=entry.project,
        release=entry.release,
        arches=entry.arches,
        subproject=entry.subproject,
        channel=entry.channel,
        extra_archives=entry.extra_archives,
    )


def problem(
    workspace: Workspace, name: str, entry: ScheduleSettings, *, host: str
) -> CoreImageError | None:
    """Return why an entry cannot be run as coreimage.toml has it, with its place; None if it can.

    Archives are not asked.
    """
    try:
        imageset.check(workspace, order_of(entry), host=host)
    except TerminatedError:
        raise
    except CoreImageError as error:
        return _named(workspace, name, error)
    return None


def _named(workspace: Workspace, name: str, error: CoreImageError) -> CoreImageError:
    text = f"{workspace.place('schedules', name)}: schedule '{name}': {error.message}"
    named = CoreImageError(text, hint=error.hint)
    named.exit_code = error.exit_code
    return named


def run(
    workspace: Workspace,
    wanted: Mapping[str, ScheduleSettings],
    *,
    host: str,
    clock: Callable[[], datetime],
    progress: Progress,
    echo: Callable[[str], None] | None = None,
    complain: Callable[[str, CoreImageError], None] = lambda _target, _error: None,
    command: executor.RootfsCommand = executor.rootfs_argv,
) -> Iterator[Ran]:
    """Make the image sets of the entries that are due, and yield what became of each entry."""

    def changed(_: str, entry: ScheduleSettings) -> Mapping[str, str]:
        return _changed(workspace, entry, host)

    def work(name: str, entry: ScheduleSettings, due: Due) -> None:
        progress.note(f"{name}: {due.reason}")
        always = entry.force or due.changed
        outcome = imageset.make_set(
            workspace,
            order_of(entry),
            when=imageset.When.ALWAYS if always else imageset.When.CHANGED,
            host=host,
            progress=progress,
            echo=echo,
            complain=complain,
            command=command,
            clock=clock,
        )
        complaint = outcome.complaint()
        if complaint is not None:
            raise complaint

    return run_due(wanted, Memories(workspace.state), clock=clock, changed=changed, work=work)


def look(
    workspace: Workspace,
    wanted: Mapping[str, ScheduleSettings],
    *,
    host: str,
    clock: Callable[[], datetime],
) -> Iterator[Outlook]:
    """Yield what `run` would do now with each entry; one that is broken hides no other.

    Nothing is written but the package lists of the archive, into the cache.
    """
    memories = Memories(workspace.state)
    for name, entry in wanted.items():
        now, running = clock(), is_locked(memories.entry_lock(name))
        memory = recall(entry, memories.load(name), now=now)
        state, reason, error = State.RUNNING, "", None
        if not running:
            error = problem(workspace, name, entry, host=host)
        if not running and error is None:
            try:
                found = decide(
                    entry, memory, now=now, changed=partial(_changed, workspace, entry, host)
                )
                state, reason = State.DUE if isinstance(found, Due) else State.NOT_DUE, found.reason
            except TerminatedError:
                raise
            except CoreImageError as complaint:
                error = _named(workspace, name, complaint)
        if error is not None:
            state, reason = State.FAILED, error.message
        following = upcoming(entry, memory, now=now)
        yield Outlook(name=name, state=state, reason=reason, next=following, error=error)


def _changed(workspace: Workspace, entry: ScheduleSettings, host: str) -> Mapping[str, str]:
    selections = imageset.resolve(workspace, order_of(entry), host=host)
    return imageset.changed_targets(workspace, selections, entry.extra_archives)
