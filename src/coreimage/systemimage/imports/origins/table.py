"""The table of origins: which function turns which kind of feed into a part."""

from collections.abc import Callable, Mapping
from typing import Any

from coreimage.feeds import (
    Feed,
    HttpFeed,
    KeyringFeed,
    PublishedFeed,
    RemoteFeed,
    SystemImageFeed,
)
from coreimage.systemimage.imports.origins import channel, http, keyring, publication, remote
from coreimage.systemimage.imports.parts import Context, Part

_ORIGINS: Mapping[type, Callable[[Any, Context], Part]] = {
    PublishedFeed: publication.resolve,
    HttpFeed: http.resolve,
    KeyringFeed: keyring.resolve,
    SystemImageFeed: channel.resolve,
    RemoteFeed: remote.resolve,
}


def resolve(feed: Feed, context: Context) -> Part:
    """Return the part that a feed gives now; nothing is made yet. Raises what its origin raises."""
    return _ORIGINS[type(feed)](feed, context)
