"""C wrong software, G mix and match."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, TrustError, UnavailableError
from coreimage.model.index import Index
from tests.integration import liar
from tests.integration.channel_tree import CHANNEL, DEVICE
from tests.support.attacks import (
    OTHER,
    SIGNING,
    Client,
    Thief,
    honest_again,
    rebind,
    refused,
    revoke,
    rotate,
    served,
)

# C. Wrong software


def test_c1_an_image_of_another_channel_with_right_hashes(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Also when channels.json binds it: the image says what it was made for."""
    other = Index.from_json((thief.root / thief.index_path(OTHER)[1:]).read_bytes())
    rebind(thief, replace(other, extra={**other.extra, "channel": CHANNEL}))
    refused(client, server, f"image 1 says that it is for channel '{OTHER}'")
    honest_again(client, server, workspace, thief.root)


def test_c2_a_path_that_leads_out(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    document = json.loads((thief.root / thief.index_path()[1:]).read_bytes())
    for path in (
        "/pool/../../etc/passwd",
        "//evil.example/x.tar.xz",
        "http://evil.example/x.tar.xz",
        "/pool/%2e%2e/x.tar.xz",
        "/pool/x\0.tar.xz",
        "/pool/x\n.tar.xz",
        "/pool/a b.tar.xz",
        "pool/x.tar.xz",
    ):
        file = document["images"][0]["files"][0]
        file["path"], file["signature"] = path, f"{path}.asc"
        rebind(thief, json.dumps(document).encode())
        refused(client, server, "is not a path inside", kind=DataError)
    found = thief.read()
    for path in ("/pool/../../etc/passwd", "//evil.example/index.json", "/a\0/index.json"):
        entry = replace(found.device(CHANNEL, DEVICE), index=path)
        channel = replace(found.channels[CHANNEL], devices={DEVICE: entry})
        thief.channels(channels={**found.channels, CHANNEL: channel})
        refused(client, server, "is not a path inside", kind=DataError)
    honest_again(client, server, workspace, thief.root)


def test_c2_a_symlink_in_a_tree_on_disk(
    client: Client, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    del workspace
    assert client.fetch(str(thief.root)) == 2
    secret = tmp_path / "secret"
    secret.write_text("x")
    pool = next((thief.root / "pool").glob("ubuntu-*.tar.xz"))
    for path in (thief.root / "pool").glob("*.tar.xz"):
        path.unlink()
        path.symlink_to(secret)
    del pool
    with pytest.raises(CoreImageError) as raised:
        client.fetch(str(thief.root))
    assert "x86" not in raised.value.message


def test_c3_the_index_of_another_channel(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Served in its place: not the bytes that were bound. Bound by a thief: not for this place."""
    mine, other = thief.index_path()[1:], thief.index_path(OTHER)[1:]
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{other}{suffix}", thief.root / f"{mine}{suffix}")
    refused(client, server, "has the sha256 [0-9a-f]{64}.*names [0-9a-f]{64}")
    found = thief.read()
    moved = replace(found.channels[CHANNEL], devices=found.channels[OTHER].devices)
    thief.channels(channels={**found.channels, CHANNEL: moved})
    refused(client, server, f"is for channel '{OTHER}', not '{CHANNEL}'")
    honest_again(client, server, workspace, thief.root)


# G. Mix and match


def test_g1_new_channels_with_old_keyrings(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """An old blacklist with a new channels.json would bring a revoked key back."""
    old = shutil.copytree(thief.root / "gpg", thief.root.parent / "old-gpg")
    rotate(workspace, SIGNING)
    revoke(workspace, rotate(workspace, SIGNING))
    served(workspace, thief.root)
    for name in ("blacklist.tar.xz", "blacklist.tar.xz.asc"):
        shutil.copy(old / name, thief.root / "gpg" / name)
    refused(client, server, "the keyring 'blacklist' has the sha256 .* was published with")
    honest_again(client, server, workspace, thief.root)


def test_g1_the_server_publishes_between_two_requests(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, tmp_path: Path
) -> None:
    """Files of two states, once: asked again, and believed."""
    old = Path(shutil.copytree(thief.root, tmp_path / "before"))
    rotate(workspace, SIGNING)
    served(workspace, thief.root)

    def before(handler: liar.Handler, content: bytes) -> None:
        del content
        liar.honest(handler, (old / handler.path[1:]).read_bytes())

    for path in ("/gpg/image-signing.tar.xz", "/gpg/image-signing.tar.xz.asc"):
        server.lies[path] = liar.first(1, before)
    assert client.fetch(server.url) == 2


def test_g2_files_of_two_images_under_one_version(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """The root file system of one image in place of another's, where that is served."""
    index = Index.from_json((thief.root / thief.index_path()[1:]).read_bytes())
    one, two = (index.full(version).files[0].path[1:] for version in (1, 2))
    assert one != two
    for suffix in ("", ".asc"):
        shutil.copy(thief.root / f"{one}{suffix}", thief.root / f"{two}{suffix}")
    with pytest.raises((TrustError, UnavailableError)):
        client.fetch(server.url)
    honest_again(client, server, workspace, thief.root)
