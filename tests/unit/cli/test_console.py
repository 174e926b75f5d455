"""How a command line ends, in processes of its own: exit codes, messages, signals."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from coreimage import errors
from coreimage.lib import run
from tests.support.processes import Watch

# A command line whose only command does what CODE says.
SCRIPT = """
import errno, os, signal, sys, time
import typer
from coreimage import errors
from coreimage.cli import console
app = typer.Typer(rich_markup_mode=None)

@app.callback()
def main() -> None: pass

@app.command()
def act(number: int = 0) -> object:
{code}

sys.exit(console.guarded(app, "coreimage"))
"""


def argv(code: str, *words: str) -> list[str]:
    indented = "".join(f"    {line}\n" for line in code.splitlines())
    return [sys.executable, "-c", SCRIPT.format(code=indented), *(words or ("act",))]


def act(code: str, *words: str) -> tuple[int, str, str]:
    done = run.run(argv(code, *words), check=False, timeout=60)
    return done.status, done.stdout.decode(), done.stderr.decode()


def subclasses() -> list[type[errors.CoreImageError]]:
    # Rooms may have errors of their own, for themselves.
    below = errors.CoreImageError.__subclasses__()
    return [errors.CoreImageError, *(each for each in below if each.__module__ == errors.__name__)]


def test_every_error_has_its_exit_code() -> None:
    codes = {each.__name__: each.exit_code for each in subclasses()}
    assert codes == {
        "CoreImageError": 1,
        "CommandError": 1,
        "UsageError": 2,
        "IncompleteError": 3,
        "DataError": 65,
        "NotFoundError": 66,
        "UnavailableError": 69,
        "NoSpaceError": 74,
        "BusyError": 75,
        "TrustError": 76,
        "RightsError": 77,
        "ConfigError": 78,
        "TerminatedError": 1,
    }


@pytest.mark.parametrize(
    "name", [each.__name__ for each in subclasses() if each is not errors.TerminatedError]
)
def test_an_error_is_a_message_a_hint_and_a_code(name: str) -> None:
    code = f"raise errors.{name}('there is no [bold]x', hint='make one')"
    assert act(code) == (
        getattr(errors, name).exit_code,
        "",
        "coreimage: error: there is no [bold]x\nhint: make one\n",
    )
    assert act(f"raise errors.{name}('x')")[2] == "coreimage: error: x\n"


def test_a_good_end() -> None:
    assert act("print('x')") == (0, "x\n", "")
    assert act("return 3")[0] == 3
    assert act("return 'text'")[0] == 0
    assert act("raise typer.Exit(4)")[0] == 4
    assert act("sys.exit(5)")[0] == 5


@pytest.mark.parametrize("words", [["acd"], ["act", "--nmber", "1"], ["act", "--number", "x"]])
def test_a_wrong_command_line_is_2(words: list[str]) -> None:
    status, out, err = act("pass", *words)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: coreimage")
    assert words[-1] in err or words[1] in err
    assert "Traceback" not in err


def test_a_bug_is_70_with_its_traceback() -> None:
    status, out, err = act("{}['x']")
    assert (status, out) == (70, "")
    assert "Traceback (most recent call last)" in err
    assert "in act" in err
    assert err.splitlines()[-2:] == [
        "coreimage: internal error: 'x'",
        "hint: this is a bug; please report it with the lines above",
    ]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    said = f"coreimage: error: '{absent}': No such file or directory\nhint: check the path\n"
    assert act(f"open({str(absent)!r})") == (66, "", said)
    status, _, err = act("raise PermissionError(errno.EACCES, 'Permission denied', '/root/x')")
    assert status == 77
    assert err == (
        "coreimage: error: '/root/x': Permission denied\nhint: check who may read or write it\n"
    )


def test_a_full_disk_has_its_exit_code_where_nothing_can_be_told() -> None:
    code = (
        "import sys\nfrom coreimage.cli.console import guarded\n"
        "def work(**_): open('/dev/full', 'wb', buffering=0).write(b'x')\n"
        "sys.exit(guarded(work, 'coreimage'))"
    )
    shell = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable, "-u", "-c", code]
    assert run.run(shell, check=False, env={"LC_ALL": "C.UTF-8"}).status == 74


def test_a_full_disk_is_no_bug() -> None:
    code = "with open('/dev/full', 'w') as file: file.write('x')"
    status, _, err = act(code)
    assert status == 74
    assert err == (
        "coreimage: error: No space left on device\nhint: free some space and try again\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_fails_because_we_stop_is_not_told(number: signal.Signals) -> None:
    """As a thread fails that was just being started."""
    code = (
        "class Late:\n"
        "    def __del__(self): raise KeyError('late')\n"
        "late = Late()\n"
        f"os.kill(os.getpid(), {number.value})\n"
        "time.sleep(60)"
    )
    status, _, err = act(code)
    assert status == 128 + number
    assert "late" not in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_cleans_up_and_is_told(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = f"""\
from pathlib import Path
from coreimage.lib import files, run
place = Path({str(tmp_path)!r})
with files.lock(place / "lock", purpose="x"), files.scratch_directory(place / "scratch"):
    with run.start(["sh", "-c", "echo $$; exec sleep 600"]) as process: pass
"""
    with run.start(argv(script), stdout=run.PIPE, stderr=run.PIPE) as process:
        assert process.stdout is not None
        child = Watch(process.stdout.readline())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert list((tmp_path / "scratch").iterdir()) == []
    assert child.is_gone()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("busy", [0, 0.2], ids=["once", "twice"])
def test_a_signal_is_not_lost_in_a_destructor(
    number: signal.Signals, code: int, busy: float
) -> None:
    status, _, stderr = act(
        f"""\
class Last:
    def __init__(self, act, argument):
        self.act, self.argument = act, argument
    def __del__(self):
        self.act(self.argument)
Last(signal.raise_signal, {number})
Last(time.sleep, {busy})
time.sleep(60)"""
    )
    assert status == code
    assert "Traceback" not in stderr
    assert "ignored" not in stderr


def test_a_command_under_nohup_goes_on() -> None:
    code = "os.kill(os.getpid(), signal.SIGHUP); print('went on')"
    assert run.run(["nohup", *argv(code)]).stdout == b"went on\n"


@pytest.mark.parametrize(
    "code",
    [
        "print('x')",
        "print('x' * 1000000)",
        "print('x', flush=True)",
        "for n in range(10**6): print(n)",
    ],
)
def test_a_reader_who_has_seen_enough_is_no_error(code: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run.run(argv(code), stdout=writer, check=False, timeout=60)
    finally:
        os.close(writer)
    assert (done.status, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_progress_in_a_pipe_is_lines() -> None:
    code = """\
progress = console.progress()
progress.stage("Building")
progress.note("a [note]")
with progress.task("Reading", 10) as task:
    task.advance(4000000)
with progress.task("Steps", None, unit="steps") as task:
    task.advance(1)
"""
    status, out, err = act(code)
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[:2] == ["== Building", "   a [note]"]
    assert lines[2].startswith("   Reading: 4.0 MB, 0.")
    assert lines[3].startswith("   Steps: 0.")


def test_tables_in_a_pipe_are_columns() -> None:
    code = "console.print_table('T', ['a', 'b'], [['1', '[bold]'], ['3', '4']])"
    assert act(code)[1] == "a\tb\n1\t[bold]\n3\t4\n"


def test_json_is_for_machines() -> None:
    code = "import pathlib; console.print_json({'a': [1], 'path': pathlib.Path('/x')})"
    assert json.loads(act(code)[1]) == {"a": [1], "path": "/x"}
