"""Expiry: how many full images a channel keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from coreimage.config import Workspace
from coreimage.errors import DataError
from coreimage.feeds import ChannelSettings
from coreimage.model.index import ImageType, Index
from coreimage.systemimage.tree import editing
from coreimage.systemimage.tree.images import LAST_VERSION, last_version


def expire(index: Index, fullcount: int) -> Index:
    """Return the index with its newest `fullcount` full images that are offered.

    Withdrawn ones are not counted, and go when they are older than those that are kept. With a
    full image go the deltas that lead to it; deltas from it stay, for devices that have it.
    """
    if fullcount < 1:
        raise DataError(
            f"a channel cannot keep {fullcount} images",
            hint="keep at least one: --keep 1, or 'fullcount' in coreimage.toml",
        )
    fulls = sorted(
        image.version
        for image in index.images
        if image.type is ImageType.FULL and image.withdrawn is None
    )
    if len(fulls) <= fullcount:
        return index
    oldest = fulls[-fullcount]
    kept = [image for image in index.images if image.version >= oldest]
    return replace(index, images=kept, extra={**index.extra, LAST_VERSION: last_version(index)})


def expire_as_configured(index: Index, settings: ChannelSettings | None) -> Index:
    """Return the index with as many full images as the settings of its channel want, if any."""
    return expire(index, settings.fullcount) if settings and settings.fullcount else index


def expire_images(
    workspace: Workspace, channel: str, fullcount: int, *, now: datetime, dry_run: bool = False
) -> Mapping[str, Sequence[int]]:
    """Keep the newest full images of each device of a channel, in one transaction.

    Returns the versions that went, by device. Their files stay for a grace time.
    """
    gone: dict[str, Sequence[int]] = {}
    purpose = f"image expire {channel}"
    with editing.edit(workspace, now=now, purpose=purpose, dry_run=dry_run) as edit:
        for device, entry in edit.channels.require(channel).devices.items():
            if entry.redirect is not None:
                continue
            index = edit.index(channel, device)
            shorter = expire(index, fullcount)
            left = {image.version for image in shorter.images}
            versions = sorted({image.version for image in index.images} - left)
            if versions:
                gone[device] = versions
                edit.put_index(channel, device, shorter)
    return gone
