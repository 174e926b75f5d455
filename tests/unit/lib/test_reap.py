"""The guard as a program, since it makes itself the parent of strangers."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.processes import Watch

GUARD = [sys.executable, "-m", "coreimage.cli.guard"]
# Says its number from another session, with its parent gone.
LEAVES = "setsid sh -c 'echo $$; exec sleep 600' & "


@contextmanager
def guarding(grace: str, script: str) -> Iterator[tuple[run.Process[bytes], list[Watch]]]:
    with run.start([*GUARD, grace, "sh", "-c", script], stdout=run.PIPE) as process:
        assert process.stdout is not None
        watches = [Watch(process.stdout.readline()) for _ in range(script.count("echo"))]
        yield process, watches
        process.stdout.close()


@pytest.mark.parametrize("code", [0, 3, 69])
def test_the_exit_status_is_the_programs(code: int) -> None:
    assert run.run([*GUARD, "1", "sh", "-c", f"exit {code}"], check=False).status == code


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM"])
def test_it_ends_by_the_signal_that_ended_the_program(name: str) -> None:
    done = run.run([*GUARD, "1", "sh", "-c", f"kill -{name} $$"], check=False)
    assert done.status == -signal.Signals[f"SIG{name}"]


def test_who_stays_when_the_program_ends_is_killed(tmp_path: Path) -> None:
    flag = tmp_path / "heard"
    script = f"{LEAVES} while [ ! -e {flag} ]; do sleep 0.05; done"
    with guarding("60", script) as (process, watches):
        flag.touch()
        assert process.wait(30) == 0
        assert all(each.is_gone(0) for each in watches)


def test_after_its_time_everybody_is_killed() -> None:
    script = f"trap '' TERM; {LEAVES} echo $$; sleep 600; sleep 600"
    with guarding("0", script) as (process, watches):
        process.terminate()
        assert process.wait(30) == -signal.SIGKILL
        assert all(each.is_gone(0) for each in watches)


def test_a_program_that_cleans_up_has_the_time_for_it() -> None:
    script = "trap 'sleep 0.2; exit 7' TERM; echo $$; sleep 600 & wait"
    with guarding("60", script) as (process, watches):
        process.terminate()
        assert process.wait(30) == 7
        assert all(each.is_gone(0) for each in watches)


def test_a_missing_program_is_the_machines_fault() -> None:
    done = run.run([*GUARD, "1", "no-such-program"], check=False)
    assert done.status == 77
    assert b"coreimage: error: program 'no-such-program' is not installed" in done.stderr


def test_who_is_in_namespaces_of_its_own_is_killed_too() -> None:
    # /proc is the outer one: what it says of ourselves is the number that the outside knows.
    tell = "read number rest < /proc/self/stat; echo $number"
    inside = f"trap '' TERM; {tell}; sleep 600 & setsid sh -c '{tell}; sleep 600' & wait; sleep 600"
    enter = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    script = f"trap '' TERM; {shlex.join([*enter, 'sh', '-c', inside])} & wait; wait"
    with guarding("0", script) as (process, watches):
        process.terminate()
        assert process.wait(30) == -signal.SIGKILL
        assert len(watches) == 2
        assert all(each.is_gone(0) for each in watches)
