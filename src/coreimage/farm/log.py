"""Build logs: followed while they grow, compressed when the build is over, read in either form.

Positions are bytes of the text, also in a compressed log.
"""

import gzip
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from coreimage.errors import NotFoundError
from coreimage.farm.folder import BuildFolder, log_name
from coreimage.lib import files
from coreimage.model.build import BuildRequest, BuildStatus

# Seconds between looks: a person does not notice, a processor neither.
_INTERVAL = 0.25
_TAIL_BYTES = 64 << 10
# A log changes its form under us once at most; then the other form is there.
_LOOKS = 3


def open_log(folder: BuildFolder) -> IO[bytes] | None:
    """Return the open text of a log in whichever form it has; None when there is none yet."""
    for _ in range(_LOOKS):
        with suppress(FileNotFoundError):
            return folder.log.open("rb")
        packed = folder.packed_log
        if packed is None:
            continue
        with suppress(FileNotFoundError):
            return cast("IO[bytes]", gzip.open(packed, "rb"))
    return None


def read_log(folder: BuildFolder) -> Iterator[bytes]:
    """Yield what a log holds now; NotFoundError when the build has not begun to write one."""
    file = open_log(folder)
    if file is None:
        raise NotFoundError(
            f"build '{folder.root.name}' has no log yet: it has not begun",
            hint="wait for it with --follow",
        )
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
    file = open_log(folder)
    if file is None:
        return
    with file:
        file.seek(position)
        while chunk := file.read(files.CHUNK):
            yield chunk


def has_ended(folder: BuildFolder) -> bool:
    """Tell whether the log of a build will not grow any more, also when its builder died."""
    status = folder.read().status
    if status is BuildStatus.PENDING:
        return False
    return status.finished or not files.is_locked(folder.lock)


def tail(folder: BuildFolder, *, limit: int = _TAIL_BYTES) -> tuple[bytes, int]:
    """Return the last bytes of a log, at most `limit`, and the position after them."""
    file = open_log(folder)
    if file is None:
        return b"", 0
    with file:
        with suppress(FileNotFoundError):  # a compressed one has to be read to its end
            file.seek(max(0, folder.log.stat().st_size - limit))
        kept = b""
        while chunk := file.read(files.CHUNK):
            kept = (kept + chunk)[-limit:]
        return kept, file.tell()


def last_lines(folder: BuildFolder, count: int) -> list[str]:
    """Return the last lines of a log, as text without what could steer a terminal."""
    text = tail(folder)[0].decode(errors="replace")
    return [printable(line) for line in text.splitlines()[-count:]]


def printable(line: str) -> str:
    """Return a line of a log as a terminal may show it: of an overwritten line, the last state."""
    shown = line.rstrip().rsplit("\r", 1)[-1]
    return "".join(character for character in shown if character == "\t" or character.isprintable())


def pack(folder: BuildFolder, request: BuildRequest) -> None:
    """Compress the log of a build that is over; at any moment one form of it is whole."""
    target = folder.root / log_name(request)
    with suppress(FileNotFoundError), folder.log.open("rb") as plain:
        _write(target, plain, packed=True)
        folder.log.unlink()


def unpack(folder: BuildFolder) -> None:
    """Make the log of a build that is to be tried again one that can grow."""
    packed = folder.packed_log
    if packed is None:
        return
    if not folder.log.exists():
        with gzip.open(packed, "rb") as text:
            _write(folder.log, cast("IO[bytes]", text), packed=False)
    packed.unlink()


def _write(target: Path, source: IO[bytes], *, packed: bool) -> None:
    temporary = target.with_name(f".{target.name}.partial")
    with temporary.open("wb") as file:
        if packed:
            # Neither name nor time: the same text gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as text:
                files.copy_stream(source, cast("BinaryIO", text))
        else:
            files.copy_stream(source, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    files.fsync_directory(target.parent)
