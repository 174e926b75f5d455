"""What a build says, told to whoever watches."""

from collections.abc import Callable
from dataclasses import dataclass

from coreimage.farm import log
from coreimage.farm.folder import BuildFolder
from coreimage.lib.progress import Progress

_STAGE = "== "
_NOTE = "   "


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Stages go to `progress`, other lines to `echo`; each with `prefix` before it."""

    progress: Progress
    echo: Callable[[str], None] | None = None
    prefix: str = ""

    def stage(self, title: str) -> None:
        """Tell a new stage."""
        self.progress.stage(f"{self.prefix}{title}")

    def note(self, message: str) -> None:
        """Tell something worth reading once."""
        self.progress.note(f"{self.prefix}{message}")

    def line(self, text: str) -> None:
        """Tell a line of the log."""
        if text.startswith(_STAGE):
            self.stage(text.removeprefix(_STAGE))
        elif text and self.echo is not None:
            mark = _NOTE if text.startswith(_NOTE) else ""
            self.echo(f"{mark}{self.prefix}{text.removeprefix(mark)}")


class Narrator:
    """Tells what is new in a log."""

    def __init__(self, folder: BuildFolder, voice: Voice, *, position: int = 0) -> None:
        self._folder = folder
        self._voice = voice
        self._position = position
        self._rest = b""

    def new_lines(self) -> None:
        """Tell the lines that were completed since the last call."""
        for chunk in log.read_from(self._folder, self._position):
            self._position += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._voice.line(log.printable(line.decode(errors="replace")))
