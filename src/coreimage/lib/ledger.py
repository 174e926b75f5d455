"""A log that only grows, and shows when it was changed: JSON lines, each with the hash of the last.

    {"number": 2, "previous": "<sha256 of the line before>", "time": "2026-11-24T12:00:00Z", …}

The first line's `previous` is 64 zeros. Changing, removing or inserting a line breaks the chain
behind it; cutting lines off the end does not, unless somebody remembers the last `previous`.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from coreimage.errors import DataError, TrustError
from coreimage.model.document import parse_object

START = "0" * 64
# No line of ours is longer; the last one is found from the end, whatever the log's size.
_TAIL = 64 << 10
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line: its number from 1, when it was written (UTC), what it says, and its own hash."""

    number: int
    time: str
    fields: Mapping[str, Any]
    digest: str


def append(path: Path, fields: Mapping[str, Any], *, now: datetime) -> int:
    """Add a line and return its number once it is on the disk.

    What a power cut left of a last line is removed first: its writer was never told that it is
    there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as descriptor:
        last = _last_line(descriptor)
        number = _entry(last, str(path)).number + 1 if last else 1
        head = {
            "number": number,
            "previous": _digest(last) if last else START,
            "time": now.strftime(_TIME),
        }
        line = json.dumps({**head, **fields}, ensure_ascii=True).encode() + b"\n"
        os.write(descriptor, line)
        os.fsync(descriptor)
    return number


def read(path: Path) -> list[Entry]:
    """Return the entries from the first to the last; raises TrustError where the chain is broken.

    The error names the line. Without a log there are none.
    """
    return list(_verified(path)) if path.is_file() else []


def _verified(path: Path) -> Iterator[Entry]:
    previous = START
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip(b"\n")
            try:
                entry = _entry(text, f"line {number} of '{path}'")
                link = entry.fields["previous"]
            except (DataError, KeyError) as error:
                raise TrustError(f"line {number} of '{path}' is damaged: {error}") from error
            if entry.number != number or link != previous:
                raise TrustError(
                    f"the chain of '{path}' is broken at line {number}: it follows {link[:16]}…, "
                    f"expected {previous[:16]}…",
                    hint="a line before it was changed, removed or added; compare with a backup",
                )
            previous = entry.digest
            yield entry


def _entry(line: bytes, name: str) -> Entry:
    fields = parse_object(line, name=name)
    number, time = fields.get("number"), fields.get("time")
    if type(number) is not int or not isinstance(time, str):
        raise DataError(f"{name} has no number and time")
    return Entry(number=number, time=time, fields=fields, digest=_digest(line))


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _last_line(descriptor: int) -> bytes:
    """Return the last whole line without its end, empty when there is none."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail):
        os.ftruncate(descriptor, size - (len(tail) - len(whole)))
    return whole.rstrip(b"\n").rpartition(b"\n")[2]
