import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from coreimage.errors import CommandError, NoSpaceError, RightsError
from coreimage.lib import run
from tests.support.processes import Watch

# Starts a child of its own and says its number; neither ends by itself.
FAMILY = "sleep 600 & echo $!; wait"
# As FAMILY, and deaf to SIGTERM.
DEAF = "trap '' TERM; sleep 600 & echo $!; while :; do wait; done"


def first_line(process: run.Process[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_program_gets_what_it_is_given(tmp_path: Path) -> None:
    script = "cat; echo $ANIMAL; pwd; echo oops >&2; test ! -t 0"
    done = run.run(["sh", "-c", script], data=b"x\n", env={"ANIMAL": "gnu"}, cwd=tmp_path)
    assert done.stdout.decode().split() == ["x", "gnu", str(tmp_path)]
    assert (done.status, done.stderr) == (0, b"oops\n")
    assert run.run(["cat"]).stdout == b""  # no standard input unless asked for


def test_our_environment_stays_beside_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMAL", "gnu")
    assert run.run(["printenv", "ANIMAL"], env={"OTHER": "x"}).stdout == b"gnu\n"


def test_a_failure_shows_the_command_and_the_last_lines() -> None:
    script = "seq 100; seq 100 >&2; exit 3"
    with pytest.raises(CommandError) as caught:
        run.run(["sh", "-c", script])
    lines = caught.value.message.splitlines()
    assert lines[0] == "'sh' failed, exit status 3: sh -c 'seq 100; seq 100 >&2; exit 3'"
    assert lines[1:] == [str(number) for number in range(86, 101)]


def test_a_failure_without_complaints_shows_the_output() -> None:
    with pytest.raises(CommandError, match=r"\nhalf done$"):
        run.run(["sh", "-c", "echo half done; exit 1"])
    with pytest.raises(CommandError, match=r"'false' failed, exit status 1: false$"):
        run.run(["false"])
    assert run.run(["false"], check=False).status == 1


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandError, match="killed by SIGKILL"):
        run.run(["sh", "-c", "kill -KILL $$"])
    assert run.describe_status(-64) in {"killed by SIGRTMAX", "killed by signal 64"}
    assert run.describe_status(-99) == "killed by signal 99"


def test_a_missing_program_is_named_with_a_way_to_get_it() -> None:
    with pytest.raises(RightsError, match="'no-such-program' is not installed") as caught:
        run.run(["no-such-program"])
    assert "doctor" in caught.value.hint
    assert run.find_program("no-such-program") is None
    with pytest.raises(CommandError, match="'/no/such/program' failed"):
        run.run(["/no/such/program"])


def test_words_stay_words(tmp_path: Path) -> None:
    words: list[str | Path] = ["a b", "$HOME", "*", "", "--", "-n", "'", tmp_path / "c d"]
    done = run.run(["printf", "%s\\n", *words])
    assert done.stdout.decode().splitlines() == [str(word) for word in words]
    assert run.shell_text(["printf", *words]).startswith("printf 'a b' '$HOME' '*' ''")


def test_a_program_that_takes_too_long_is_ended_with_its_children() -> None:
    with pytest.raises(CommandError, match=r"'sh' did not finish within 2 seconds") as caught:
        run.run(["sh", "-c", FAMILY], timeout=2.0)
    child = caught.value.message.splitlines()[-1]  # what it said is told too
    assert Watch(child).is_gone()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_ends_the_whole_group(error: type[BaseException]) -> None:
    seen: list[Watch] = []

    def work() -> None:
        with run.start(["sh", "-c", FAMILY], stdout=run.PIPE) as process:
            seen.append(Watch(first_line(process)))
            raise error

    with pytest.raises(error):
        work()
    assert seen[0].is_gone()


def test_a_group_that_is_deaf_is_killed() -> None:
    with run.start(["sh", "-c", DEAF], stdout=run.PIPE) as process:
        child = Watch(first_line(process))
        run.terminate(process, grace=0.2)
        assert process.returncode == -signal.SIGKILL
    assert child.is_gone()


def test_what_a_program_leaves_behind_is_ended_too() -> None:
    """The leader has ended before: its group is ended all the same."""
    with run.start(["sh", "-c", "sleep 600 & echo $!"], stdout=run.PIPE) as process:
        child = Watch(first_line(process))
        leader = Watch(str(process.pid))
        assert leader.is_gone()
        run.terminate(process)
        assert child.is_gone()


def test_ending_twice_is_ending_once() -> None:
    with run.start(["sleep", "600"]) as process:
        run.terminate(process)
        assert process.returncode == -signal.SIGTERM
        run.terminate(process)


def test_a_child_does_not_outlive_us_when_we_are_killed() -> None:
    script = (
        "from coreimage.lib import run\n"
        "with run.start(['sh', '-c', 'echo $$; exec sleep 600']): pass\n"
    )
    with run.start([sys.executable, "-c", script], stdout=run.PIPE) as process:
        child = Watch(first_line(process))
        assert not child.is_gone(patience=0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert child.is_gone()


def test_a_program_can_take_our_place() -> None:
    script = "from coreimage.lib import run; run.replace(['sh', '-c', 'kill -PIPE $$'])"
    assert run.run([sys.executable, "-c", script], check=False).status == -signal.SIGPIPE
    script = "from coreimage.lib import run; run.replace(['no-such-program'])"
    done = run.run([sys.executable, "-c", script], check=False)
    assert b"'no-such-program' is not installed" in done.stderr


def test_a_program_in_the_foreground_keeps_our_group_and_ends_with_the_block() -> None:
    with suppress(KeyError), run.start(["sleep", "60"], foreground=True) as process:
        assert os.getpgid(process.pid) == os.getpgid(0)
        raise KeyError
    assert process.returncode == -signal.SIGTERM


def test_a_program_that_found_the_disk_full_says_so_with_a_hint() -> None:
    with pytest.raises(CommandError) as caught:
        run.run(["sh", "-c", "head -c 1 /dev/zero > /dev/full"], env={"LC_ALL": "C"})
    assert "No space left" in caught.value.message
    assert caught.value.hint == "free some space and try again"
    assert caught.value.exit_code == NoSpaceError.exit_code
