"""The script in docs/how-to/verify-by-hand.md accepts what we publish, and nothing else."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.feeds import ChannelSettings
from coreimage.lib import run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports.importer import import_image
from coreimage.systemimage.keys.keyrings import keyring_tarball
from coreimage.systemimage.operations.channels import create_channel
from coreimage.workspace import make_workspace
from tests.support.publications import SERIES, publish

PAGE = Path(__file__).parents[2] / "docs/how-to/verify-by-hand.md"
CHANNEL = "ubuntu-core/15.04/edge"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one publication, and a channel that has it as version 1."""
    workspace = make_workspace(tmp_path_factory.mktemp("verify") / "workspace", progress=Silent())
    publish(workspace, "20150511", good=True)
    now = datetime.now(UTC)
    create_channel(workspace, CHANNEL, now=now)
    import_image(
        workspace,
        channel=CHANNEL,
        device="generic_amd64",
        settings=ChannelSettings(project="ubuntu-core", release="15.04"),
        series=SERIES,
        progress=Silent(),
        now=now,
    )
    return workspace


def verify(workspace: Path, scratch: Path) -> run.Completed:
    script = scratch / "verify.sh"
    script.write_text(PAGE.read_text().split("```sh\n")[1].split("```")[0])
    trees = [workspace / "www/system-image", workspace / "www/cdimage"]
    pinned = workspace / "trust/archive-master.tar.xz"
    return run.run(["sh", script, pinned, *trees], check=False)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_we_publish_is_verified(published: Workspace, tmp_path: Path) -> None:
    done = verify(published.root, tmp_path)
    assert (done.status, done.stderr) == (0, b"")
    assert b"everything verified: 34 files, 1 devices" in done.stdout


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        ("www/system-image/pool/rootfs-*.tar.xz", flip),
        ("www/system-image/pool/rootfs-*.json", flip),
        ("www/system-image/pool/device-*.tar.xz.asc", Path.unlink),
        ("www/system-image/pool/device-*.tar.xz", Path.unlink),
        ("www/system-image/**/index-*.json", flip),
        ("www/system-image/**/version-1.tar.xz", flip),
        ("www/system-image/states/3/channels.json", flip),
        ("www/system-image/states/1/gpg/blacklist.tar.xz", flip),
        ("www/system-image/states/3/gpg/image-signing.tar.xz.asc", Path.unlink),
        ("www/cdimage/**/*.device.tar.gz", flip),
        ("www/cdimage/**/SHA256SUMS", flip),
        ("www/cdimage/**/SHA256SUMS.gpg", Path.unlink),
    ],
)
def test_what_was_changed_is_refused(
    published: Workspace, tmp_path: Path, pattern: str, change: Change
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(published.root, copy, symlinks=True)
    (path,) = copy.glob(pattern)
    change(path)
    done = verify(copy, tmp_path)
    assert done.status == 1
    assert b"REFUSED: " in done.stderr


@pytest.mark.parametrize(
    "name", ["www/system-image/pool/more.tar.xz", "www/cdimage/ubuntu-core/vivid/{}/20150511/more"]
)
def test_what_was_added_is_refused(published: Workspace, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(published.root, copy, symlinks=True)
    added = copy / name.format("daily-preinstalled")
    added.write_text("more")
    done = verify(copy, tmp_path)
    assert (done.status, str(added).encode() in done.stderr) == (1, True)


def test_a_blacklisted_key_is_refused(published: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(published.root, copy, symlinks=True)
    signer = Signer(published.gpg_home)
    banned = signer.public_keyring(KeyringType.IMAGE_SIGNING).read_bytes()
    blacklist = copy / "www/system-image/state/gpg/blacklist.tar.xz"
    blacklist.write_bytes(keyring_tarball(KeyringType.BLACKLIST, banned, now=datetime.now(UTC)))
    signer.sign(blacklist, Path(f"{blacklist}.asc"), key=KeyringType.IMAGE_MASTER)
    done = verify(copy, tmp_path)
    assert done.status == 1
    assert b"its key is blacklisted" in done.stderr


def test_another_root_of_trust_is_refused(published: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(published.root, copy, symlinks=True)
    other = make_workspace(tmp_path / "other", progress=Silent())
    shutil.copyfile(other.archive_master, copy / "trust/archive-master.tar.xz")
    done = verify(copy, tmp_path)
    assert done.status == 1
    assert b"image-master.tar.xz" in done.stderr
