"""The serial console: bytes in any portions become lines of plain text, in bounded memory."""

import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

# A line longer than this, in bytes, is cut in two.
LINE_LIMIT = 1024
TAIL_LINES = 30
LOG_LIMIT = 16 << 20
# Moves of the cursor begin a new line of text: firmware and GRUB paint their screens with them.
_MOVES = re.compile(r"\x1b\[[0-9;]*[Hf]")
# Source: ECMA-48, 5.3, 5.4 and 8.3.89, and the ISO 2022 designators that terminals know.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]+[0-~]|\x1b[0-~]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def plain_lines(raw: bytes) -> list[str]:
    """Return what a line of the console says, without escape sequences and control characters.

    A line on which the cursor was moved gives several.
    """
    text = _MOVES.sub("\n", raw.decode(errors="replace"))
    parts = (_CONTROLS.sub("", _ESCAPES.sub("", part)).rstrip() for part in text.split("\n"))
    return [part for part in parts if part]


class Console:
    """The guest's words so far: the unfinished line and the last lines before it."""

    def __init__(self) -> None:
        self._rest = b""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes) -> Iterator[str]:
        """Take the next bytes and yield the lines that they finish."""
        self._rest += data
        while (line := self._next_line()) is not None:
            for text in plain_lines(line):
                self.tail.append(text)
                yield text

    def _next_line(self) -> bytes | None:
        end = self._rest.find(b"\n", 0, LINE_LIMIT)
        if end >= 0:
            line, self._rest = self._rest[:end], self._rest[end + 1 :]
            return line
        if len(self._rest) > LINE_LIMIT:
            line, self._rest = self._rest[:LINE_LIMIT], self._rest[LINE_LIMIT:]
            return line
        return None

    def unfinished(self) -> list[str]:
        """Return the text after the last line end: a prompt has no line end."""
        return plain_lines(self._rest)

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines, the unfinished one among them."""
        return (*self.tail, *self.unfinished())[-TAIL_LINES:]


class BoundedLog:
    """A file that a guest which talks without end cannot fill the disk with."""

    def __init__(self, file: BinaryIO, *, limit: int = LOG_LIMIT) -> None:
        self._file = file
        self._left = limit

    def write(self, data: bytes) -> None:
        """Write the bytes, as far as the limit allows, for others to read at once."""
        if not self._left:
            return
        self._file.write(data[: self._left])
        self._left = max(0, self._left - len(data))
        if not self._left:
            self._file.write(b"\n[coreimage: the rest of the console is not kept]\n")
        self._file.flush()
