"""The channel tree: read it, and change it in transactions that readers see whole or not at all.

    state -> states/<serial>                       the switch, replaced by one rename
    states/<serial>/channels.json(.asc), gpg/      immutable
    channels.json, channels.json.asc, gpg          fixed links through `state`
    <channel>/<device>/index-<digest>.json(.asc)   immutable, named by channels.json
    <channel>/<device>/version-<N>.tar.xz(.asc)    immutable, named by an index
    pool/<prefix>-<sha256>.tar.xz(.asc)            immutable, named by an index

A reader that must have a pair of one state opens the directory `state` and reads both files
through it.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import DataError, NotFoundError
from coreimage.lib import files, trust
from coreimage.model.channels import Channel, Channels, Device
from coreimage.model.index import Index, check_path
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.signing import SigningService
from coreimage.systemimage.signpolicy import Purpose

_LOCK_WAIT = 600.0
_STATES_KEPT = 3
_DIGEST_LENGTH = 16
_LINKS = {
    "channels.json": "state/channels.json",
    "channels.json.asc": "state/channels.json.asc",
    "gpg": "state/gpg",
}


def read_channels(workspace: Workspace) -> Channels:
    """Return the channels that are visible now; none when nothing was ever published."""
    path = workspace.channel_tree / "state/channels.json"
    return Channels.from_json(path.read_bytes()) if path.exists() else Channels(channels={})


def read_index(workspace: Workspace, channel: str, device: str) -> Index:
    """Return the visible index of a device; NotFoundError names the ones that exist."""
    entry = read_channels(workspace).device(channel, device)
    return Index.from_json(local_path(workspace, entry.index).read_bytes())


def local_path(workspace: Workspace, path: str) -> Path:
    """Return where a root-relative path of the tree lies on disk; DataError if it leaves it."""
    return workspace.channel_tree / check_path(path)[1:]


def payload_level(device: Device | None) -> KeyringType:
    """Return whose key signs the index and the payload of a device."""
    own = device is not None and device.keyring is not None
    return KeyringType.DEVICE_SIGNING if own else KeyringType.IMAGE_SIGNING


@contextmanager
def open_chain(workspace: Workspace, *, now: datetime) -> Iterator[trust.Chain]:
    """Yield the keyrings that the tree publishes now, verified as a client would."""
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with files.scratch_directory(workspace.cache) as scratch:
        yield trust.open_chain(
            archive_master=workspace.archive_master,
            fetch=lambda path: _existing(workspace.channel_tree / f"state{path}"),
            scratch=scratch,
            now=now,
        )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError(f"there is no '{path}'")
    return path


@contextmanager
def edit(
    workspace: Workspace, *, now: datetime, purpose: str, signer: SigningService | None = None
) -> Iterator["Edit"]:
    """Yield a transaction; when the block ends well, its changes become visible in one step.

    Others wait for their turn. An exception in the block leaves the tree as it was. A block that
    changed nothing publishes nothing. `signer` is the workspace's unless another one is given.
    """
    tree = workspace.channel_tree
    tree.mkdir(parents=True, exist_ok=True)
    lock = workspace.state / "locks/system-image.lock"
    with (
        files.lock(lock, purpose=purpose, wait=_LOCK_WAIT),
        files.scratch_directory(tree) as scratch,
    ):
        _sweep_links(tree)
        transaction = Edit(
            workspace, scratch=scratch, now=now, signer=signer or SigningService(workspace)
        )
        yield transaction
        transaction.commit()


class Edit:
    """What one transaction will publish. Made by `edit` only."""

    def __init__(
        self, workspace: Workspace, *, scratch: Path, now: datetime, signer: SigningService
    ) -> None:
        self.workspace = workspace
        self.scratch = scratch
        self.now = now
        self.signer = signer
        self._before = self.channels = read_channels(workspace)
        self._serials = _serials(workspace.channel_tree)
        self._staged: dict[str, Path] = {}
        self._state = scratch / "state"
        self._new_keyrings = False
        (self._state / "gpg").mkdir(parents=True)
        current = workspace.channel_tree / "state/gpg"
        if current.is_dir():
            shutil.copytree(current, self._state / "gpg", dirs_exist_ok=True)

    @property
    def serial(self) -> int:
        """The number of the state that will be published."""
        return max(self._serials, default=0) + 1

    def set_channel(self, name: str, channel: Channel) -> None:
        """Add or replace a channel."""
        self.channels = Channels(channels={**self.channels.channels, name: channel})

    def put_file(self, path: str, staged: Path) -> None:
        """Publish a finished file at a root-relative path, with its signature beside it.

        `staged` and `staged`.asc must lie on the file system of the tree; they are moved.
        """
        self._staged[check_path(path)] = staged

    def put_index(self, channel: str, device: str, index: Index) -> None:
        """Publish the index of a device, adding the device to its channel when it is new.

        The index says which channel and device it is for and of which state it is, so that a
        client can notice one that was moved or replayed.
        """
        found = self.channels.require(channel)
        for image in index.images:
            for file in image.files:
                self._require_published(file.path)
        head = {"channel": channel, "device": device, "serial": self.serial}
        text = replace(index, generated_at=self.now, extra={**index.extra, **head}).to_json()
        Index.from_json(text)  # what clients would stumble over is refused here
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
        staged = self.scratch / f"index-{digest}.json"
        files.write_atomically(staged, text)
        old = found.devices.get(device)
        self.signer.sign(
            staged,
            Path(f"{staged}.asc"),
            level=payload_level(old),
            purpose=Purpose.INDEX,
            channel=channel,
            device=device,
        )
        path = f"/{channel}/{device}/{staged.name}"
        self.put_file(path, staged)
        new = replace(old, index=path) if old is not None else Device(index=path)
        self.set_channel(channel, replace(found, devices={**found.devices, device: new}))

    def _require_published(self, path: str) -> None:
        final = local_path(self.workspace, path)
        if path not in self._staged and not (final.is_file() and Path(f"{final}.asc").is_file()):
            raise NotFoundError(f"the index names '{path}', which is not in the tree")

    def put_keyring(self, level: KeyringType, tarball: bytes, *, signed_by: KeyringType) -> None:
        """Publish a keyring tarball, signed by the key of another level."""
        path = self._state / f"gpg/{level}.tar.xz"
        files.write_atomically(path, tarball)
        self.signer.sign(path, Path(f"{path}.asc"), level=signed_by, purpose=Purpose.KEYRING)
        self._new_keyrings = True

    def commit(self) -> None:
        """Make everything visible: signatures before files, files before the switch."""
        if not (self._staged or self._new_keyrings) and self.channels == self._before:
            return
        self._write_state()
        tree = self.workspace.channel_tree
        for path, staged in self._staged.items():
            _move_in(staged, local_path(self.workspace, path))
        states = tree / "states"
        states.mkdir(exist_ok=True)
        final = states / str(self.serial)
        self._state.rename(final)
        files.fsync_directory(states)
        for name, target in _LINKS.items():
            if not (tree / name).is_symlink() or (tree / name).readlink() != Path(target):
                files.link_atomically(tree / name, target)
        files.link_atomically(tree / "state", f"states/{final.name}")
        for serial in [*self._serials, self.serial][:-_STATES_KEPT]:
            shutil.rmtree(states / str(serial), ignore_errors=True)

    def _write_state(self) -> None:
        """Finish the new state and check it with the eyes of a client."""
        channels = self._state / "channels.json"
        signature = Path(f"{channels}.asc")
        text = self.channels.to_json()
        if Channels.from_json(text) != self.channels:
            raise DataError("the new channels.json does not read back as what was written")
        files.write_atomically(channels, text)
        self.signer.sign(
            channels, signature, level=KeyringType.IMAGE_SIGNING, purpose=Purpose.CHANNELS
        )
        keys = self.scratch / "keys"
        keys.mkdir()
        chain = trust.open_chain(
            archive_master=self.workspace.archive_master,
            fetch=lambda path: _existing(self._state / path[1:]),
            scratch=keys,
            now=self.now,
        )
        chain.verify(
            channels, signature, level=KeyringType.IMAGE_SIGNING, what="the new channels.json"
        )
        for folder in (self._state, self._state / "gpg"):
            folder.chmod(0o755)
        files.fsync_tree(self._state)


def _sweep_links(tree: Path) -> None:
    """Remove links that a killed transaction had not yet renamed; we hold the lock."""
    for path in tree.glob(".scratch-*"):
        if path.is_symlink():
            path.unlink()


def _serials(tree: Path) -> list[int]:
    states = tree / "states"
    found = states.iterdir() if states.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def _move_in(staged: Path, final: Path) -> None:
    """Move a file into the tree, its signature first; a leftover of a killed run is replaced."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for source, target in ((Path(f"{staged}.asc"), Path(f"{final}.asc")), (staged, final)):
        with source.open("rb") as file:
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        source.rename(target)
    files.fsync_directory(final.parent)
