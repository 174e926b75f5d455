import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import ScheduleSettings, Settings, Workspace, load_workspace
from coreimage.errors import (
    BusyError,
    ConfigError,
    CoreImageError,
    DataError,
    TerminatedError,
    UnavailableError,
)
from coreimage.farm.schedule import (
    Due,
    Memories,
    Memory,
    NotDue,
    Ran,
    Result,
    State,
    check_entries,
    count_times,
    decide,
    last_time,
    next_time,
    recall,
    run_due,
)
from coreimage.lib import run
from coreimage.lib.files import lock

NIGHTLY = ScheduleSettings(project="core", cron="25 3 * * *")
WATCHFUL = ScheduleSettings(project="core", when_changed=True)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def nothing() -> Mapping[str, str]:
    return {}


def never() -> Mapping[str, str]:
    raise AssertionError("nobody was to ask for the inputs")


def due_of(
    entry: ScheduleSettings,
    memory: Memory,
    *,
    now: datetime,
    changed: Callable[[], Mapping[str, str]] = never,
) -> Due:
    due = decide(entry, memory, now=now, changed=changed)
    assert isinstance(due, Due)
    return due


def waits_for(
    entry: ScheduleSettings,
    memory: Memory,
    *,
    now: datetime,
    changed: Callable[[], Mapping[str, str]] = never,
) -> str:
    found = decide(entry, memory, now=now, changed=changed)
    assert isinstance(found, NotDue)
    return found.reason


def idle(following: str) -> list[Ran]:
    """Return what becomes of the one nightly entry when it waits for its next time."""
    return [Ran(name="nightly", state=State.NOT_DUE, reason=f"next at {following} 03:25 UTC")]


def dealt_with(text: str) -> Memory:
    return Memory(seen=at(text), cron=NIGHTLY.cron, result=Result.SUCCESS)


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-11-23 03:24:59", "2026-11-22 03:25"),
        ("2026-11-23 03:25:00", "2026-11-23 03:25"),
        ("2026-11-23 03:25:00.000001", "2026-11-23 03:25"),
        ("2026-11-23 03:25:01", "2026-11-23 03:25"),
        ("2026-11-24 00:00:00", "2026-11-23 03:25"),
    ],
)
def test_last_time(now: str, last: str) -> None:
    assert last_time("25 3 * * *", at(now)) == at(last)


def test_next_time_is_after() -> None:
    assert next_time("25 3 * * *", at("2026-11-23 03:25")) == at("2026-11-24 03:25")
    assert next_time("0 0 29 2 *", at("2026-11-23")) == at("2028-02-29")


def test_count_times() -> None:
    first, last = at("2026-11-20 03:25"), at("2026-11-23 03:25")
    assert count_times("25 3 * * *", after=first, until=last) == 3
    assert count_times("25 3 * * *", after=last, until=first) == 0
    assert count_times("* * * * *", after=first, until=last) == 1000


def test_a_time_of_the_calendar_is_due_once() -> None:
    memory = dealt_with("2026-11-22 03:25")
    due = decide(NIGHTLY, memory, now=at("2026-11-23 03:25"), changed=never)

    assert due == Due(reason="due at 2026-11-23 03:25 UTC", seen=at("2026-11-23 03:25"), tried={})
    done = dealt_with("2026-11-23 03:25")
    for now in ("2026-11-23 03:25", "2026-11-24 03:24:59"):
        assert waits_for(NIGHTLY, done, now=at(now)) == "next at 2026-11-24 03:25 UTC"


def test_missed_times_are_one_run() -> None:
    memory = dealt_with("2026-11-18 03:25")
    due = due_of(NIGHTLY, memory, now=at("2026-11-23 09:00"))

    assert due.reason == "due at 2026-11-23 03:25 UTC, missed 4 times before"
    assert due.seen == at("2026-11-23 03:25")


def test_a_new_entry_begins_with_its_next_time() -> None:
    now = at("2026-11-23 09:00")
    memory = recall(NIGHTLY, None, now=now)

    assert waits_for(NIGHTLY, memory, now=now) == "next at 2026-11-24 03:25 UTC"
    assert due_of(NIGHTLY, memory, now=now + DAY).seen == at("2026-11-24 03:25")


def test_a_new_calendar_begins_with_its_next_time() -> None:
    now = at("2026-11-23 09:00")
    later = ScheduleSettings(project="core", cron="0 8 * * *")
    memory = recall(later, dealt_with("2026-11-23 03:25"), now=now)

    assert waits_for(later, memory, now=now) == "next at 2026-11-24 08:00 UTC"
    assert due_of(later, memory, now=now + DAY).seen == at("2026-11-24 08:00")


@pytest.mark.parametrize("back", [timedelta(seconds=2), timedelta(hours=2), timedelta(hours=23)])
def test_a_clock_that_goes_back_a_little_repeats_nothing(back: timedelta) -> None:
    ran = at("2026-11-23 03:25")
    memory = dealt_with("2026-11-23 03:25")
    for now in (ran - back, ran, ran + timedelta(minutes=1)):
        assert recall(NIGHTLY, memory, now=now) == memory
        # Also when the clock says that this time of the calendar is still to come.
        assert waits_for(NIGHTLY, memory, now=now) == "next at 2026-11-24 03:25 UTC"
    assert due_of(NIGHTLY, memory, now=ran + DAY).seen == ran + DAY


def test_a_clock_that_was_years_ahead_does_not_stop_the_schedule() -> None:
    now = at("2026-11-23 09:00")
    memory = recall(NIGHTLY, dealt_with("2036-01-01 03:25"), now=now)

    assert waits_for(NIGHTLY, memory, now=now) == "next at 2026-11-24 03:25 UTC"
    assert due_of(NIGHTLY, memory, now=now + DAY).seen == at("2026-11-24 03:25")


def test_changed_inputs_are_due_until_they_were_tried() -> None:
    now = at("2026-11-23 09:00")
    memory = recall(WATCHFUL, None, now=now)
    assert waits_for(WATCHFUL, memory, now=now, changed=nothing) == "no input changed"

    due = due_of(WATCHFUL, memory, now=now, changed=lambda: {"arm64": "b", "amd64": "a"})
    assert due.reason == "inputs changed for amd64, arm64"
    assert due.changed
    tried = Memory(seen=now, tried=due.tried, result=Result.FAILURE, attempt=1)
    same = {"amd64": "a", "arm64": "b"}
    assert waits_for(WATCHFUL, tried, now=now, changed=lambda: same) == (
        "the inputs as they are were built already and failed (amd64, arm64): "
        "waits for another change"
    )
    assert due_of(WATCHFUL, tried, now=now, changed=lambda: {**same, "arm64": "c"}).changed
    # One of them was built: what is left is not what has changed.
    assert "failed (arm64)" in waits_for(WATCHFUL, tried, now=now, changed=lambda: {"arm64": "b"})
    assert due_of(WATCHFUL, tried, now=now, changed=lambda: {"arm64": "c"}).tried == {"arm64": "c"}


def test_what_was_built_and_is_gone_is_not_called_a_failure() -> None:
    now = at("2026-11-23 09:00")
    memory = Memory(seen=now, tried={"amd64": "a"}, result=Result.SUCCESS, attempt=1)
    assert waits_for(WATCHFUL, memory, now=now, changed=lambda: {"amd64": "a"}) == (
        "the inputs as they are were built already (amd64): waits for another change"
    )


def test_an_entry_waits_for_its_calendar_and_for_a_change() -> None:
    both = ScheduleSettings(project="core", cron="25 3 * * *", when_changed=True)
    asked: list[str] = []

    def changed() -> Mapping[str, str]:
        asked.append("archive")
        return {}

    memory = dealt_with("2026-11-23 03:25")
    assert waits_for(both, memory, now=at("2026-11-23 09:00"), changed=changed) == (
        "next at 2026-11-24 03:25 UTC; no input changed"
    )
    assert asked == ["archive"]


@pytest.mark.parametrize(
    ("result", "words"),
    [(Result.RUNNING, "was interrupted"), (Result.ERROR, "failed for the moment")],
)
def test_what_was_not_its_own_fault_is_tried_again_a_few_times(result: Result, words: str) -> None:
    begun = at("2026-11-23 03:25")
    memory = Memory(
        seen=begun, cron=NIGHTLY.cron, result=result, attempt=1, started_at=begun, tried={"a": "b"}
    )
    for attempt in range(2, 6):
        due = due_of(NIGHTLY, memory, now=begun + timedelta(minutes=5))
        assert due.reason == f"the run of 2026-11-23 03:25 UTC {words}"
        assert (due.attempt, due.seen, due.tried) == (attempt, begun, {"a": "b"})
        memory = replace(memory, attempt=attempt)
    assert waits_for(NIGHTLY, memory, now=begun + timedelta(minutes=30)) == (
        "given up after 5 attempts; next at 2026-11-24 03:25 UTC"
    )
    assert due_of(NIGHTLY, memory, now=begun + DAY).attempt == 1


def written(root: Path, text: str) -> Workspace:
    (root / "coreimage.toml").write_text(text)
    return load_workspace(root)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("25 3 * *", "not 5 fields"),
        ("0 25 3 * * *", "not 5 fields"),
        ("61 3 * * *", "bad minute"),
        ("@daily", "not 5 fields"),
        ("0 0 31 2 *", "bad day-of-month"),
    ],
)
def test_a_calendar_that_cannot_be_is_refused(tmp_path: Path, cron: str, said: str) -> None:
    space = written(tmp_path, f'[schedules.nightly]\nproject = "core"\ncron = "{cron}"\n')
    with pytest.raises(ConfigError, match=rf":3: 'schedules.nightly.cron': .*{said}") as raised:
        check_entries(space)
    assert raised.value.message.startswith(f"{tmp_path}/coreimage.toml:3: ")
    assert "25 3 * * *" in raised.value.hint


@pytest.mark.parametrize("name", ["", "../x", "Nightly", ".hidden", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    space = written(
        tmp_path, f'# by night\n[schedules."{name}"]\nproject = "core"\nwhen_changed = true\n'
    )
    with pytest.raises(ConfigError, match=rf"coreimage.toml:2: 'schedules.{name}': not a name"):
        check_entries(space)


def test_a_mistake_is_named_also_when_the_file_is_gone(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path, settings=Settings(schedules={"a b": NIGHTLY}))
    with pytest.raises(ConfigError, match=r"coreimage.toml: 'schedules.a b': not a name"):
        check_entries(space)


class Runner:
    """Runs a schedule with a clock that is set by hand."""

    def __init__(self, state: Path, **entries: ScheduleSettings) -> None:
        self.memories = Memories(state)
        self.entries = entries
        self.now = at("2026-11-22 12:00")
        self.inputs: dict[str, str] = {}
        self.work: Callable[[str], None] = lambda _: None
        self.worked: list[tuple[str, str]] = []

    def tick(self, now: str | None = None) -> list[Ran]:
        if now is not None:
            self.now = at(now)

        def work(name: str, _: ScheduleSettings, due: Due) -> None:
            self.worked.append((name, due.reason))
            self.work(name)

        return list(
            run_due(
                self.entries,
                self.memories,
                clock=lambda: self.now,
                changed=lambda _name, _entry: self.inputs,
                work=work,
            )
        )

    def memory(self, name: str = "nightly") -> Memory:
        memory = self.memories.load(name)
        assert memory is not None
        return memory


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    runner = Runner(tmp_path, nightly=NIGHTLY)
    assert runner.tick() == idle("2026-11-23")
    return runner


def raising(error: BaseException) -> Callable[[str], None]:
    def work(_: str) -> None:
        raise error

    return work


def test_a_run_is_remembered(runner: Runner) -> None:
    (ran,) = runner.tick("2026-11-23 03:26")

    reason = "due at 2026-11-23 03:25 UTC"
    assert ran == Ran(name="nightly", state=State.DONE, reason=reason)
    memory = runner.memory()
    assert memory.seen == at("2026-11-23 03:25")
    assert memory.started_at == memory.finished_at == at("2026-11-23 03:26")
    assert memory.result is Result.SUCCESS
    assert runner.tick("2026-11-23 03:31") == idle("2026-11-24")
    assert len(runner.worked) == 1


def test_a_failure_waits_for_the_next_time(runner: Runner) -> None:
    runner.work = raising(DataError("no hook\nlast line"))
    (ran,) = runner.tick("2026-11-23 03:25")

    assert isinstance(ran.error, DataError)
    assert (ran.state, ran.reason) == (State.FAILED, "due at 2026-11-23 03:25 UTC")
    assert (runner.memory().result, runner.memory().message) == (Result.FAILURE, "no hook")
    assert runner.tick("2026-11-23 03:30") == idle("2026-11-24")
    assert runner.tick("2026-11-24 03:25")[0].error is not None


def test_what_may_pass_is_tried_at_the_next_tick(runner: Runner) -> None:
    runner.work = raising(UnavailableError("no network"))
    runner.tick("2026-11-23 03:25")
    assert runner.memory().result is Result.ERROR
    runner.work = lambda _: None
    (ran,) = runner.tick("2026-11-23 03:30")

    assert ran == Ran(
        name="nightly",
        state=State.DONE,
        reason="the run of 2026-11-23 03:25 UTC failed for the moment",
    )
    assert runner.memory().result is Result.SUCCESS
    assert runner.tick("2026-11-23 03:35") == idle("2026-11-24")


def test_what_was_busy_has_not_begun(runner: Runner) -> None:
    runner.work = raising(BusyError("in use"))
    for minute in range(30, 40):
        (ran,) = runner.tick(f"2026-11-23 03:{minute}")
        assert isinstance(ran.error, BusyError)
    assert runner.memory().result is Result.NONE
    assert {reason for _, reason in runner.worked} == {"due at 2026-11-23 03:25 UTC"}


@pytest.mark.parametrize("error", [TerminatedError(15), KeyboardInterrupt()])
def test_what_was_interrupted_is_taken_up_again(runner: Runner, error: BaseException) -> None:
    runner.work = raising(error)
    with pytest.raises(type(error)):
        runner.tick("2026-11-23 03:25")
    assert runner.memory().result is Result.RUNNING
    runner.work = lambda _: None
    (ran,) = runner.tick("2026-11-23 03:30")

    assert ran.reason == "the run of 2026-11-23 03:25 UTC was interrupted"
    assert runner.tick("2026-11-23 03:35") == idle("2026-11-24")


def test_an_archive_that_cannot_be_asked_fails_one_entry_only(tmp_path: Path) -> None:
    runner = Runner(tmp_path, watchful=WATCHFUL, nightly=NIGHTLY)
    runner.tick()

    def changed(_name: str, _entry: ScheduleSettings) -> Mapping[str, str]:
        raise UnavailableError("no network")

    ran = list(
        run_due(
            runner.entries,
            runner.memories,
            clock=lambda: at("2026-11-23 03:25"),
            changed=changed,
            work=lambda *_: None,
        )
    )
    assert isinstance(ran[0].error, UnavailableError)
    assert ran[1].reason
    assert runner.memory("watchful").result is Result.NONE


def test_entries_are_independent(tmp_path: Path) -> None:
    runner = Runner(tmp_path, nightly=NIGHTLY, watchful=WATCHFUL)
    runner.inputs = {"amd64": "a"}
    runner.work = raising(CoreImageError("no"))
    assert [each.error is None for each in runner.tick()] == [True, False]
    runner.work = lambda _: None
    runner.tick("2026-11-23 03:25")

    assert [name for name, _ in runner.worked] == ["watchful", "nightly"]
    assert runner.memory("watchful").result is Result.FAILURE
    assert runner.memory("nightly").result is Result.SUCCESS


def test_what_another_process_runs_is_left_to_it(runner: Runner) -> None:
    with lock(runner.memories.entry_lock("nightly"), purpose="schedule run nightly"):
        (ran,) = runner.tick("2026-11-23 03:25")
    assert isinstance(ran.error, BusyError)
    assert (ran.state, ran.reason) == (State.FAILED, "")
    assert runner.worked == []
    runner.tick()
    assert len(runner.worked) == 1


def test_a_memory_that_is_no_memory_names_its_file(runner: Runner, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"nightly": {}}', '{"nightly": {"seen": 5}}'):
        (tmp_path / "schedule.json").write_text(text)
        (ran,) = runner.tick()
        assert isinstance(ran.error, DataError)
        assert "schedule.json' is malformed" in ran.error.message


# A runner in a process of its own: tells when its work begins, which then never ends.
PROCESS = """
import sys, time
from datetime import datetime
from pathlib import Path
from coreimage.config import ScheduleSettings
from coreimage.farm.schedule import Memories, run_due

def work(name, entry, due):
    print(due.reason, flush=True)
    if sys.argv[3] == "stay":
        time.sleep(600)

for ran in run_due(
    {"nightly": ScheduleSettings(project="core", cron="25 3 * * *")},
    Memories(Path(sys.argv[1])),
    clock=lambda: datetime.fromisoformat(sys.argv[2]),
    changed=lambda name, entry: {},
    work=work,
):
    print(type(ran.error).__name__)
"""


def process(state: Path, how: str) -> list[str]:
    return [sys.executable, "-c", PROCESS, str(state), "2026-11-23T03:25:00+00:00", how]


def test_of_many_runners_at_once_one_runs(runner: Runner, tmp_path: Path) -> None:
    with ExitStack() as stack:
        started = [
            stack.enter_context(run.start(process(tmp_path, "go"), stdout=run.PIPE))
            for _ in range(4)
        ]
        said = [each.communicate()[0].decode() for each in started]
    assert "".join(said).count("due at") == 1
    assert all(
        set(each.split("\n")) <= {"due at 2026-11-23 03:25 UTC", "NoneType", "BusyError", ""}
        for each in said
    )
    assert runner.memory().result is Result.SUCCESS


def test_a_runner_that_is_killed_leaves_the_run_to_the_next(runner: Runner, tmp_path: Path) -> None:
    with run.start(process(tmp_path, "stay"), stdout=run.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"due at 2026-11-23 03:25 UTC\n"
        killed.kill()
    assert json.loads((tmp_path / "schedule.json").read_text())["nightly"]["result"] == "running"
    (ran,) = runner.tick("2026-11-23 03:30")

    assert ran.reason == "the run of 2026-11-23 03:25 UTC was interrupted"
