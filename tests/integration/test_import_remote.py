"""Files of images from other servers, verified before they are signed again."""

import lzma
import shutil
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    ConfigError,
    DataError,
    NotFoundError,
    TrustError,
)
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.tree import layout
from tests.integration import channel_tree as server
from tests.integration import liar
from tests.integration.import_sources import (  # noqa: F401  fixtures are found by their names
    CHANNEL,
    DEVICE,
    Import,
    ready_fixture,
    refused,
    run_import_fixture,
)
from tests.support.tarballs import file, tar_of


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Another server with keys of its own and one image."""
    workspace = server.make_workspace(tmp_path_factory.mktemp("elsewhere") / "workspace")
    server.publish(workspace, 1)
    return workspace


@pytest.fixture
def other(elsewhere: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(elsewhere.root, tmp_path / "other", symlinks=True)
    return Workspace(root=tmp_path / "other", settings=elsewhere.settings)


def remote_feed(other: Workspace, address: str, **more: Any) -> dict[str, Any]:
    return {
        "generator": "remote-system-image",
        "server": address,
        "archive_master": str(other.archive_master),
        "channel": server.CHANNEL,
        "file": "ubuntu",
        **more,
    }


def test_another_servers_file_byte_for_byte_signed_by_us(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    with liar.serving(other.channel_tree) as web:
        result = run_import(remote_feed(other, web.url), at=server.NOW)
        again = run_import(remote_feed(other, web.url), at=server.NOW)
    theirs = layout.read_index(other, server.CHANNEL, server.DEVICE).images[0].files[0]
    ours = result.image.files[0]
    assert (ours.checksum, ours.size, ours.path) == (theirs.checksum, theirs.size, theirs.path)
    signature = layout.local_path(ready, ours.signature).read_bytes()
    assert signature != layout.local_path(other, theirs.signature).read_bytes()
    assert result.image.version_detail == "ubuntu=1,version=1"
    assert not again.changed


@pytest.mark.parametrize(
    "path",
    ["/channels.json", "/gpg/image-master.tar.xz", "/gpg/blacklist.tar.xz.asc", "index", "payload"],
)
def test_nothing_that_cannot_be_traced_to_the_pinned_key_is_signed(
    ready: Workspace, run_import: Import, other: Workspace, path: str
) -> None:
    image = layout.read_index(other, server.CHANNEL, server.DEVICE).images[0]
    index = layout.read_channels(other).device(server.CHANNEL, server.DEVICE).index
    place = {"index": index, "payload": image.files[0].path}.get(path, path)
    with liar.serving(other.channel_tree) as web:
        web.lies[place] = liar.flipped
        feed = remote_feed(other, web.url)
        refused(ready, TrustError, ".", lambda: run_import(feed, at=server.NOW))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("level", [KeyringType.IMAGE_SIGNING, KeyringType.BLACKLIST])
def test_o13_a_keyring_of_another_server_that_leads_out_is_refused(
    ready: Workspace,
    run_import: Import,
    other: Workspace,
    tmp_path: Path,
    level: KeyringType,
    *,
    signed: bool,
) -> None:
    """Without a good signature it is not even looked at; with one, nothing of it lands anywhere."""
    path = other.channel_tree / f"gpg/{level}.tar.xz"
    evil = tar_of(file("keyring.json", b"{}"), file("../../outside", b"x"))
    path.write_bytes(lzma.compress(evil))
    if signed:
        Signer(other.gpg_home).sign(path, Path(f"{path}.asc"), key=KeyringType.IMAGE_MASTER)
    said = "members are not exactly keyring.gpg and keyring.json" if signed else "signature"
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, TrustError, said, lambda: run_import(feed, at=server.NOW))
    assert not list(tmp_path.rglob("outside"))


def test_a_server_that_is_not_the_pinned_one(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    feed = remote_feed(other, str(other.channel_tree), archive_master=str(ready.archive_master))
    refused(ready, TrustError, "image-master", lambda: run_import(feed, at=server.NOW))
    feed = remote_feed(other, str(other.channel_tree), archive_master="none.tar.xz")
    refused(
        ready, ConfigError, "there is no archive_master", lambda: run_import(feed, at=server.NOW)
    )


def test_a_server_that_has_expired_or_replays(
    ready: Workspace, run_import: Import, other: Workspace, tmp_path: Path
) -> None:
    late = server.NOW + timedelta(days=31)
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, TrustError, "expired on", lambda: run_import(feed, at=late))
    old = tmp_path / "old"
    shutil.copytree(other.channel_tree, old, symlinks=True)
    server.publish(other, 2, rootfs={"system/etc/hostname": b"two\n"})
    run_import(feed, at=server.NOW)
    shutil.rmtree(other.channel_tree)
    old.rename(other.channel_tree)
    refused(ready, TrustError, "was seen before", lambda: run_import(feed, at=server.NOW))


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({"channel": "edge"}, server.CHANNEL),
        ({"device": "toaster"}, "generic_amd64"),
        ({"file": "rootfs"}, "'ubuntu'"),
    ],
)
def test_unknown_names_on_another_server(
    ready: Workspace, run_import: Import, other: Workspace, more: dict[str, str], hint: str
) -> None:
    feed = remote_feed(other, str(other.channel_tree), **more)
    found = refused(ready, NotFoundError, ".", lambda: run_import(feed, at=server.NOW))
    assert hint in found.hint


def test_a_poisoned_tarball_of_another_server_is_not_signed(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    evil = tarfile.TarInfo("system/../../etc/cron.d/x")
    server.publish(other, 2, rootfs={"evil": evil})
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, DataError, "outside its root", lambda: run_import(feed, at=server.NOW))
