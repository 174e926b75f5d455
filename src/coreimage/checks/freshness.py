"""Freshness: how long clients may believe what is published, and whether it can be renewed."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coreimage.checks.check import Check, Status
from coreimage.config import CONFIG_NAME, SigningSettings, Workspace, load_workspace
from coreimage.errors import CoreImageError
from coreimage.lib import trust
from coreimage.lib.gpg import Signer
from coreimage.model.channels import Channels
from coreimage.model.index import check_path
from coreimage.model.keyring import KeyringType

# Less than this part of its life left is worth a warning: it should have been renewed before.
_PART = 4
_KEYRING_LIFE = timedelta(days=730)
_DEVICE_KEYRING_LIFE = timedelta(days=31)


def check_freshness(root: Path, *, now: datetime) -> list[Check]:
    """Return one check for channels.json and for each keyring that expires, as far as there are.

    `root` is the workspace. What is near its end is a warning: clients refuse it later, this
    machine works all the same.
    """
    if not (root / CONFIG_NAME).is_file() or not (root / "www/system-image/state").exists():
        return []
    try:
        workspace = load_workspace(root)
        return [*_channels(workspace, now), *_keyrings(workspace, now), _signing_key(workspace)]
    except CoreImageError as error:
        mend = error.hint or "look with 'coreimage image missing --deep'"
        return [Check(name="channel tree", status=Status.WARNING, found=error.message, mend=mend)]


def _channels(workspace: Workspace, now: datetime) -> Iterator[Check]:
    path = workspace.channel_tree / "state/channels.json"
    channels = Channels.from_json(path.read_bytes())
    if not channels.channels:
        return
    life = timedelta(days=workspace.settings.tree.expiry_days)
    mend = "run 'coreimage channel refresh', and 'coreimage pipeline advance' from a timer"
    if channels.expires is None:
        found = "does not say how long it is valid"
        yield Check(name="channels.json", status=Status.WARNING, found=found, mend=mend)
        return
    expiry = datetime.fromtimestamp(channels.expires, UTC)
    yield judge("channels.json", expiry, life=life, now=now, mend=mend)


def _keyrings(workspace: Workspace, now: datetime) -> Iterator[Check]:
    mend = "run 'coreimage keyring generate', or 'coreimage pipeline advance' from a timer"
    with tempfile.TemporaryDirectory() as scratch:
        for level in KeyringType:
            tarball = workspace.channel_tree / f"state/gpg/{level}.tar.xz"
            if not tarball.is_file():
                continue
            info = trust.inspect_keyring(tarball, expected=level, directory=Path(scratch)).info
            if info.expiry is not None:
                own = level is KeyringType.DEVICE_SIGNING
                life = _DEVICE_KEYRING_LIFE if own else _KEYRING_LIFE
                yield judge(f"keyring {level}", info.expiry, life=life, now=now, mend=mend)
        yield from _device_keyrings(workspace, Path(scratch), now)


def _signing_key(workspace: Workspace) -> Check:
    """Tell where the private key is that signs whatever is published."""
    level = KeyringType.IMAGE_SIGNING
    settings = {str(each): where for each, where in workspace.settings.signing.items()}
    where = settings.get(level.value, SigningSettings())
    name, mend = f"key of {level}", f"bring it back, or see [signing.{level}] of coreimage.toml"
    if where.command:
        return Check(name=name, status=Status.OK, found=f"behind '{where.command[0]}'")
    try:
        if where.home is not None:
            found = f"in '{where.home}'" if (workspace.root / where.home).is_dir() else ""
        else:
            here = not where.offline and Signer(workspace.gpg_home).can_sign(level)
            found = "here" if here else ""
    except PermissionError:
        found, mend = "", "only the owner of the workspace can publish"
    if found:
        return Check(name=name, status=Status.OK, found=found)
    found = "is not here: nothing can be published"
    return Check(name=name, status=Status.WARNING, found=found, mend=mend)


def _device_keyrings(workspace: Workspace, scratch: Path, now: datetime) -> Iterator[Check]:
    path = workspace.channel_tree / "state/channels.json"
    for channel, found in sorted(Channels.from_json(path.read_bytes()).channels.items()):
        for device, entry in sorted(found.devices.items()):
            if entry.keyring is None or found.follows or entry.redirect:
                continue
            tarball = workspace.channel_tree / check_path(entry.keyring["path"])[1:]
            level = KeyringType.DEVICE_SIGNING
            info = trust.inspect_keyring(tarball, expected=level, directory=scratch).info
            if info.expiry is not None:
                name = f"keyring of {device} in {channel}"
                mend = f"run 'coreimage channel keyring {channel} {device}'"
                yield judge(name, info.expiry, life=_DEVICE_KEYRING_LIFE, now=now, mend=mend)


def judge(name: str, expiry: datetime, *, life: timedelta, now: datetime, mend: str) -> Check:
    """Return a warning for what has less than a quarter of its life left."""
    left = expiry - now
    if left <= timedelta(0):
        found = f"expired on {expiry:%F}: clients refuse it"
        return Check(name=name, status=Status.WARNING, found=found, mend=mend)
    days = left // timedelta(days=1)
    found = f"valid until {expiry:%F}, {days} days"
    if left < life / _PART:
        return Check(name=name, status=Status.WARNING, found=found, mend=mend)
    return Check(name=name, status=Status.OK, found=found)
