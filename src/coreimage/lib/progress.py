"""Progress: what long work tells the person who waits, without knowing how it is shown."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from coreimage.lib.files import Reader


class Task(Protocol):
    """One piece of work with an amount."""

    def advance(self, amount: int) -> None:
        """Say that `amount` more units are done."""


class Progress(Protocol):
    """Where a stage reports to."""

    def stage(self, title: str) -> None:
        """Begin a new stage of the road."""

    def note(self, message: str) -> None:
        """Tell something worth reading once."""

    def task(
        self, title: str, total: int | None, *, unit: str = "bytes"
    ) -> AbstractContextManager[Task]:
        """Yield a task of `total` units, or of unknown length; unit is bytes, seconds or steps."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        """Say nothing."""


class Silent:
    """Progress for those who do not watch."""

    def stage(self, title: str) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    @contextmanager
    def task(self, title: str, total: int | None, *, unit: str = "bytes") -> Iterator[Task]:  # noqa: ARG002  the protocol's signature
        """Yield a task that says nothing."""
        yield _SilentTask()


class ProgressReader:
    """Pass bytes through and advance a task on the way."""

    def __init__(self, source: Reader, task: Task) -> None:
        self._source = source
        self._task = task

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes of the source."""
        data = self._source.read(size)
        self._task.advance(len(data))
        return data
