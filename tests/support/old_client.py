"""The keyring logic of clients in the field: what they keep, and when they fetch it anew.

Source: ubports/system-image 3.3, systemimage/state.py: a cached keyring is used while its
signature and expiry hold; a blacklist with a bad signature fetches a new image-master, a
channels.json with a bad signature a new image-signing.
"""

import shutil
from datetime import datetime
from pathlib import Path

from coreimage.errors import TrustError
from coreimage.lib import trust
from coreimage.model.keyring import KeyringType

_MASTER, _SIGNING, _BLACKLIST = (
    KeyringType.IMAGE_MASTER,
    KeyringType.IMAGE_SIGNING,
    KeyringType.BLACKLIST,
)


class OldClient:
    """A device with a pinned archive-master and a cache of keyrings that survives its updates."""

    def __init__(self, home: Path, archive_master: Path) -> None:
        self._cache = home / "cache"
        self._rings = home / "rings"
        for folder in (self._cache, self._rings):
            folder.mkdir(parents=True)
        self._pinned = Path(shutil.copy(archive_master, home / "archive-master.tar.xz"))

    def update(self, tree: Path, now: datetime) -> None:
        """Fetch and verify channels.json of a tree; raises TrustError when it is stuck."""
        pinned = trust.pin_keyring(self._pinned, directory=self._rings, now=now)
        master = self._cached(tree, _MASTER, pinned, None, now)
        try:
            banned = self._fetch(tree, _BLACKLIST, master, None, now)
        except TrustError:
            master = self._fetch(tree, _MASTER, pinned, None, now)
            banned = self._fetch(tree, _BLACKLIST, master, None, now)
        signing = self._cached(tree, _SIGNING, master, banned, now)
        try:
            self._channels(tree, signing, banned)
        except TrustError:
            signing = self._fetch(tree, _SIGNING, master, banned, now)
            self._channels(tree, signing, banned)

    def _cached(
        self,
        tree: Path,
        kind: KeyringType,
        above: trust.KeyringFiles,
        banned: trust.KeyringFiles | None,
        now: datetime,
    ) -> trust.KeyringFiles:
        try:
            return self._load(self._cache, kind, above, banned, now)
        except TrustError:
            return self._fetch(tree, kind, above, banned, now)

    def _fetch(
        self,
        tree: Path,
        kind: KeyringType,
        above: trust.KeyringFiles,
        banned: trust.KeyringFiles | None,
        now: datetime,
    ) -> trust.KeyringFiles:
        for suffix in (".tar.xz", ".tar.xz.asc"):
            shutil.copy(tree / f"gpg/{kind}{suffix}", self._cache / f"{kind}{suffix}")
        return self._load(self._cache, kind, above, banned, now)

    def _load(
        self,
        place: Path,
        kind: KeyringType,
        above: trust.KeyringFiles,
        banned: trust.KeyringFiles | None,
        now: datetime,
    ) -> trust.KeyringFiles:
        tarball = place / f"{kind}.tar.xz"
        return trust.load_keyring(
            tarball,
            Path(f"{tarball}.asc"),
            expected=kind,
            keyring=above.keyring,
            blacklist=banned.keyring if banned else None,
            level=above.info.type,
            directory=self._rings,
            now=now,
        )

    def _channels(
        self, tree: Path, signing: trust.KeyringFiles, banned: trust.KeyringFiles
    ) -> None:
        trust.verify(
            tree / "channels.json",
            tree / "channels.json.asc",
            keyring=signing.keyring,
            blacklist=banned.keyring,
            what="channels.json",
            level=_SIGNING,
        )
