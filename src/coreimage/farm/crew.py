"""Several builds at the same time, carried out by one process, and ended with it."""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

from coreimage.config import Workspace
from coreimage.errors import BusyError, CoreImageError, TerminatedError
from coreimage.farm import queue
from coreimage.farm.attempt import Running, begin
from coreimage.farm.voice import Voice
from coreimage.model.build import Build, BuildStatus

_LOOK_INTERVAL = 0.2
# Seconds between looks whether somebody wants a build to end.
_ABORT_INTERVAL = 1.0
_STOPPED = "its runner was stopped"


def worker_name() -> str:
    """Return what this process is called in the records of builds."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Crew:
    """Builds that run; when the block is left before its time they are ended.

    Those are aborted then, or with `requeue` put back into the queue.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        requeue: bool = False,
        clock: Callable[[], datetime] = queue.now_utc,
    ) -> None:
        self._workspace = workspace
        self._store = queue.open_store(workspace)
        self._requeue = requeue
        self._clock = clock
        self._members: dict[int, Running] = {}
        self._next_look = 0.0

    def __enter__(self) -> Self:
        """Begin without builds."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End what still runs."""
        message = _STOPPED if self._requeue else queue.ABORTED
        for each in self._members.values():
            each.ask_to_end()
        with ExitStack() as stack:  # the others are ended also when one gives trouble
            for each in self._members.values():
                stack.callback(each.stop, message, requeue=self._requeue)

    def __len__(self) -> int:
        """Return how many builds run."""
        return len(self._members)

    def __contains__(self, build_id: int) -> bool:
        """Tell whether a build runs here."""
        return build_id in self._members

    def take(self, build: Build, *, argv: Sequence[str], voice: Voice) -> bool:
        """Begin a build; False when it is not pending any more, or somebody else has it."""
        try:
            self._members[build.id] = begin(
                self._workspace,
                build.id,
                argv=argv,
                voice=voice,
                worker=worker_name(),
                clock=self._clock,
            )
        except TerminatedError:
            raise
        except BusyError:
            return False
        except (CoreImageError, OSError):
            now = self._store.get(build.id)
            if now.status is BuildStatus.PENDING and now.attempt == build.attempt:
                raise  # nobody has it, and there is no record of what is wrong
            return False
        return True

    def wait(self, seconds: float = _LOOK_INTERVAL) -> list[Running]:
        """Tell what the builds say for some time, and return those that have ended by then."""
        if not self._members:
            time.sleep(seconds)
            return []
        descriptors = [each.descriptor for each in self._members.values()]
        ready, _, _ = select.select(descriptors, [], [], min(seconds, _LOOK_INTERVAL))
        for each in self._members.values():
            each.narrator.new_lines()
        self._end_the_unwanted()
        ended = [each for each in self._members.values() if each.descriptor in ready]
        for each in ended:
            each.finish()
            each.release()
            del self._members[each.build.id]
        return ended

    def _end_the_unwanted(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _ABORT_INTERVAL
        try:
            running = self._store.find(statuses=[BuildStatus.RUNNING])
        except BusyError:  # the next look will tell
            return
        for build in running:
            if build.abort_asked and build.id in self._members:
                self._members[build.id].ask_to_end()
