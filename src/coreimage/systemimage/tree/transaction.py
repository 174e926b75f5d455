"""Transactions on the channel tree: what one will publish, and making it visible in one step."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import DataError, NotFoundError
from coreimage.lib import files, trust
from coreimage.model.channels import Channel, Channels, Device
from coreimage.model.index import Index, check_path
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import layout, switch
from coreimage.systemimage.tree.images import empty_index, last_version

_DIGEST_LENGTH = 16
_KEYRING_SUFFIX = ".tar.xz"


class Edit:
    """What one transaction will publish. Made by `editing.edit` only.

    With `dry_run` nothing is signed, and nothing can be committed.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        scratch: Path,
        now: datetime,
        signer: SigningService,
        dry_run: bool = False,
    ) -> None:
        self.workspace = workspace
        self.dry_run = dry_run
        self.scratch = scratch
        self.now = now
        self.signer = signer
        self.before = self.channels = layout.read_channels(workspace)
        self._serials = layout.serials(workspace)
        self._staged: dict[str, Path] = {}
        self._levels: dict[str, KeyringType] = {}
        self._state = scratch / "state"
        self._resigned: dict[str, Path] = {}
        self._due = False
        self._downgrades: set[str] = set()
        (self._state / "gpg").mkdir(parents=True)
        current = workspace.channel_tree / "state"
        if (current / "gpg").is_dir():
            # Keyrings never change in place, so that states can share them.
            shutil.copytree(
                current / "gpg", self._state / "gpg", dirs_exist_ok=True, copy_function=_share
            )
        self._retired = layout.read_retired(workspace)

    @property
    def serial(self) -> int:
        """The number of the state that will be published."""
        return max(self._serials, default=0) + 1

    def changed(self) -> list[str]:
        """Return the channels that are not what they were before the transaction, by name."""
        before, now = self.before.channels, self.channels.channels
        return sorted(name for name in {**before, **now} if before.get(name) != now.get(name))

    def set_channel(self, name: str, channel: Channel) -> None:
        """Add or replace a channel."""
        self.channels = replace(self.channels, channels={**self.channels.channels, name: channel})

    def remove_channel(self, name: str) -> None:
        """Remove a channel; the numbers of its images are never used again under this name."""
        for device in self.channels.require(name).devices:
            self.remove_device(name, device)
        rest = {each: found for each, found in self.channels.channels.items() if each != name}
        self.channels = replace(self.channels, channels=rest)

    def remove_device(self, channel: str, device: str) -> None:
        """Remove a device from a channel; its numbers are never used again."""
        found = self.channels.require(channel)
        entry = self.channels.device(channel, device)
        if entry.redirect is None and found.redirect is None:
            last = last_version(self.index(channel, device))
            self._retired.setdefault(channel, {})[device] = last
        rest = {name: each for name, each in found.devices.items() if name != device}
        self.set_channel(channel, replace(found, devices=rest))

    def allow_downgrade(self, channel: str) -> None:
        """Let an alias take images of lower numbers than it had, and say so to clients."""
        self._downgrades.add(channel)

    def may_downgrade(self, channel: str) -> bool:
        """Tell whether an alias may take images of lower numbers in this transaction."""
        return channel in self._downgrades

    def index(self, channel: str, device: str) -> Index:
        """Return a device's index as this transaction has it, without images for a new device.

        Also that of a new device remembers the last number that was used, if there was one of
        this name before.
        """
        entry = self.channels.require(channel).devices.get(device)
        if entry is not None:
            return layout.load_index(self.where(entry.index))
        return empty_index(self.now, last=self._retired.get(channel, {}).get(device, 0))

    def where(self, path: str) -> Path:
        """Return where a file of the tree, or of this transaction, lies now."""
        return self._staged.get(path) or layout.local_path(self.workspace, path)

    def put_file(
        self, path: str, staged: Path, *, level: KeyringType = KeyringType.IMAGE_SIGNING
    ) -> None:
        """Publish a finished file at a root-relative path, with its signature beside it.

        `staged` and `staged`.asc must lie on the file system of the tree; they are moved. Is the
        signature not by the key that signs for `level` now, the file is signed again.
        """
        self._staged[check_path(path)] = staged
        self._levels[path] = level

    def put_signed(self, path: str, content: bytes, *, level: KeyringType) -> None:
        """Publish a small file, signed here by the key of a level.

        A file that is there already with these bytes is left alone, but for its signature if that
        is by another key: nothing may have named the file when keys or levels changed.
        """
        if path in self._staged:
            return
        if self._is_published(path, content):
            final = layout.local_path(self.workspace, path)
            if layout.signer_of(final) != self.signer.fingerprint(level):
                self.resign(path, level=level)
            return
        name = hashlib.sha256(path.encode()).hexdigest()[:_DIGEST_LENGTH]
        staged = self.scratch / f"file-{name}"
        files.write_atomically(staged, content)
        self._sign(staged, Path(f"{staged}.asc"), level, path=path)
        self.put_file(path, staged, level=level)

    def _sign(self, data: Path, signature: Path, level: KeyringType, *, path: str) -> None:
        """Sign a file for what its published path says that it is."""
        if not self.dry_run:
            self.signer.sign_published(data, signature, level=level, path=path)

    def _is_published(self, path: str, content: bytes) -> bool:
        final = layout.local_path(self.workspace, path)
        return _complete(final) and final.read_bytes() == content

    def free_path(self, path: str, content: bytes) -> str:
        """Return `path` if no other bytes have it, else one beside it, in a folder of their own.

        What was published once is never replaced: somebody may be reading it.
        """
        found = self.where(path)
        if not found.exists() or found.read_bytes() == content:
            return path
        folder, _, name = path.rpartition("/")
        return f"{folder}/{hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]}/{name}"

    def put_index(self, channel: str, device: str, index: Index) -> None:
        """Publish the index of a device, adding the device to its channel when it is new.

        Channels that follow this one follow in the same transaction. Raises as `require_own`.
        """
        self.require_own(channel, device)
        found = self.channels.require(channel)
        self.write_index(channel, device, index, found.devices.get(device))

    def require_own(self, channel: str, device: str) -> None:
        """Raise CoreImageError when a channel or device has its images from another channel."""
        layout.require_own(self.channels, channel, device)

    def write_index(self, channel: str, device: str, index: Index, entry: Device | None) -> None:
        """Stage an index, and `entry` for its device with the index' path and digest.

        The index says which channel and device it is for and of which state it is, so that a
        client can notice one that was moved or replayed.
        """
        for image in index.images:
            for file in image.files:
                self._require_published(file.path)
        head = {"channel": channel, "device": device, "serial": self.serial}
        text = replace(index, generated_at=self.now, extra={**index.extra, **head}).to_json()
        Index.from_json(text)  # what clients would stumble over is refused here
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        name = f"index-{sha256[:_DIGEST_LENGTH]}.json"
        path = f"/{channel}/{device}/{name}"
        self.put_signed(path, text.encode(), level=layout.payload_level(entry))
        found = self.channels.require(channel)
        old = found.devices.get(device)
        if old is not None and old.keyring and not (entry and entry.keyring):
            self._resign_for_all(index)
        new = replace(
            entry or Device(index=path), index=path, sha256=sha256, size=len(text.encode())
        )
        self.set_channel(channel, replace(found, devices={**found.devices, device: new}))

    def _resign_for_all(self, index: Index) -> None:
        """Replace signatures by a device's own key, which is no longer published for it."""
        level = KeyringType.IMAGE_SIGNING
        present = self.signer.fingerprint(level)
        for path in sorted({file.path for image in index.images for file in image.files}):
            if layout.signer_of(layout.local_path(self.workspace, path)) != present:
                self.resign(path, level=level)

    def _require_published(self, path: str) -> None:
        if path not in self._staged and not _complete(layout.local_path(self.workspace, path)):
            raise NotFoundError(f"the index names '{path}', which is not in the tree")

    def put_keyring(self, level: KeyringType, tarball: bytes, *, signed_by: KeyringType) -> None:
        """Publish a keyring tarball, signed by the key of another level."""
        path = self._state / f"gpg/{level}{_KEYRING_SUFFIX}"
        files.write_atomically(path, tarball)
        self._sign(path, Path(f"{path}.asc"), signed_by, path=f"/gpg/{path.name}")
        self._due = True

    def put_device_keyring(self, channel: str, device: str, tarball: bytes | None) -> None:
        """Give a device a signing keyring of its own, or take it away; its index is signed anew."""
        entry = self.channels.device(channel, device)
        keyring = None
        if tarball is not None:
            digest = hashlib.sha256(tarball).hexdigest()
            path = f"/{channel}/{device}/device-signing-{digest[:_DIGEST_LENGTH]}{_KEYRING_SUFFIX}"
            self.put_signed(path, tarball, level=KeyringType.IMAGE_SIGNING)
            keyring = {"path": path, "signature": f"{path}.asc", "sha256": digest}
        index = self.index(channel, device)
        self.write_index(channel, device, index, replace(entry, keyring=keyring))

    def resign(self, path: str, *, level: KeyringType) -> None:
        """Replace the signature of a published file by one of the present key of a level.

        The bytes stay, and the old signature was good as well: a reader never has a bad pair.
        """
        if path not in self._staged and path not in self._resigned:
            self._resigned[path] = self.scratch / f"signature-{len(self._resigned)}.asc"
            final = layout.local_path(self.workspace, path)
            self._sign(final, self._resigned[path], level, path=path)

    def refresh(self) -> None:
        """Publish a new state, with a new expiry, even if nothing else changes."""
        self._due = True

    def commit(self) -> None:
        """Make everything visible: signatures before files, files before the switch."""
        changed = self._due or self._staged or self._resigned
        if not changed and self.channels == self.before:
            return
        self._sign_with_present_keys()
        self._write_state()
        for path, staged in self._staged.items():
            _move_in(staged, layout.local_path(self.workspace, path))
        for path, signature in self._resigned.items():
            final = layout.local_path(self.workspace, path)
            _move_in_one(signature, Path(f"{final}.asc"))
            files.fsync_directory(final.parent)
        switch.show(self.workspace.channel_tree, self._state, self.serial)

    def _sign_with_present_keys(self) -> None:
        """Sign again what was signed before we held the tree, by a key that may have gone since."""
        present = {level: self.signer.fingerprint(level) for level in set(self._levels.values())}
        for path, staged in self._staged.items():
            level = self._levels[path]
            if layout.signer_of(staged) != present[level]:
                self._sign(staged, Path(f"{staged}.asc"), level, path=path)

    def _bind(self) -> None:
        """Say in channels.json of which state it is, until when it is valid, and what it names.

        Entries that were written before indexes were bound get their digests here.
        """
        channels = {
            name: replace(
                channel,
                devices={
                    device: each if each.sha256 else _bound(each, self.where(each.index))
                    for device, each in channel.devices.items()
                },
            )
            for name, channel in self.channels.channels.items()
        }
        expiry = self.now + timedelta(days=self.workspace.settings.tree.expiry_days)
        keyrings = (self._state / "gpg").glob(f"*{_KEYRING_SUFFIX}")
        self.channels = Channels(
            channels=channels,
            serial=self.serial,
            expires=int(expiry.timestamp()),
            keyrings={
                path.name.removesuffix(_KEYRING_SUFFIX): files.sha256_of(path) for path in keyrings
            },
        )

    def _write_state(self) -> None:
        """Finish the new state and check it with the eyes of a client."""
        channels = self._state / "channels.json"
        signature = Path(f"{channels}.asc")
        self._bind()
        text = self.channels.to_json()
        if self.channels.channels and Channels.from_json(text) != self.channels:
            raise DataError("the new channels.json does not read back as what was written")
        files.write_atomically(channels, text)
        # When a state became visible decides how long what it replaced is kept.
        os.utime(channels, times=(self.now.timestamp(), self.now.timestamp()))
        if self._retired:
            retired = json.dumps(self._retired, indent=4, sort_keys=True)
            files.write_atomically(self._state / layout.RETIRED, f"{retired}\n")
        self._sign(channels, signature, KeyringType.IMAGE_SIGNING, path="/channels.json")
        keys = self.scratch / "keys"
        keys.mkdir()
        chain = trust.open_chain(
            archive_master=self.workspace.archive_master,
            fetch=lambda path: layout.existing(self._state / path[1:]),
            scratch=keys,
            now=self.now,
        )
        chain.verify(
            channels, signature, level=KeyringType.IMAGE_SIGNING, what="the new channels.json"
        )


def _bound(device: Device, index: Path) -> Device:
    """Return a device's entry with the digest and size of its index."""
    return replace(device, sha256=files.sha256_of(index), size=index.stat().st_size)


def _share(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copy2(source, target)


def _complete(path: Path) -> bool:
    return path.is_file() and Path(f"{path}.asc").is_file()


def _move_in(staged: Path, final: Path) -> None:
    """Move a file into the tree, its signature first; a leftover of a killed run is replaced."""
    _make_directory(final.parent)
    for suffix in (".asc", ""):
        _move_in_one(Path(f"{staged}{suffix}"), Path(f"{final}{suffix}"))
    files.fsync_directory(final.parent)


def _make_directory(path: Path) -> None:
    """Make a directory, and those above it, so that they survive a power cut."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        files.fsync_directory(path.parent)


def _move_in_one(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    source.rename(target)
