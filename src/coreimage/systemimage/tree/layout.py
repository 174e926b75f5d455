"""The channel tree as it lies on disk: where what is, and reading it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, TrustError
from coreimage.lib import files, openpgp, trust
from coreimage.model.channels import Channels, Device
from coreimage.model.index import Index, check_path
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.tree import switch

RETIRED = "retired.json"
_OF_STATES = ("states", "state", "gpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of the tree: its number, its folder, and when it became visible."""

    serial: int
    path: Path
    published_at: datetime

    @property
    def channels(self) -> Channels:
        """The channels of this state."""
        return Channels.from_json((self.path / "channels.json").read_bytes())


def states(workspace: Workspace) -> Sequence[State]:
    """Return the states that are kept, oldest first."""
    folder = workspace.channel_tree / "states"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        (_state(path) for path in found if path.name.isdecimal()), key=lambda state: state.serial
    )


def _state(path: Path) -> State:
    when = (path / "channels.json").stat().st_mtime
    return State(serial=int(path.name), path=path, published_at=datetime.fromtimestamp(when, UTC))


def serials(workspace: Workspace) -> Sequence[int]:
    """Return the numbers of the states that are kept, ascending."""
    folder = workspace.channel_tree / "states"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def current_serial(workspace: Workspace) -> int | None:
    """Return the number of the state that is visible, None when nothing was ever published."""
    return switch.current_serial(workspace.channel_tree)


def read_channels(workspace: Workspace) -> Channels:
    """Return the channels that are visible now; none when nothing was ever published."""
    path = workspace.channel_tree / "state/channels.json"
    return Channels.from_json(path.read_bytes()) if path.exists() else Channels(channels={})


def read_index(workspace: Workspace, channel: str, device: str) -> Index:
    """Return the visible index of a device; NotFoundError names the ones that exist."""
    entry = read_channels(workspace).device(channel, device)
    return load_index(local_path(workspace, entry.index))


def read_retired(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Return the last numbers of devices that are no longer in a channel, by channel and device."""
    path = workspace.channel_tree / "state" / RETIRED
    document: Mapping[str, Mapping[str, int]] = (
        json.loads(path.read_bytes()) if path.is_file() else {}
    )
    return {channel: dict(devices) for channel, devices in document.items()}


def load_index(path: Path) -> Index:
    """Return an index that is named by channels.json; DataError when it is gone or damaged."""
    mend = "see what else is wrong with 'coreimage image missing'; bring it back from a backup"
    try:
        return Index.from_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"'{path}' is gone, and channels.json names it", hint=mend) from error
    except DataError as error:
        raise DataError(f"'{path}' is damaged: {error.message}", hint=mend) from error


def local_path(workspace: Workspace, path: str) -> Path:
    """Return where a root-relative path of the tree lies on disk; DataError if it leaves it."""
    return workspace.channel_tree / check_path(path)[1:]


def require_own(channels: Channels, channel: str, device: str) -> None:
    """Raise CoreImageError when a channel or device has its images from another channel."""
    found = channels.require(channel)
    entry = found.devices.get(device)
    target = found.follows or (entry.redirect if entry else None)
    if target is not None and target != channel:
        raise CoreImageError(
            f"'{device}' of channel '{channel}' follows channel '{target}'",
            hint=f"change '{target}': '{channel}' follows in the same step",
        )


def payload_level(device: Device | None) -> KeyringType:
    """Return whose key signs the index and the payload of a device."""
    own = device is not None and device.keyring is not None
    return KeyringType.DEVICE_SIGNING if own else KeyringType.IMAGE_SIGNING


@contextmanager
def open_chain(workspace: Workspace, *, now: datetime) -> Iterator[trust.Chain]:
    """Yield the keyrings that the tree publishes now, verified as a client would."""
    workspace.cache.mkdir(parents=True, exist_ok=True)
    # Others may publish while we read: all keyrings must be of one state.
    state = (workspace.channel_tree / "state").resolve()
    with files.scratch_directory(workspace.cache) as scratch:
        yield trust.open_chain(
            archive_master=workspace.archive_master,
            fetch=lambda path: existing(state / path[1:]),
            scratch=scratch,
            now=now,
        )


def existing(path: Path) -> Path:
    """Return a path that is a file; NotFoundError for any other."""
    if not path.is_file():
        raise NotFoundError(f"there is no '{path}'")
    return path


def signatures(workspace: Workspace) -> Iterator[Path]:
    """Yield the signatures of everything in the tree that does not belong to a state."""
    for path in sorted(workspace.channel_tree.rglob("*.asc")):
        folder = path.relative_to(workspace.channel_tree).parts[0]
        if folder not in _OF_STATES and not folder.startswith(".") and not path.is_symlink():
            yield path


def signer_of(path: Path) -> str:
    """Return the fingerprint that a file's signature names as its maker, empty if it names none."""
    signature = Path(f"{path}.asc")
    try:
        return openpgp.issuer(signature.read_bytes(), name=signature.name)
    except (FileNotFoundError, TrustError):
        return ""
