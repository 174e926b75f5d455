"""The server's own keys: made once, published as keyring tarballs, renewed before they expire."""

import filecmp
import io
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import NotFoundError
from coreimage.lib import files, tar, trust
from coreimage.lib.gpg import KEY_BITS, Signer
from coreimage.lib.progress import Progress
from coreimage.model.keyring import SIGNED_BY, KeyringInfo, KeyringType
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import editing
from coreimage.systemimage.tree.transaction import Edit

LIFETIMES = {
    KeyringType.IMAGE_SIGNING: timedelta(days=730),
    KeyringType.DEVICE_SIGNING: timedelta(days=31),
}
"""How long a published keyring may be used; the others have no end."""

# A keyring is renewed when less than this part of its lifetime is left.
_RENEWAL = 4
_LOCK_WAIT = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringStatus:
    """A published keyring as it stands.

    `signing` is the key that signs now, `next` the one that is being introduced; `place` says
    where the private key is, empty when it cannot sign here, and `private` whether it is here.
    """

    level: KeyringType
    fingerprints: Sequence[str]
    expiry: datetime | None
    signed_by: KeyringType
    private: bool
    signing: str
    next: str
    place: str


@contextmanager
def locked(workspace: Workspace, purpose: str) -> Iterator[None]:
    """Hold the lock on the keys."""
    lock = workspace.state / "locks/keyrings.lock"
    with files.lock(lock, purpose=purpose, wait=_LOCK_WAIT):
        yield


def generate(workspace: Workspace, *, progress: Progress, now: datetime) -> list[KeyringType]:
    """Make the keys that are missing, publish the keyrings that are missing or near their end.

    Returns the levels whose keyrings were published. Existing keys are never replaced. The
    archive-master keyring is also written to where clients take their pinned copy from. A keyring
    that is due, but whose signer's key is elsewhere, is left out with a note as long as it holds.
    """
    store = Signer(workspace.gpg_home)
    with locked(workspace, "keyring generate"):
        for level, bits in KEY_BITS.items():
            if not store.has(level):
                _require_ours(workspace, level)
                progress.note(f"making the {level} key, {bits} bits")
                store.generate(level)
        settle(workspace)
        pin_published(workspace, now=now)
        due = [level for level in KeyringType if _is_due(workspace, level, now)]
        due = [level for level in due if _can_renew(workspace, level, now, progress)]
        tarballs = {
            level: keyring_tarball(level, public_keys(store, level), now=now) for level in due
        }
        publish(workspace, tarballs, now=now, purpose="keyring generate")
    return due


def outline(workspace: Workspace, *, now: datetime) -> tuple[list[KeyringType], list[KeyringType]]:
    """Return the levels whose key `generate` would make, and those whose keyring is due."""
    store = Signer(workspace.gpg_home)
    missing = [level for level in KEY_BITS if not store.has(level)]
    return missing, [level for level in KeyringType if _is_due(workspace, level, now)]


def publish(
    workspace: Workspace,
    tarballs: Mapping[KeyringType, bytes],
    *,
    now: datetime,
    purpose: str,
    signer: SigningService | None = None,
    begin: Callable[[], None] | None = None,
) -> None:
    """Publish keyrings, each signed by the level above, in one transaction; none is no change.

    `begin` is called first in it: nobody else changes the tree then, and what it raises ends it.
    """
    with editing.edit(workspace, now=now, purpose=purpose, signer=signer) as edit:
        if begin is not None:
            begin()
        for level, tarball in tarballs.items():
            edit.put_keyring(level, tarball, signed_by=SIGNED_BY.get(level, level))
            if level is KeyringType.ARCHIVE_MASTER and not workspace.archive_master.is_file():
                _pin(workspace, tarball)
            if level is KeyringType.DEVICE_SIGNING:
                _put_device_keyrings(edit, tarball, now=now)
    if KeyringType.ARCHIVE_MASTER in tarballs:
        _pin(workspace, tarballs[KeyringType.ARCHIVE_MASTER])


def _put_device_keyrings(edit: Edit, tarball: bytes, *, now: datetime) -> None:
    """Give every device that has a keyring of its own the same keys and a new expiry."""
    path = edit.scratch / "device-signing.tar.xz"
    path.write_bytes(tarball)
    level = KeyringType.DEVICE_SIGNING
    found = trust.inspect_keyring(path, expected=level, directory=edit.scratch)
    left = None if found.info.expiry is None else found.info.expiry - now
    for name, channel in edit.channels.channels.items():
        for device, entry in channel.devices.items():
            if entry.keyring is not None and not (channel.follows or entry.redirect):
                own = keyring_tarball(
                    level, found.keyring.read_bytes(), now=now, model=device, lifetime=left
                )
                edit.put_device_keyring(name, device, own)


def _pin(workspace: Workspace, tarball: bytes) -> None:
    workspace.archive_master.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(workspace.archive_master, tarball)


def pin_published(workspace: Workspace, *, now: datetime) -> None:
    """Pin the published archive-master keyring, if one that is pinned has signed it.

    That is the last step of its rotation, and makes one whole that was interrupted before it.
    """
    tarball, pinned = published(workspace, KeyringType.ARCHIVE_MASTER), workspace.archive_master
    if not (tarball.is_file() and pinned.is_file()) or filecmp.cmp(tarball, pinned, shallow=False):
        return
    with files.scratch_directory(workspace.cache) as scratch:
        ring = trust.pin_keyring(pinned, directory=scratch, now=now).keyring
        trust.load_keyring(
            tarball,
            Path(f"{tarball}.asc"),
            expected=KeyringType.ARCHIVE_MASTER,
            keyring=ring.rename(scratch / "pinned.gpg"),
            blacklist=None,
            level=KeyringType.ARCHIVE_MASTER,
            directory=scratch,
            now=now,
        )
    _pin(workspace, tarball.read_bytes())


def settle(workspace: Workspace) -> list[KeyringType]:
    """Let each introduced key sign that is published by now; return the levels.

    This is the last step of a rotation, and makes one whole that was interrupted before it. A new
    archive-master waits until the old one is retired: devices must have it first.
    """
    store = Signer(workspace.gpg_home)
    settled: list[KeyringType] = []
    for level in KEY_BITS:
        key = store.next_key(level)
        if key is None or level is KeyringType.ARCHIVE_MASTER:
            continue
        status = _status(workspace, level)
        if status is not None and key.fingerprint in status.fingerprints:
            store.promote(level)
            settled.append(level)
    return settled


def keyring_tarball(
    level: KeyringType,
    keys: bytes,
    *,
    now: datetime,
    model: str | None = None,
    lifetime: timedelta | None = None,
) -> bytes:
    """Return a keyring tarball, for one device if `model` names it.

    `lifetime` is the level's own unless given. The same bytes for the same arguments.
    """
    lifetime = lifetime or LIFETIMES.get(level)
    expiry = None if lifetime is None else now + lifetime
    info = KeyringInfo(type=level, expiry=expiry, model=model)
    buffer = io.BytesIO()
    with tar.writing(buffer) as archive:
        for name, data in (("keyring.json", info.to_json().encode()), ("keyring.gpg", keys)):
            member = tar.entry(name, mtime=int(now.timestamp()), mode=0o644, size=len(data))
            archive.addfile(member, io.BytesIO(data))
    # CRC32 is the one check that every reader of xz has, the small ones of recoveries too.
    return lzma.compress(buffer.getvalue(), check=lzma.CHECK_CRC32)


def public_keys(store: Signer, level: KeyringType, *, without: str = "") -> bytes:
    """Return the public keys that a keyring is published with; the blacklist starts with none."""
    return b"".join(key.data for key in store.keys(level) if key.fingerprint != without)


def describe(workspace: Workspace) -> list[KeyringStatus]:
    """Return the published keyrings, from archive-master downwards."""
    return [status for level in KeyringType if (status := _status(workspace, level)) is not None]


def published(workspace: Workspace, level: KeyringType) -> Path:
    """Return where the tarball of a published keyring is."""
    return workspace.channel_tree / f"state/gpg/{level}.tar.xz"


def _status(workspace: Workspace, level: KeyringType) -> KeyringStatus | None:
    tarball = published(workspace, level)
    if not tarball.is_file():
        return None
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with files.scratch_directory(workspace.cache) as scratch:
        found = trust.inspect_keyring(tarball, expected=level, directory=scratch)
    store = Signer(workspace.gpg_home)
    signs = level is not KeyringType.BLACKLIST and store.has(level)
    following = store.next_key(level)
    return KeyringStatus(
        level=level,
        fingerprints=found.fingerprints,
        expiry=found.info.expiry,
        signed_by=SIGNED_BY.get(level, level),
        private=signs and store.can_sign(level),
        signing=store.fingerprint(level) if signs else "",
        next=following.fingerprint if following else "",
        place=SigningService(workspace).place(level) if signs else "",
    )


def _is_due(workspace: Workspace, level: KeyringType, now: datetime) -> bool:
    if level is KeyringType.ARCHIVE_MASTER and not workspace.archive_master.is_file():
        return True
    status = _status(workspace, level)
    if status is None:
        return True
    lifetime = LIFETIMES.get(level)
    if status.expiry is None or lifetime is None:
        return False
    return status.expiry - now < lifetime / _RENEWAL


def _can_renew(workspace: Workspace, level: KeyringType, now: datetime, progress: Progress) -> bool:
    """Tell whether a due keyring can be signed; one that still holds may wait, with a note."""
    signer, above = SigningService(workspace), SIGNED_BY.get(level, level)
    status = _status(workspace, level)
    if signer.place(above) or status is None or status.expiry is None or status.expiry <= now:
        return True
    progress.note(
        f"the keyring '{level}' expires on {status.expiry:%F} and the key of '{above}' is not "
        f"here: renew it with 'coreimage keyring publish {level}'"
    )
    return False


def _require_ours(workspace: Workspace, level: KeyringType) -> None:
    """Raise NotFoundError when the key of a level is kept elsewhere: it is made there too."""
    if level.value in {str(each) for each in workspace.settings.signing}:
        raise NotFoundError(
            f"there is no '{level}' key, and coreimage.toml says that it is kept elsewhere",
            hint=f"export its public half there with 'gpg --export', and give it with "
            f"'coreimage keyring adopt {level} FILE'",
        )
