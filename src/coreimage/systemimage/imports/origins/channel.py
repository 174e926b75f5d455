"""Files of the newest full image of another channel of this server, as they are."""

from coreimage.errors import DataError, NotFoundError
from coreimage.feeds import SystemImageFeed
from coreimage.model.index import Image, ImageFile
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.imports.parts import Context, Part
from coreimage.systemimage.tree import layout, pool
from coreimage.systemimage.tree.pool import PoolFile


def resolve(feed: SystemImageFeed, context: Context) -> Part:
    """Return the part that takes a file of another channel; NotFoundError names what there is."""
    channel = context.fill(feed.channel)
    device = context.fill(feed.device or context.device)
    image = layout.read_index(context.workspace, channel, device).newest_full()
    entry = file_of(image, feed.file, where=f"'{device}' in channel '{channel}'")
    found = pool.find(context.workspace, entry)
    if found is None:
        raise DataError(
            f"'{entry.path}' of channel '{channel}' has no record, or is not as its index says",
            hint=f"look with 'coreimage image show {channel} {device}'",
        )

    def make(_: Maker) -> PoolFile:
        pool.require_intact(context.workspace, found, context.chain)
        return found

    return Part(name=feed.prefix, sidecar=found.sidecar, make=make)


def file_of(image: Image | None, prefix: str, *, where: str) -> ImageFile:
    """Return the file of an image that has a prefix; NotFoundError names the ones there are."""
    if image is None:
        raise NotFoundError(f"{where} has no full image yet")
    for file in image.files:
        if pool.prefix_of(file.path) == prefix:
            return file
    known = ", ".join(f"'{pool.prefix_of(file.path)}'" for file in image.files)
    raise NotFoundError(
        f"image {image.version} of {where} has no file '{prefix}'", hint=f"it has {known}"
    )
