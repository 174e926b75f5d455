"""What the states of a channel tree name: every index, keyring and file, without models.

Reads the JSON as it lies there, because there may be thousands of indexes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.errors import DataError
from coreimage.model.document import parse_object
from coreimage.systemimage.tree import layout
from coreimage.systemimage.tree.layout import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A device of a channel in a state: the paths of its index and of its own keyring."""

    channel: str
    device: str
    index: str
    keyring: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A file that an index names; size in bytes."""

    path: str
    checksum: str
    size: int


def live_states(workspace: Workspace, *, now: datetime, grace: timedelta) -> Sequence[State]:
    """Return the states that a client may still be reading, oldest first: the current one is last.

    A state is alive until `grace` after another one took its place.
    """
    current = layout.current_serial(workspace)
    states = [
        state
        for state in layout.states(workspace)
        if current is not None and state.serial <= current
    ]
    alive = [state for state, next_ in pairwise(states) if next_.published_at > now - grace]
    return [*alive, *states[-1:]]


def entries(state: State) -> Iterator[Entry]:
    """Yield the devices of a state; raises DataError."""
    path = state.path / "channels.json"
    document = parse_object(path.read_bytes(), name=str(path))
    try:
        for channel, found in document.items():
            for device, fields in found["devices"].items():
                keyring = fields.get("keyring")
                yield Entry(
                    channel=channel,
                    device=device,
                    index=fields["index"],
                    keyring=keyring["path"] if keyring else None,
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is malformed: {error}") from error


def named_files(path: Path) -> Iterator[Named]:
    """Yield the files that an index names, some more than once; raises DataError."""
    document: Any = parse_object(path.read_bytes(), name=str(path))
    try:
        for image in document["images"]:
            for file in image["files"]:
                yield Named(path=file["path"], checksum=file["checksum"], size=file["size"])
    except (KeyError, TypeError) as error:
        raise DataError(f"'{path}' is malformed: {error}") from error
