"""N sizes at the edge."""

import hashlib
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import DataError, TrustError
from coreimage.lib.fetch import check_digest
from tests.integration import channel_tree
from tests.support.attacks import Client


@pytest.mark.long
def test_n1_all_of_a_very_large_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((4 << 30) + 2)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with path.open("r+b") as file:
        check_digest(file, digest, name="large")
        file.seek(-1, 2)
        file.write(b"\1")
        with pytest.raises(TrustError, match=digest):
            check_digest(file, digest, name="large")


def test_n2_a_payload_file_without_a_byte(
    workspace: Workspace,
    client: Client,
) -> None:
    version = channel_tree.version_files(
        3, channel=channel_tree.CHANNEL, device=channel_tree.DEVICE
    )
    channel_tree.publish(
        workspace,
        3,
        files={
            "/pool/ubuntu-{}.tar.xz": b"",
            f"/{channel_tree.CHANNEL}/{channel_tree.DEVICE}/version-3.tar.xz": channel_tree.tarball(
                version
            ),
        },
    )
    # It is what was signed, and makes no disk.
    assert client.fetch(str(workspace.channel_tree)) == 3
    with pytest.raises(DataError):
        client.flash(str(workspace.channel_tree))
    assert not client.output.exists()
