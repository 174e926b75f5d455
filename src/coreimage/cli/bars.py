"""Bars of progress on a terminal; a module of its own, since loading them takes its time."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Amount(DownloadColumn):
    """Bytes as people read them, and anything else as a number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        return super().render(task) if _in_bytes(task) else self._steps.render(task)


class _Rate(TransferSpeedColumn):
    """Bytes per second, where there are bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if _in_bytes(task) else Text("")


def _in_bytes(task: Task) -> bool:
    return bool(task.fields.get("unit") == "bytes")


def make_display(console: Console) -> Progress:
    """Return what shows any number of tasks below each other; their field `unit` says of what."""
    return Progress(
        TextColumn("   {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Amount(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
