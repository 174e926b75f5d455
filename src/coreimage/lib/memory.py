"""What a client remembers of servers: one small file for each archive-master key, never in a cache.

Losing it means believing an old state once; so it lies where nothing is cleaned away, is written in
one step, and what cannot be read is an error rather than a fresh start.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreimage.errors import DataError, RightsError, TrustError
from coreimage.lib import files
from coreimage.model.document import parse_object
from coreimage.model.freshness import NOTHING, Remembered, SeenImage, SeenStore

_LOCK_WAIT = 30.0


def default_directory() -> Path:
    """Return where a person's programs keep their state. Source: XDG Base Directory Specification.

    A relative XDG_STATE_HOME counts as none, as the specification wants.
    """
    named = Path(os.environ.get("XDG_STATE_HOME") or "")
    state = named if named.is_absolute() else Path.home() / ".local/state"
    return state / "coreimage/trust"


def load(directory: Path, fingerprints: Sequence[str]) -> Remembered:
    """Return what is remembered of the server with these archive-master keys.

    When they have files of their own, which happens when the root of trust was renewed, the newest
    counts, with all keys that were ever revoked. Raises TrustError for a damaged file.
    """
    found = [_read(path) for path in _paths(directory, fingerprints) if path.exists()]
    newest = max(found, key=lambda each: each.serial, default=NOTHING)
    revoked = frozenset[str]().union(*(each.revoked for each in found))
    return Remembered(**{**_shallow(newest), "revoked": revoked})


def update(
    directory: Path, fingerprints: Sequence[str], change: Callable[[Remembered], Remembered]
) -> Remembered:
    """Replace what is remembered by what `change` makes of it; nobody else does meanwhile.

    Whatever `change` raises leaves it as it was. Raises RightsError when it cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.lock(directory / "trust.lock", purpose="remember", wait=_LOCK_WAIT):
            before = load(directory, fingerprints)
            after = change(before)
            for path in _paths(directory, fingerprints):
                if after != before or not path.exists():
                    files.write_atomically(path, _text(after), mode=0o600)
    except OSError as error:
        raise RightsError(
            f"what was seen of the server cannot be remembered in '{directory}': {error.strerror}",
            hint="set XDG_STATE_HOME to a folder that you may write and that is not cleaned away",
        ) from error
    return after


def _paths(directory: Path, fingerprints: Sequence[str]) -> list[Path]:
    return [directory / f"{each}.json" for each in fingerprints]


def _shallow(remembered: Remembered) -> dict[str, Any]:
    names = ("serial", "digest", "signed_by", "time", "images", "stores", "revoked")
    return {name: getattr(remembered, name) for name in names}


def _text(remembered: Remembered) -> str:
    document = {
        **_shallow(remembered),
        "time": remembered.time and remembered.time.isoformat(),
        "images": {name: asdict(image) for name, image in remembered.images.items()},
        "stores": {name: asdict(store) for name, store in remembered.stores.items()},
        "revoked": sorted(remembered.revoked),
    }
    return json.dumps(document, indent=4, sort_keys=True) + "\n"


def _read(path: Path) -> Remembered:
    try:
        fields = parse_object(path.read_bytes(), name=str(path))
        if type(fields["serial"]) is not int:
            raise DataError("'serial' is not a number")
        time = fields["time"] and datetime.fromisoformat(fields["time"]).astimezone(UTC)
        return Remembered(
            serial=fields["serial"],
            digest=str(fields["digest"]),
            signed_by=str(fields["signed_by"]),
            time=time,
            images={name: SeenImage(**image) for name, image in fields["images"].items()},
            # Files that were written before stores were remembered have none.
            stores={name: SeenStore(**store) for name, store in fields.get("stores", {}).items()},
            revoked=frozenset(fields["revoked"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise TrustError(
            f"'{path}', which remembers what was seen of the server, is damaged: {error}",
            hint="put it back from a backup; without it, an old state would be believed once",
        ) from error
