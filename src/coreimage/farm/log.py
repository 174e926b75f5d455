"""Build logs: followed while they grow, and their last lines."""

import os
import time
from collections.abc import Iterator

from coreimage.errors import NotFoundError
from coreimage.farm.folder import BuildFolder
from coreimage.lib import files
from coreimage.model.build import BuildState

# Seconds between looks: a person does not notice, a processor neither.
_INTERVAL = 0.25
_TAIL_BYTES = 64 << 10


def read_log(folder: BuildFolder) -> Iterator[bytes]:
    """Yield what a log holds now; NotFoundError when the build has not begun to write one."""
    try:
        file = folder.log.open("rb")
    except FileNotFoundError:
        raise NotFoundError(
            f"build '{folder.root.name}' has no log yet: it has not begun",
            hint="wait for it with --follow",
        ) from None
    with file:
        while chunk := file.read(files.CHUNK):
            yield chunk


def follow(folder: BuildFolder, *, interval: float = _INTERVAL) -> Iterator[bytes]:
    """Yield what is written to the log, from its start, until the build has ended.

    Waits for a build that has not begun. Holds no file open between looks.
    """
    position = 0
    while True:
        # Asked before reading: what is written up to the end is then read for certain.
        ended = has_ended(folder)
        for chunk in read_from(folder, position):
            position += len(chunk)
            yield chunk
        if ended:
            return
        time.sleep(interval)


def read_from(folder: BuildFolder, position: int) -> Iterator[bytes]:
    """Yield what a log holds from a byte on; nothing when it does not exist yet."""
    try:
        file = folder.log.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(position)
        while chunk := file.read(files.CHUNK):
            yield chunk


def has_ended(folder: BuildFolder) -> bool:
    """Tell whether the log of a build will not grow any more, also when its builder died."""
    state = folder.read().state
    if state is BuildState.NEEDS_BUILDING:
        return False
    return state.finished or not files.is_locked(folder.lock)


def last_lines(folder: BuildFolder, count: int) -> list[str]:
    """Return the last lines of a log, as text without what could steer a terminal."""
    try:
        with folder.log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [printable(line) for line in text.splitlines()[-count:]]


def printable(line: str) -> str:
    """Return a line of a log as a terminal may show it: of an overwritten line, the last state."""
    shown = line.rstrip().rsplit("\r", 1)[-1]
    return "".join(character for character in shown if character == "\t" or character.isprintable())
