"""Running programs: the only importer of subprocess.

Every program gets an argv list, never a shell string; no standard input unless asked for; its
own process group, so that one signal ends it with its children; and the kernel's parent-death
signal, so that it does not outlive us even when we are killed.
"""

import errno
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from coreimage.errors import CommandError, NoSpaceError, RightsError

Stream = int | IO[bytes] | None

# How long a program may take to end after SIGTERM before it is killed, in seconds. mmdebstrap
# removes a whole tree in that time.
_GRACE = 10.0
_TAIL_LINES = 15
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL
TimeoutExpired = subprocess.TimeoutExpired
Process = subprocess.Popen


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a program ended; `stdout` and `stderr` are empty unless they were captured."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""


def shell_text(argv: Sequence[str | Path]) -> str:
    """Return argv as text that can be pasted into a shell."""
    return shlex.join(str(word) for word in argv)


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the sbin directories that users lack in PATH."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def require_program(name: str) -> str:
    """Return the path of a program, or raise RightsError that says how to get it."""
    found = find_program(name)
    if found is None:
        raise RightsError(
            f"program '{name}' is not installed",
            hint="'coreimage doctor' lists what is missing and the packages that have it",
        )
    return found


def _command(argv: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in argv]
    program = words[0] if "/" in words[0] else require_program(words[0])
    command = [program, *words[1:]]
    guard = find_program("setpriv")
    return [guard, "--pdeathsig", "TERM", "--", *command] if guard else command


@contextmanager
def start(
    argv: Sequence[str | Path],
    *,
    stdin: Stream = DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    foreground: bool = False,
    session: bool = False,
) -> Iterator[Process[bytes]]:
    """Start a program and yield it; when the block is left it has ended, whatever happened.

    The caller looks at `returncode`. On an exception in the block the process group gets SIGTERM,
    then SIGKILL. `env` adds to our own environment. Must be called from a thread that outlives the
    program: the parent-death signal belongs to the thread. With `foreground` it stays in our
    process group, as a program must that reads from the terminal; with `session` it has no terminal
    at all.
    """
    process = None
    try:
        with _undisturbed():
            process = subprocess.Popen(
                _command(argv),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **env} if env is not None else None,
                cwd=cwd,
                pass_fds=pass_fds,
                process_group=None if foreground or session else 0,
                start_new_session=session,
            )
        yield process
        process.wait()
    except BaseException:
        if process is not None:
            terminate(process)
        raise
    finally:
        if process is not None:
            _close(process)


def _close(process: Process[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with suppress(BrokenPipeError):
                pipe.close()
    if process.returncode is None:
        process.wait()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back signals whose handlers raise, until the block has ended.

    An exception in the middle of starting a program would leave one that nobody knows about.
    Handlers are exchanged instead of signals blocked: a blocked signal stays so in the program.
    """
    held: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if callable(signal.getsignal(number)):
                    before[number] = signal.signal(number, lambda each, _: held.append(each))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in held:
            signal.raise_signal(each)


def terminate(process: Process[bytes], *, grace: float = _GRACE) -> None:
    """End a program and its process group: SIGTERM, and SIGKILL after `grace` seconds.

    What is left of the group when the program has ended is killed at once.
    """
    if process.returncode is not None:
        return
    # Until it is waited for, the number of the group cannot come to mean another one.
    descriptor = os.pidfd_open(process.pid)
    try:
        _signal(process, signal.SIGTERM)
        select.select([descriptor], [], [], grace)
    finally:
        _signal(process, signal.SIGKILL)
        os.close(descriptor)
        process.wait()


def _signal(process: Process[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # it stayed in our own group
        process.send_signal(number)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: Stream = DEVNULL,
    data: bytes | None = None,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    timeout: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return how it ended, output captured by default.

    `data` is given as standard input. With `check`, a status other than 0 raises CommandError
    with the command as shell text and the last lines that it said. `timeout` in seconds raises
    CommandError too; the program is ended first.
    """
    source = PIPE if data is not None else stdin
    with start(
        argv,
        stdin=source,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
    ) as process:
        try:
            out, err = process.communicate(data, timeout)
        except subprocess.TimeoutExpired as late:
            terminate(process)
            raise CommandError(
                f"'{argv[0]}' did not finish within {timeout:g} seconds: {shell_text(argv)}"
                + _tail(late.stderr or late.output or b"")
            ) from None
    completed = Completed(
        argv=tuple(str(word) for word in argv),
        status=process.returncode,
        stdout=out or b"",
        stderr=err or b"",
    )
    if check and completed.status:
        raise failure(completed)
    return completed


def failure(completed: Completed) -> CommandError:
    """Return the error that tells how a program failed; a full disk has its exit code."""
    full = os.strerror(errno.ENOSPC).encode() in completed.stderr
    error = CommandError(
        f"'{completed.argv[0]}' failed, {describe_status(completed.status)}: "
        f"{shell_text(completed.argv)}" + _tail(completed.stderr or completed.stdout),
        hint="free some space and try again" if full else "",
    )
    if full:
        error.exit_code = NoSpaceError.exit_code
    return error


def _tail(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return "".join(f"\n{line}" for line in lines[-_TAIL_LINES:])


def describe_status(status: int) -> str:
    """Return a return code in words: an exit status, or the name of a signal."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"


def replace(argv: Sequence[str | Path]) -> NoReturn:
    """Become another program, for the ones that own the terminal."""
    words = [str(word) for word in argv]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that is inherited
    os.execv(require_program(words[0]), words)
