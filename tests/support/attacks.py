"""What an attacker can do to a served channel tree, and a client that is to notice."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, TrustError
from coreimage.flasher.flash import fetch_only, flash
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import FlashJob, planned
from coreimage.flasher.remote.connect import Place
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.lib.transport import Limits
from coreimage.model.channels import Channels
from coreimage.model.index import Index
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keychange, rotation
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import CHANNEL, DEVICE, NOW

# A server of these tests that is only slow because the machine is busy has some seconds.
LIMITS = Limits(min_rate=200, window=2.0, deadline=10, attempts=1, backoff=0.01)
SIGNING, MASTER = KeyringType.IMAGE_SIGNING, KeyringType.IMAGE_MASTER
OTHER = "debian-core/13/other"
EXPIRY = timedelta(days=30)


def served(workspace: Workspace, target: Path) -> Path:
    """Copy what is visible of a tree as plain files: what a mirror has, for an attacker to change.

    Any state that was served there before is replaced, and older files stay, as on a server.
    """
    root = workspace.channel_tree
    shutil.copytree(
        root, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("states", "state")
    )
    return target


class Client:
    """A flash tool on a machine of its own, which remembers what it saw."""

    def __init__(self, home: Path, archive_master: Path) -> None:
        home.mkdir()
        self._home = home
        self.archive_master = archive_master
        self.memory = home / "state"

    @property
    def serial(self) -> int:
        """The highest serial that it remembers."""
        found = (json.loads(path.read_bytes())["serial"] for path in self.memory.glob("*.json"))
        return max(found, default=0)

    @property
    def cache(self) -> Path:
        """Where its downloads are."""
        return self._home / "cache"

    @property
    def output(self) -> Path:
        """The disk image that it makes."""
        return self._home / "x86.img"

    @contextmanager
    def planning(
        self,
        server: str,
        *,
        now: datetime = channel_tree.NOW,
        channel: str = channel_tree.CHANNEL,
        verify_tls: bool = True,
        allow_unfresh: bool = False,
        mirrors: Sequence[str] = (),
        download_only: bool = True,
        oem: str = "generic-amd64",
    ) -> Iterator[FlashJob]:
        """Yield what is to be done for the newest image."""
        place = Place(
            servers=[server, *mirrors],
            archive_master=self.archive_master,
            cache=self.cache,
            scratch=self._home / "scratch",
            verify_tls=verify_tls,
            limits=LIMITS,
            memory=self.memory,
            allow_unfresh=allow_unfresh,
        )
        options = FlashOptions(
            release="13",
            channel=channel,
            output=self.output,
            oem=oem,
            oem_folders=[shipped_folder()],
            download_only=download_only,
        )
        with planned(options, place, progress=Silent(), now=now) as job:
            yield job

    def fetch(
        self,
        server: str,
        *,
        now: datetime = channel_tree.NOW,
        channel: str = channel_tree.CHANNEL,
        meanwhile: Callable[[], None] = lambda: None,
        verify_tls: bool = True,
        allow_unfresh: bool = False,
        mirrors: Sequence[str] = (),
    ) -> int:
        """Download and verify the newest image as `flash --download-only` does: its version."""
        with self.planning(
            server,
            now=now,
            channel=channel,
            verify_tls=verify_tls,
            allow_unfresh=allow_unfresh,
            mirrors=mirrors,
        ) as job:
            meanwhile()
            fetch_only(job, progress=Silent())
            return job.plan.image.version

    def flash(self, server: str, *, oem: str = "generic-amd64") -> int:
        """Make a disk of the newest image: its version."""
        with self.planning(server, download_only=False, oem=oem) as job:
            flash(job, progress=Silent())
            return job.plan.image.version


class Thief:
    """Somebody with a copy of the server's keys who writes to what is served."""

    def __init__(self, workspace: Workspace, root: Path) -> None:
        self.store = Signer(workspace.gpg_home)
        self.root = root

    def channels(self, **fields: object) -> None:
        """Change channels.json and sign it again, under the next serial unless one is named."""
        found = self.read()
        fresh = {"serial": (found.serial or 0) + 1, **fields}
        found = replace(found, **fresh)  # type: ignore[arg-type]
        self.write("channels.json", found.to_json().encode())

    def write(
        self, name: str, content: bytes, *, key: KeyringType = SIGNING, fingerprint: str = ""
    ) -> None:
        """Serve a file with a good signature by one of the keys."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.store.sign(path, Path(f"{path}.asc"), key=key, fingerprint=fingerprint)

    def read(self) -> Channels:
        """Return what channels.json says now."""
        return Channels.from_json((self.root / "channels.json").read_bytes())

    def index_path(self, channel: str = channel_tree.CHANNEL) -> str:
        """Return where the index of the device lies."""
        return self.read().device(channel, channel_tree.DEVICE).index


def small_masters(patch: pytest.MonkeyPatch) -> None:
    """Make masters of 2048 bits: real keys, in a tenth of the time."""
    from coreimage.lib import gpg

    for level in (KeyringType.ARCHIVE_MASTER, KeyringType.IMAGE_MASTER):
        patch.setitem(gpg.KEY_BITS, level, 2048)


def refused(
    client: Client,
    server: liar.Liar,
    says: str,
    *,
    kind: type[CoreImageError] = TrustError,
    **options: object,
) -> None:
    with pytest.raises(kind, match=says) as raised:
        client.fetch(server.url, **options)  # type: ignore[arg-type]
    assert type(raised.value) is kind
    if kind is TrustError:
        assert raised.value.exit_code == 76


def honest_again(
    client: Client, server: liar.Liar, workspace: Workspace, root: Path, version: int = 2
) -> None:
    """The tree as its owner publishes it next is believed."""
    server.lies.clear()
    while (layout.read_channels(workspace).serial or 0) <= client.serial:
        channels.refresh(workspace, now=NOW, force=True)
    shutil.rmtree(root)
    served(workspace, root)
    assert client.fetch(server.url) == version


def rebind(thief: Thief, index: Index | bytes, device: str = DEVICE) -> None:
    """Serve an index of a device that channels.json binds, all signed."""
    content = index if isinstance(index, bytes) else index.to_json().encode()
    found = thief.read()
    entry = found.device(CHANNEL, device)
    thief.write(entry.index, content)
    entry = replace(entry, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    devices = {**found.channels[CHANNEL].devices, device: entry}
    channel = replace(found.channels[CHANNEL], devices=devices)
    thief.channels(channels={**found.channels, CHANNEL: channel})


def rotate(workspace: Workspace, level: KeyringType) -> str:
    """Rotate a key and return the old one."""
    old = Signer(workspace.gpg_home).fingerprint(level)
    keychange.carry_out(
        workspace, lambda: rotation.rotate(workspace, level, now=NOW), directory=None, now=NOW
    )
    return old


def revoke(workspace: Workspace, key: str) -> None:
    keychange.carry_out(
        workspace,
        lambda: rotation.revoke(workspace, key, force=True, now=NOW),
        directory=None,
        now=NOW,
    )
