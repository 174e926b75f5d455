"""What every command shares: results on stdout, progress on stderr, errors with hints and codes."""

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreimage.errors import (
    CoreImageError,
    NoSpaceError,
    NotFoundError,
    RightsError,
    TerminatedError,
)

if TYPE_CHECKING:
    from rich.progress import Progress

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="COREIMAGE_WORKSPACE",
        help="The workspace; by default the nearest one above the current folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
_INTERNAL = 70
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SOON = 0.01  # seconds until a stop that was lost is tried again


class _Task:
    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance


def _say(line: str) -> None:
    # One write: lines of several threads must not mix, as those of print() may.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class PlainProgress:
    """Progress as lines, for logs and pipes: when a task begins and when it ends."""

    def stage(self, title: str) -> None:
        """Print the stage's title."""
        _say(f"== {title}")

    def note(self, message: str) -> None:
        """Print the message."""
        _say(f"   {message}")

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "bytes") -> Iterator[_Task]:
        """Print one line when the task is done, with amount, time and rate."""
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount

        del total
        begun = time.monotonic()
        yield _Task(advance)
        seconds = time.monotonic() - begun
        amount = f"{done / 1e6:.1f} MB, " if unit == "bytes" else ""
        rate = f", {done / 1e6 / seconds:.1f} MB/s" if unit == "bytes" and seconds > 1 else ""
        _say(f"   {title}: {amount}{seconds:.1f} s{rate}")


class RichProgress:
    """Progress for a person at a terminal: bars with amount, rate and remaining time.

    Tasks may run at the same time, in several threads: their bars stand below each other.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._display: Progress | None = None
        self._running = 0

    def stage(self, title: str) -> None:
        """Print the stage's title."""
        self._console.print(f"[bold cyan]==[/] [bold]{_escaped(title)}[/]")

    def note(self, message: str) -> None:
        """Print the message."""
        self._console.print(f"   {_escaped(message)}")

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "bytes") -> Iterator[_Task]:
        """Show a bar until the task is done."""
        with self._shown() as bars:
            bar = bars.add_task(_escaped(title), total=total, unit=unit)
            yield _Task(lambda amount: bars.advance(bar, amount))
            if total is None:
                bars.update(bar, total=bars.tasks[bar].completed or 1, completed=None)

    @contextmanager
    def _shown(self) -> "Iterator[Progress]":
        """Yield the display that all tasks of this moment share; a terminal has room for one."""
        from coreimage.cli.bars import make_display

        with self._lock:
            if self._display is None:
                self._display = make_display(self._console)
                self._display.start()
            display = self._display
            self._running += 1
        try:
            yield display
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    display.stop()
                    self._display = None


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def progress() -> PlainProgress | RichProgress:
    """Return progress for who is at the other end of stderr."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def print_json(value: Any) -> None:
    """Print a result for machines."""
    print(json.dumps(value, indent=4, default=str))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a result for people; plain columns when stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            print("\t".join(row))
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    Console().print(table)


def print_section(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one of several tables of a result, with its title also where columns are plain."""
    print()
    if not sys.stdout.isatty():
        print(title)
    print_table(title, columns, rows)


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.unraisablehook = _not_heard
    raise TerminatedError(number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.unraisablehook = _not_heard
    signal.default_int_handler(number, frame)


def _not_heard(lost: "sys.UnraisableHookArgs") -> None:
    """Raise again what a signal raised in a destructor or a callback, where nobody can catch it.

    Nothing else is told any more: a thread that was just being started fails, for one.
    """
    stopped = lost.exc_value
    here = threading.current_thread() is threading.main_thread()
    if not here or not isinstance(stopped, TerminatedError | KeyboardInterrupt):
        return

    def again(_number: int, _frame: FrameType | None) -> None:
        raise stopped.with_traceback(None)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _SOON)


def guarded(app: typer.Typer, name: str) -> int:
    """Run a command line and return its exit code; errors become a message and a hint."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else we were started by nohup
        signal.signal(signal.SIGHUP, _stop)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        status = app(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except CoreImageError as error:
        return report(error)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _unread()
    except SystemExit as error:  # how Typer ends when nobody reads our output
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return _unread()
    except Exception as error:  # noqa: BLE001  the last resort: a bug must not look like bad input
        return _bug(name, error)
    return status if isinstance(status, int) else 0


def _unread() -> int:
    # Whoever read our output has seen enough; keep the interpreter from complaining at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return 128 + signal.SIGPIPE


def report(error: CoreImageError) -> int:
    """Print an error as people should see it and return its exit code."""
    # What stderr goes to may be on the disk that is full: the exit code says it all the same.
    with suppress(OSError):
        print(f"coreimage: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _bug(name: str, error: Exception) -> int:
    shown = getattr(error, "show", None)  # Typer's own usage errors know how to show themselves
    if callable(shown):
        shown()
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, OSError) and error.errno in _FULL:
        return report(NoSpaceError(f"{error.strerror}", hint="free some space and try again"))
    if isinstance(error, OSError) and error.filename is not None:
        said = f"'{error.filename}': {error.strerror}"
        if isinstance(error, FileNotFoundError):
            return report(NotFoundError(said, hint="check the path"))
        if isinstance(error, PermissionError):
            return report(RightsError(said, hint="check who may read or write it"))
        return report(CoreImageError(said))
    traceback.print_exception(error)
    print(f"{name}: internal error: {error}", file=sys.stderr)
    print("hint: this is a bug; please report it with the lines above", file=sys.stderr)
    return _INTERNAL
