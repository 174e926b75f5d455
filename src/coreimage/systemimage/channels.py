"""Channels: create them and look at them."""

from datetime import datetime

from coreimage.config import Workspace
from coreimage.errors import CoreImageError
from coreimage.model.channels import Channel, check_channel_name
from coreimage.systemimage import tree


def create_channel(
    workspace: Workspace, name: str, *, now: datetime, hidden: bool = False, exist_ok: bool = False
) -> bool:
    """Publish a channel without devices; the first import of a device adds it.

    Returns whether it is new. Raises DataError for a name that clients cannot digest, and
    CoreImageError when the channel exists, unless `exist_ok`.
    """
    check_channel_name(name)
    with tree.edit(workspace, now=now, purpose=f"channel create {name}") as edit:
        if name in edit.channels.channels:
            if exist_ok:
                return False
            raise CoreImageError(
                f"channel '{name}' exists already",
                hint=f"look at it with 'coreimage channel show {name}'",
            )
        edit.set_channel(name, Channel(devices={}, hidden=hidden))
    return True
