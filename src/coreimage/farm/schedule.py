"""The schedule: what is due now and why, and the memory that keeps it from being done twice.

All times are UTC. The decision is pure: it takes the entry, what is remembered of it, and the time.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

from coreimage.config import ScheduleSettings, Workspace
from coreimage.errors import BusyError, ConfigError, CoreImageError, DataError, TerminatedError
from coreimage.lib import files

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_CRON_FIELDS = 5
# A run that was interrupted, or that failed by no fault of its own, is begun so many times.
_MAX_ATTEMPTS = 5
_MAX_COUNTED = 1000
# A memory that is so far ahead of the clock is from a time when the clock was wrong. Less than
# that is a clock that was put right, and nothing is done twice for that.
_CLOCK_WAS_WRONG = timedelta(days=1)
# Exit codes that blame the machine, not the build: it may work a little later.
_PASSING = frozenset({69, 70, 74, 77})
_FIRST_SIGNAL_STATUS = 128
_PATIENCE = 10.0

Changed = Callable[[str, ScheduleSettings], Mapping[str, str]]
"""Returns the targets with changed inputs, and the fingerprint that the inputs have now."""


class State(StrEnum):
    """How things stand with an entry: before a run DUE, NOT_DUE or RUNNING, after it the rest."""

    DUE = "due"
    NOT_DUE = "not due"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Result(StrEnum):
    """How the last run of an entry ended; RUNNING also when its process was killed."""

    NONE = ""
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of an entry.

    `seen`: times of the calendar up to here are dealt with; `cron` is the calendar that it belongs
    to. `tried` are the changed inputs, by target, that were built last. `attempt` counts how often
    the last run was begun.
    """

    seen: datetime
    cron: str | None = None
    tried: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Result = Result.NONE
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Why an entry is to be run, and what is dealt with once it was."""

    reason: str
    seen: datetime
    tried: Mapping[str, str]
    attempt: int = 1
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDue:
    """Why an entry is not to be run now: what it waits for."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of an entry that was looked at: DONE, FAILED with its error, or NOT_DUE.

    The reason says why it was run, or why not; it is empty when that was not found out.
    """

    name: str
    state: State
    reason: str = ""
    error: CoreImageError | None = None


def check_entries(workspace: Workspace) -> None:
    """Raise ConfigError, with file and line, for a name or a calendar that cannot be used."""
    for name, entry in workspace.settings.schedules.items():
        if _NAME.match(name) is None:
            raise ConfigError(
                f"{workspace.place('schedules', name)}: 'schedules.{name}': not a name",
                hint="use small letters, digits and '-'",
            )
        if entry.cron is not None:
            try:
                _require_calendar(entry.cron)
            except CronSimError as error:
                place = workspace.place("schedules", name, "cron")
                raise ConfigError(
                    f"{place}: 'schedules.{name}.cron': '{entry.cron}': {str(error).lower()}",
                    hint="write minute, hour, day, month and weekday, as in '25 3 * * *'",
                ) from error


def _require_calendar(cron: str) -> None:
    if len(cron.split()) != _CRON_FIELDS:
        raise CronSimError(f"not {_CRON_FIELDS} fields")
    now = datetime.now(UTC)
    if next_time(cron, now) is None:
        raise CronSimError("that day never comes")


def next_time(cron: str, after: datetime) -> datetime | None:
    """Return the first time of a calendar after `after`; None when there is none."""
    return next(CronSim(cron, after), None)


def last_time(cron: str, now: datetime) -> datetime | None:
    """Return the last time of a calendar that has come; None when there was none."""
    # The iteration begins before the given second, and this second may be it.
    just_after = now.replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(cron, just_after, reverse=True), None)


def count_times(cron: str, *, after: datetime, until: datetime) -> int:
    """Return how many times of a calendar lie in (after, until], at most 1000."""
    count = 0
    for each in CronSim(cron, after):
        if each > until or count == _MAX_COUNTED:
            break
        count += 1
    return count


def recall(entry: ScheduleSettings, memory: Memory | None, *, now: datetime) -> Memory:
    """Return what counts of a memory: an entry that is new or has a new calendar begins now."""
    if memory is None:
        return Memory(seen=now, cron=entry.cron)
    if memory.cron != entry.cron or memory.seen > now + _CLOCK_WAS_WRONG:
        return replace(memory, seen=now, cron=entry.cron)
    return memory


def decide(
    entry: ScheduleSettings,
    memory: Memory,
    *,
    now: datetime,
    changed: Callable[[], Mapping[str, str]],
) -> Due | NotDue:
    """Return why an entry is due, or why it is not. Nobody else may be running it.

    However many times of the calendar were missed, they are one reason to run. Inputs that were
    built once and failed are no reason until they change again. `changed` is asked last, and at
    most once: it takes a look at the archive.
    """
    unfinished = memory.result in (Result.RUNNING, Result.ERROR)
    at = None if entry.cron is None else last_time(entry.cron, now)
    if at is not None and entry.cron is not None and at > memory.seen:
        count = count_times(entry.cron, after=memory.seen, until=now)
        missed = f", missed {count - 1} times before" if count > 1 else ""
        return Due(reason=f"due at {at:%Y-%m-%d %H:%M} UTC{missed}", seen=at, tried=memory.tried)
    if unfinished and memory.attempt < _MAX_ATTEMPTS and memory.started_at is not None:
        how = "was interrupted" if memory.result is Result.RUNNING else "failed for the moment"
        return Due(
            reason=f"the run of {memory.started_at:%Y-%m-%d %H:%M} UTC {how}",
            seen=memory.seen,
            tried=memory.tried,
            attempt=memory.attempt + 1,
        )
    waits = [f"given up after {memory.attempt} attempts"] if unfinished else []
    following = upcoming(entry, memory, now=now)
    if following is not None:
        waits.append(f"next at {following:%Y-%m-%d %H:%M} UTC")
    if entry.when_changed:
        found = dict(changed())
        # Of a set that failed in part, those that were built are no longer among them.
        if not found.items() <= memory.tried.items():
            reason = f"inputs changed for {', '.join(sorted(found))}"
            return Due(reason=reason, seen=memory.seen, tried=found, changed=True)
        waits.append(_unchanged(found, memory))
    return NotDue(reason="; ".join(waits))


def upcoming(entry: ScheduleSettings, memory: Memory, *, now: datetime) -> datetime | None:
    """Return the next time of an entry's calendar that is not dealt with; None without one."""
    return None if entry.cron is None else next_time(entry.cron, max(now, memory.seen))


def _unchanged(found: Mapping[str, str], memory: Memory) -> str:
    if not found:
        return "no input changed"
    failed = "" if memory.result is Result.SUCCESS else " and failed"
    arches = ", ".join(sorted(found))
    return f"the inputs as they are were built already{failed} ({arches}): waits for another change"


class Memories:
    """What is known of all entries: a JSON file that changes in one step, under a lock."""

    def __init__(self, state: Path) -> None:
        self._path = state / "schedule.json"
        self._locks = state / "locks"

    def entry_lock(self, name: str) -> Path:
        """Return the lock that whoever runs an entry holds."""
        return self._locks / f"schedule-{name}.lock"

    def load(self, name: str) -> Memory | None:
        """Return what is known of an entry; raises DataError."""
        fields = self._read().get(name)
        try:
            return None if fields is None else _memory(fields)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self._malformed(error) from error

    def save(self, name: str, memory: Memory) -> None:
        """Replace what is known of an entry."""
        with files.lock(self._locks / "schedule.lock", purpose="schedule", wait=_PATIENCE):
            document = {**self._read(), name: asdict(memory)}
            text = json.dumps(document, indent=1, default=datetime.isoformat)
            files.write_atomically(self._path, text + "\n")

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self._malformed(error) from error
        if not isinstance(document, dict):
            raise self._malformed("not an object")
        return document

    def _malformed(self, reason: object) -> DataError:
        return DataError(
            f"'{self._path}' is malformed: {reason}", hint="remove it: all entries begin anew then"
        )


def _memory(fields: Mapping[str, Any]) -> Memory:
    values = dict(fields)
    for key in ("seen", "started_at", "finished_at"):
        if values[key] is not None:
            values[key] = datetime.fromisoformat(values[key]).astimezone(UTC)
    return Memory(**{**values, "result": Result(values["result"])})


def run_due(
    entries: Mapping[str, ScheduleSettings],
    memories: Memories,
    *,
    clock: Callable[[], datetime],
    changed: Changed,
    work: Callable[[str, ScheduleSettings, Due], None],
) -> Iterator[Ran]:
    """Run the entries that are due, one after the other, and yield what became of each.

    What is run is remembered before it begins. When the process is killed, the next one takes it
    up again; an entry that another process runs is left to it.
    """
    for name, entry in entries.items():
        try:
            with files.lock(memories.entry_lock(name), purpose=f"schedule run {name}"):
                ran = _run(name, entry, memories, clock=clock, changed=changed, work=work)
        except TerminatedError:
            raise
        except CoreImageError as error:
            ran = Ran(name=name, state=State.FAILED, error=error)
        yield ran


def _run(
    name: str,
    entry: ScheduleSettings,
    memories: Memories,
    *,
    clock: Callable[[], datetime],
    changed: Changed,
    work: Callable[[str, ScheduleSettings, Due], None],
) -> Ran:
    now, known = clock(), memories.load(name)
    memory = recall(entry, known, now=now)
    if memory != known:
        memories.save(name, memory)
    due = decide(entry, memory, now=now, changed=lambda: changed(name, entry))
    if isinstance(due, NotDue):
        return Ran(name=name, state=State.NOT_DUE, reason=due.reason)
    begun = replace(
        memory,
        seen=due.seen,
        tried=due.tried,
        attempt=due.attempt,
        started_at=now,
        finished_at=None,
        result=Result.RUNNING,
        message="",
    )
    memories.save(name, begun)
    with _result(memories, name, begun, before=memory, clock=clock) as failed:
        work(name, entry, due)
    if failed:
        return Ran(name=name, state=State.FAILED, reason=due.reason, error=failed[0])
    return Ran(name=name, state=State.DONE, reason=due.reason)


@contextmanager
def _result(
    memories: Memories, name: str, begun: Memory, *, before: Memory, clock: Callable[[], datetime]
) -> Iterator[list[CoreImageError]]:
    """Remember how the block ended; an error that is a result is put into the list."""
    failed: list[CoreImageError] = []

    def end(result: Result, message: str = "") -> None:
        ended = replace(begun, finished_at=clock(), result=result, message=message)
        memories.save(name, ended)

    try:
        yield failed
    except TerminatedError:
        raise  # the next one takes it up again
    except BusyError as error:
        memories.save(name, before)  # as if it had not begun
        failed.append(error)
    except CoreImageError as error:
        passing = error.exit_code in _PASSING or error.exit_code >= _FIRST_SIGNAL_STATUS
        end(Result.ERROR if passing else Result.FAILURE, error.message.splitlines()[0])
        failed.append(error)
    except Exception as error:
        end(Result.FAILURE, f"{type(error).__name__}: {error}")
        raise
    else:
        end(Result.SUCCESS)
