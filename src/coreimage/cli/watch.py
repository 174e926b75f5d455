"""Watching a build: what its log says, while it says it."""

import shutil
import sys
import time
from collections.abc import Callable

from coreimage.cli import console

_NOTE = "   "


class Watch:
    """Shows a running build: its stages, and in a terminal the log's current line.

    The line shows for how many seconds the stage has been running.
    """

    def __init__(self) -> None:
        self._progress = console.progress()
        self.task = self._progress.task
        self._live = sys.stderr.isatty()
        self._begun = time.monotonic()

    def stage(self, title: str) -> None:
        """Show the stage's title."""
        self._begun = time.monotonic()
        self._instead(lambda: self._progress.stage(title))

    def note(self, message: str) -> None:
        """Show the message."""
        self._instead(lambda: self._progress.note(message))

    def line(self, text: str) -> None:
        """Show a line of the log: notes to stay, the others until the next one."""
        if text.startswith(_NOTE):
            self.note(text.strip())
        elif self._live:
            elapsed = f"{time.monotonic() - self._begun:4.0f} s  {text.expandtabs()}"
            shown = elapsed[: shutil.get_terminal_size().columns - len(_NOTE) - 1]
            print(f"\r\x1b[2K\x1b[2m{_NOTE}{shown}\x1b[0m", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line that is not to stay."""
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _instead(self, show: Callable[[], None]) -> None:
        self.clear()
        show()
