"""K key compromise and rotation."""

import shutil
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, TrustError, UnavailableError
from tests.integration import channel_tree, liar
from tests.support.attacks import (
    MASTER,
    SIGNING,
    Client,
    Thief,
    honest_again,
    refused,
    revoke,
    rotate,
    served,
)


def test_k3_a_client_that_missed_three_rotations(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    for level in (SIGNING, MASTER, SIGNING, MASTER, SIGNING, MASTER):
        rotate(workspace, level)
    honest_again(client, server, workspace, thief.root)


def test_k4_old_images_of_a_revoked_key_are_refused_and_new_ones_taken(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    assert client.fetch(server.url) == 2
    old = rotate(workspace, SIGNING)
    revoke(workspace, old)
    served(workspace, thief.root)
    refused(client, server, f"{old[-16:]}.*is refused: the key is")
    channel_tree.publish(
        workspace,
        3,
        rootfs={"system/etc/hostname": b"third\n"},
        device_files={**channel_tree.DEVICE_FILES, "assets/vmlinuz": b"another kernel"},
    )
    honest_again(client, server, workspace, thief.root, version=3)


def test_k4_a_stolen_master_cannot_make_itself_valid_again(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Everything from before the revocation, and a new state signed by keys of the thief's."""
    old_gpg = Path(shutil.copytree(thief.root / "gpg", thief.root.parent / "old-gpg"))
    stolen = rotate(workspace, MASTER)
    revoke(workspace, stolen)
    served(workspace, thief.root)
    assert client.fetch(server.url) == 2
    shutil.copytree(old_gpg, thief.root / "gpg", dirs_exist_ok=True)
    refused(client, server, f"{stolen[-16:]}.*revoked before")
    served(workspace, thief.root)
    assert client.fetch(server.url) == 2


@pytest.mark.parametrize(
    ("lie", "kind"),
    [(None, TrustError), (liar.failing, UnavailableError), (liar.stalled, UnavailableError)],
)
def test_k5_a_blacklist_that_cannot_be_fetched_is_not_an_empty_one(
    client: Client,
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    lie: liar.Behaviour | None,
    kind: type[CoreImageError],
) -> None:
    if lie is None:
        (thief.root / "gpg/blacklist.tar.xz").unlink()
    else:
        server.lies["/gpg/blacklist.tar.xz"] = lie
    refused(client, server, "blacklist", kind=kind)
    honest_again(client, server, workspace, thief.root)
