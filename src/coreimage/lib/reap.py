"""A program and all that it starts, ended together: also what left its process group or session.

Whoever loses its parent below us becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER). A signal
goes only to children that were not waited for yet: their numbers cannot mean another process.
"""

import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from coreimage.errors import RightsError
from coreimage.lib import run

_PR_SET_CHILD_SUBREAPER = 36
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Wakes us up in any case, should a signal have come between two looks.
_LOOK_INTERVAL = 1.0


def run_reaped(argv: Sequence[str], *, grace: float) -> int:
    """Run a program to its end and return its status, a signal's as a negative number.

    Nothing that it has started is alive then. A signal that asks us to stop is passed on as
    SIGTERM; after `grace` seconds comes SIGKILL. To be called once, in a process of its own.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise RightsError(f"prctl: {os.strerror(ctypes.get_errno())}")
    with _signals() as (waker, stops):
        try:
            with run.start(argv) as process:
                deadline = None
                while _reap_orphans(process.pid) and process.poll() is None:
                    if stops and deadline is None:
                        deadline = time.monotonic() + grace
                        _signal_group(process.pid, signal.SIGTERM)
                    elif deadline is not None and time.monotonic() >= deadline:
                        _signal_group(process.pid, signal.SIGKILL)
                    select.select([waker], [], [], _LOOK_INTERVAL)
                    with suppress(BlockingIOError):
                        waker.recv(4096)
                return process.wait()
        finally:
            end_children()


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, list[int]]]:
    """Yield what becomes readable when a signal comes, and the list of those that ask to stop."""
    waker, alarm = socket.socketpair()
    waker.setblocking(False)
    alarm.setblocking(False)
    stops: list[int] = []
    signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
    for number in _STOPPING:
        signal.signal(number, lambda each, _: stops.append(each))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield waker, stops
    finally:
        signal.set_wakeup_fd(-1)
        waker.close()
        alarm.close()


def _reap_orphans(own: int) -> bool:
    """Wait for orphans that have ended; tell whether our own program still runs."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return True
        if ended.si_pid == own:
            return False
        os.waitpid(ended.si_pid, 0)


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def end_children() -> None:
    """Kill our children and whoever becomes our child by that, until there is none."""
    while True:
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    """Yield the processes whose parent we are. Source: proc(5), /proc/[pid]/stat."""
    ours = os.getpid()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name of the program, in parentheses, may hold anything.
            fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == ours:
                yield int(place.name)
