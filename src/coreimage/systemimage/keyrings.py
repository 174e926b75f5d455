"""The server's own keys: made once, published as keyring tarballs, renewed before they expire."""

import io
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.lib import files, tar, trust
from coreimage.lib.gpg import KEY_BITS, Signer
from coreimage.lib.progress import Progress
from coreimage.model.keyring import SIGNED_BY, KeyringInfo, KeyringType
from coreimage.systemimage import tree

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
    """A published keyring as it stands: `private` tells whether we hold its private key."""

    level: KeyringType
    fingerprints: Sequence[str]
    expiry: datetime | None
    signed_by: KeyringType
    private: bool


def generate(workspace: Workspace, *, progress: Progress, now: datetime) -> list[KeyringType]:
    """Make the keys that are missing, publish the keyrings that are missing or near their end.

    Returns the levels whose keyrings were published. Existing keys are never replaced. The
    archive-master keyring is also written to where clients take their pinned copy from.
    """
    signer = Signer(workspace.gpg_home)
    lock = workspace.state / "locks/keyrings.lock"
    with files.lock(lock, purpose="keyring generate", wait=_LOCK_WAIT):
        for level, bits in KEY_BITS.items():
            if not signer.has(level):
                progress.note(f"making the {level} key, {bits} bits")
                signer.generate(level)
        with tree.edit(workspace, now=now, purpose="keyring generate") as edit:
            due = [level for level in KeyringType if _is_due(workspace, level, now)]
            for level in due:
                tarball = keyring_tarball(level, _public_keys(signer, level), now=now)
                edit.put_keyring(level, tarball, signed_by=SIGNED_BY.get(level, level))
                if level is KeyringType.ARCHIVE_MASTER:
                    workspace.archive_master.parent.mkdir(parents=True, exist_ok=True)
                    files.write_atomically(workspace.archive_master, tarball)
    return due


def keyring_tarball(
    level: KeyringType, keys: bytes, *, now: datetime, model: str | None = None
) -> bytes:
    """Return a keyring tarball, for one device if `model` names it.

    The same bytes for the same arguments.
    """
    lifetime = LIFETIMES.get(level)
    expiry = None if lifetime is None else now + lifetime
    info = KeyringInfo(type=level, expiry=expiry, model=model)
    buffer = io.BytesIO()
    with tar.writing(buffer) as archive:
        for name, data in (("keyring.json", info.to_json().encode()), ("keyring.gpg", keys)):
            member = tar.entry(name, mtime=int(now.timestamp()), mode=0o644, size=len(data))
            archive.addfile(member, io.BytesIO(data))
    # CRC32 is the one check that every reader of xz has, the small ones of recoveries too.
    return lzma.compress(buffer.getvalue(), check=lzma.CHECK_CRC32)


def describe(workspace: Workspace) -> list[KeyringStatus]:
    """Return the published keyrings, from archive-master downwards."""
    return [status for level in KeyringType if (status := _status(workspace, level)) is not None]


def _status(workspace: Workspace, level: KeyringType) -> KeyringStatus | None:
    tarball = _published(workspace, level)
    if not tarball.is_file():
        return None
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with files.scratch_directory(workspace.cache) as scratch:
        found = trust.inspect_keyring(tarball, expected=level, directory=scratch)
    return KeyringStatus(
        level=level,
        fingerprints=found.fingerprints,
        expiry=found.info.expiry,
        signed_by=SIGNED_BY.get(level, level),
        private=Signer(workspace.gpg_home).can_sign(level),
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


def _public_keys(signer: Signer, level: KeyringType) -> bytes:
    """Return the public keys that a keyring starts with: the blacklist with none."""
    return b"" if level is KeyringType.BLACKLIST else signer.public_keyring(level).read_bytes()


def _published(workspace: Workspace, level: KeyringType) -> Path:
    return workspace.channel_tree / f"state/gpg/{level}.tar.xz"
