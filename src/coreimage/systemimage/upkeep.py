"""Upkeep: what a channel tree needs from time to time, whether or not there are new images."""

from datetime import datetime

from coreimage.config import Workspace
from coreimage.lib import files, trust
from coreimage.lib.progress import Progress
from coreimage.model.keyring import KeyringType
from coreimage.systemimage import store
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout, orphans


def keep_up(workspace: Workspace, *, progress: Progress, now: datetime) -> None:
    """Renew keyrings, channels.json and stores before they expire; remove what nobody can need.

    Does nothing to a tree in which nothing was ever published.
    """
    for name in store.refresh(workspace, now=now):
        progress.note(f"the index of store '{name}' was signed anew")
    if layout.current_serial(workspace) is None:
        return
    keyrings.generate(workspace, progress=progress, now=now)
    for channel, device in _near_their_end(workspace, now):
        channels.set_device_keyring(workspace, channel, device, now=now)
        progress.note(f"the keyring of '{device}' in '{channel}' was renewed")
    if channels.refresh(workspace, now=now):
        progress.note("channels.json was signed anew")
    gone = orphans.collect(workspace, now=now)
    if gone.states or gone.files:
        size = f"{gone.size / 1e6:.1f} MB"
        progress.note(f"removed {len(gone.states)} old states, {len(gone.files)} files, {size}")


def _near_their_end(workspace: Workspace, now: datetime) -> list[tuple[str, str]]:
    """Return the devices whose own keyring has less than a quarter of its life left."""
    level = KeyringType.DEVICE_SIGNING
    due = []
    with files.scratch_directory(workspace.cache) as scratch:
        for name, channel in layout.read_channels(workspace).channels.items():
            for device, entry in channel.devices.items():
                if entry.keyring is None or channel.follows or entry.redirect:
                    continue
                tarball = layout.local_path(workspace, entry.keyring["path"])
                expiry = trust.inspect_keyring(
                    tarball, expected=level, directory=scratch
                ).info.expiry
                if expiry is not None and expiry - now < keyrings.LIFETIMES[level] / 4:
                    due.append((name, device))
    return due
