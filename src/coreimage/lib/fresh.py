"""Believing a channels.json: judged by what is remembered of its server, and then remembered.

The decisions are those of model/freshness; here they become errors, and memory.
"""

import hashlib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from coreimage.errors import TrustError
from coreimage.lib import memory
from coreimage.lib.trust import Chain
from coreimage.model.channels import Channels
from coreimage.model.freshness import (
    NOTHING,
    Received,
    Refusal,
    Remembered,
    SeenImage,
    SeenStore,
    judge_channels,
    judge_images,
    judge_store,
    remember,
)
from coreimage.model.index import Image, Index
from coreimage.model.keyring import KeyringType
from coreimage.model.store import StoreIndex

_BOUND = (KeyringType.IMAGE_MASTER, KeyringType.BLACKLIST, KeyringType.IMAGE_SIGNING)


def require(refusal: Refusal | None, *, what: str = "") -> None:
    """Raise TrustError for a refusal; `what` names the file in front of the reason."""
    if refusal is not None:
        lead = f"'{what}': " if what else ""
        raise TrustError(f"{lead}{refusal.message}", hint=refusal.hint)


def received(text: bytes, channels: Channels, *, signed_by: str, chain: Chain) -> Received:
    """Return what is judged of a channels.json whose signature was verified with a chain."""
    fetched = {level: chain.keyring(level) for level in _BOUND}
    return Received(
        serial=channels.serial,
        expires=channels.expires,
        digest=hashlib.sha256(text).hexdigest(),
        signed_by=signed_by,
        keyrings=channels.keyrings,
        fetched={level.value: found.sha256 for level, found in fetched.items()},
        signers={f"{level}.tar.xz": found.signer for level, found in fetched.items()},
        blacklist=frozenset(chain.keyring(KeyringType.BLACKLIST).fingerprints),
    )


def accept(
    shown: Received,
    *,
    chain: Chain,
    directory: Path | None,
    clock: datetime,
    allow_unfresh: bool = False,
) -> None:
    """Remember a channels.json in a directory, or raise TrustError that says why it is refused.

    Without a directory it is judged as at the first contact, and not remembered.
    """

    def change(remembered: Remembered) -> Remembered:
        require(judge_channels(remembered, shown, clock=clock, allow_unfresh=allow_unfresh))
        return remember(remembered, shown, clock=clock)

    if directory is None:
        change(NOTHING)
    else:
        memory.update(directory, _root(chain), change)


def accept_images(
    index: Index, place: str, *, chain: Chain, directory: Path, signed_by: str
) -> None:
    """Remember the newest image of a place, channel and device, or raise TrustError.

    Refused is an index that goes back behind one that was seen; see `judge_images`.
    """
    newest = max((image.version for image in index.images), default=0)
    full = index.newest_full()
    contents = _contents(full) if full is not None and full.version == newest else ""
    seen = SeenImage(version=newest, contents=contents, signed_by=signed_by)
    downgrade = index.extra.get("downgrade") is True

    def change(remembered: Remembered) -> Remembered:
        require(
            judge_images(remembered, place, newest=newest, contents=contents, downgrade=downgrade)
        )
        if not newest and place not in remembered.images:
            return remembered
        return replace(remembered, images={**remembered.images, place: seen})

    memory.update(directory, _root(chain), change)


def accept_store(
    index: StoreIndex,
    text: bytes,
    *,
    chain: Chain,
    directory: Path,
    signed_by: str,
    clock: datetime,
) -> None:
    """Remember the index of a store, whose signature was verified, or raise TrustError.

    Refused is one that has expired or goes back behind one that was seen; see `judge_store`.
    """
    digest = hashlib.sha256(text).hexdigest()
    shown = SeenStore(serial=index.serial, digest=digest, signed_by=signed_by)

    def change(remembered: Remembered) -> Remembered:
        require(judge_store(remembered, index.store, shown, expires=index.expires, clock=clock))
        return replace(remembered, stores={**remembered.stores, index.store: shown})

    memory.update(directory, _root(chain), change)


def _root(chain: Chain) -> tuple[str, ...]:
    return chain.keyring(KeyringType.ARCHIVE_MASTER).fingerprints


def _contents(image: Image) -> str:
    """Return a digest of what an image is made of, whatever the files are called."""
    files = sorted(image.files, key=lambda file: file.order)
    return hashlib.sha256("\n".join(file.checksum for file in files).encode()).hexdigest()
