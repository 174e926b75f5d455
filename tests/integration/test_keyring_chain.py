"""Keyring tarballs and the chain that a client builds from them, with real keys."""

import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import NotFoundError, TrustError
from coreimage.lib import run, trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.tree import layout
from tests.support.trees import snapshot

Opener = Callable[..., trust.Chain]


@pytest.fixture
def gpg_tree(workspace: Workspace) -> Path:
    """The published keyrings, changed at will by a test."""
    return workspace.channel_tree / "state/gpg"


@pytest.fixture
def open_chain(workspace: Workspace, tmp_path: Path, now: datetime) -> Opener:
    def opener(at: datetime = now) -> trust.Chain:
        scratch = tmp_path / "client"
        scratch.mkdir(exist_ok=True)
        return trust.open_chain(
            archive_master=workspace.archive_master,
            fetch=lambda path: layout.existing(workspace.channel_tree / path[1:]),
            scratch=scratch,
            now=at,
        )

    return opener


def pack(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def plain(level: str, keys: bytes, **more: object) -> list[tuple[tarfile.TarInfo, bytes]]:
    text = json.dumps({"type": level, **more}, indent=4).encode()
    return [
        (tarfile.TarInfo("keyring.json"), text),
        (tarfile.TarInfo("keyring.gpg"), keys),
    ]


def replace(
    workspace: Workspace, level: KeyringType, content: bytes, signed_by: KeyringType
) -> None:
    path = workspace.channel_tree / f"state/gpg/{level}.tar.xz"
    path.write_bytes(content)
    Signer(workspace.gpg_home).sign(path, Path(f"{path}.asc"), key=signed_by)


def test_what_is_published(workspace: Workspace, gpg_tree: Path, tmp_path: Path) -> None:
    for level in KeyringType:
        tarball = gpg_tree / f"{level}.tar.xz"
        listed = run.run(["tar", "--list", "--xz", "--file", tarball]).stdout.decode()
        assert listed.split() == ["keyring.json", "keyring.gpg"]
        target = tmp_path / level
        target.mkdir()
        run.run(["tar", "--extract", "--file", tarball, "--directory", target])
        lines = (target / "keyring.json").read_text().splitlines()
        assert f'    "type": "{level}"' in [line.rstrip(",") for line in lines]
    published = (gpg_tree / "archive-master.tar.xz").read_bytes()
    assert workspace.archive_master.read_bytes() == published


def test_each_keyring_is_signed_by_the_one_above(gpg_tree: Path, workspace: Workspace) -> None:
    above = {
        "archive-master": KeyringType.ARCHIVE_MASTER,
        "image-master": KeyringType.ARCHIVE_MASTER,
        "image-signing": KeyringType.IMAGE_MASTER,
        "blacklist": KeyringType.IMAGE_MASTER,
        "device-signing": KeyringType.IMAGE_SIGNING,
    }
    for name, level in above.items():
        ring = Signer(workspace.gpg_home).public_keyring(level)
        tarball = gpg_tree / f"{name}.tar.xz"
        run.run(["gpgv", "--keyring", ring, f"{tarball}.asc", tarball])


def test_the_chain_verifies_channels_json(
    open_chain: Opener, workspace: Workspace, now: datetime
) -> None:
    chain = open_chain()
    channels = workspace.channel_tree / "channels.json"
    signature = workspace.channel_tree / "channels.json.asc"
    found = chain.verify(channels, signature, level=KeyringType.IMAGE_SIGNING, what="channels.json")
    assert found.fingerprint == Signer(workspace.gpg_home).fingerprint(KeyringType.IMAGE_SIGNING)
    assert chain.payload_level is KeyringType.IMAGE_SIGNING
    for level in (KeyringType.IMAGE_MASTER, KeyringType.ARCHIVE_MASTER):
        with pytest.raises(TrustError, match=r"channels\.json"):
            chain.verify(channels, signature, level=level, what="channels.json")
    with pytest.raises(TrustError, match="no keyring 'device-signing'"):
        chain.verify(channels, signature, level=KeyringType.DEVICE_SIGNING, what="channels.json")
    del now


def test_device_signing_signs_payload_but_not_channels(
    open_chain: Opener, workspace: Workspace, gpg_tree: Path, tmp_path: Path
) -> None:
    chain = open_chain()
    tarball = gpg_tree / "device-signing.tar.xz"
    chain.add_device_signing(tarball, Path(f"{tarball}.asc"), "generic_amd64")
    assert chain.payload_level is KeyringType.DEVICE_SIGNING
    data = tmp_path / "payload"
    data.write_text("x")
    for level in (KeyringType.DEVICE_SIGNING, KeyringType.IMAGE_SIGNING):
        Signer(workspace.gpg_home).sign(data, tmp_path / f"{level}.asc", key=level)
        chain.verify(data, tmp_path / f"{level}.asc", level=chain.payload_level, what="payload")
    with pytest.raises(TrustError, match="payload"):
        chain.verify(
            data,
            tmp_path / "device-signing.asc",
            level=KeyringType.IMAGE_SIGNING,
            what="payload",
        )


@pytest.mark.parametrize("name", ["blacklist", "image-master", "image-signing"])
@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.xz.asc"])
def test_a_missing_keyring_is_refused(
    open_chain: Opener, gpg_tree: Path, name: str, suffix: str
) -> None:
    (gpg_tree / f"{name}{suffix}").unlink()
    with pytest.raises(TrustError, match=name):
        open_chain()


def test_a_keyring_signed_by_the_wrong_level_is_refused(
    open_chain: Opener, workspace: Workspace
) -> None:
    keys = Signer(workspace.gpg_home).public_keyring(KeyringType.IMAGE_SIGNING).read_bytes()
    content = pack(plain("image-signing", keys))
    replace(workspace, KeyringType.IMAGE_SIGNING, content, KeyringType.ARCHIVE_MASTER)
    with pytest.raises(TrustError, match=r"image-signing\.tar\.xz"):
        open_chain()


def test_a_keyring_in_place_of_another_is_refused(open_chain: Opener, gpg_tree: Path) -> None:
    for suffix in (".tar.xz", ".tar.xz.asc"):
        shutil.copy(gpg_tree / f"blacklist{suffix}", gpg_tree / f"image-signing{suffix}")
    with pytest.raises(TrustError, match="is of type 'blacklist'"):
        open_chain()


def test_an_expired_keyring_is_refused(open_chain: Opener, now: datetime) -> None:
    open_chain(now + timedelta(days=729))
    with pytest.raises(TrustError, match=r"'image-signing\.tar\.xz' expired on 2028-11-22"):
        open_chain(now + timedelta(days=730))


def test_a_blacklisted_image_signing_key_is_refused(
    open_chain: Opener, workspace: Workspace
) -> None:
    keys = Signer(workspace.gpg_home).public_keyring(KeyringType.IMAGE_SIGNING).read_bytes()
    content = pack(plain("blacklist", keys))
    replace(workspace, KeyringType.BLACKLIST, content, KeyringType.IMAGE_MASTER)
    chain = open_chain()
    with pytest.raises(TrustError, match="blacklisted"):
        chain.verify(
            workspace.channel_tree / "channels.json",
            workspace.channel_tree / "channels.json.asc",
            level=KeyringType.IMAGE_SIGNING,
            what="channels.json",
        )


def test_a_keyring_for_another_device_is_refused(open_chain: Opener, workspace: Workspace) -> None:
    keys = Signer(workspace.gpg_home).public_keyring(KeyringType.DEVICE_SIGNING).read_bytes()
    content = pack(plain("device-signing", keys, model="tablet"))
    replace(workspace, KeyringType.DEVICE_SIGNING, content, KeyringType.IMAGE_SIGNING)
    tarball = workspace.channel_tree / "gpg/device-signing.tar.xz"
    chain = open_chain()
    with pytest.raises(TrustError, match="for device 'tablet', not 'phone'"):
        chain.add_device_signing(tarball, Path(f"{tarball}.asc"), "phone")
    chain.add_device_signing(tarball, Path(f"{tarball}.asc"), "tablet")


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [],
        plain("image-signing", b"")[:1],
        [*plain("image-signing", b""), (tarfile.TarInfo("more"), b"")],
        [*plain("image-signing", b""), (tarfile.TarInfo("keyring.gpg"), b"")],
        [plain("image-signing", b"")[0], (tarfile.TarInfo("./keyring.gpg"), b"")],
        [plain("image-signing", b"")[0], (tarfile.TarInfo("../keyring.gpg"), b"")],
        [plain("image-signing", b"")[0], (link("keyring.gpg", tarfile.SYMTYPE, "/etc/x"), b"")],
        [plain("image-signing", b"")[0], (link("keyring.gpg", tarfile.LNKTYPE, "/etc/x"), b"")],
        plain("image-signing", b""),
        plain("image-signing", b"-----BEGIN PGP PUBLIC KEY BLOCK-----"),
        plain("image-signing", b"", expiry="soon"),
        plain("image-signing", bytes(5 << 20)),
    ],
)
def test_malformed_keyrings_are_refused_although_well_signed(
    open_chain: Opener, workspace: Workspace, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    replace(workspace, KeyringType.IMAGE_SIGNING, pack(members), KeyringType.IMAGE_MASTER)
    with pytest.raises(TrustError, match="keyring"):
        open_chain()


@pytest.mark.parametrize("content", [b"noise", lzma.compress(b"noise"), b"\xfd7zXZ\x00"])
def test_what_is_no_tarball_is_refused(
    open_chain: Opener, workspace: Workspace, content: bytes
) -> None:
    replace(workspace, KeyringType.IMAGE_SIGNING, content, KeyringType.IMAGE_MASTER)
    with pytest.raises(TrustError, match="keyring tarball"):
        open_chain()


def test_nothing_is_unpacked_before_it_is_verified(
    open_chain: Opener, gpg_tree: Path, tmp_path: Path
) -> None:
    (gpg_tree / "image-signing.tar.xz").write_bytes(pack(plain("image-signing", b"")))
    with pytest.raises(TrustError, match="signature"):
        open_chain()
    assert not (tmp_path / "client/image-signing.gpg").exists()


def test_generate_again_changes_nothing(workspace: Workspace, now: datetime) -> None:
    def everything() -> list[dict[str, str]]:
        parts = ("secret", "trust", "www")
        return [snapshot(workspace.root / part) for part in parts]

    before = everything()
    assert keyrings.generate(workspace, progress=Silent(), now=now) == []
    assert everything() == before


def test_keyrings_are_renewed_before_they_end(
    workspace: Workspace, open_chain: Opener, now: datetime
) -> None:
    later = now + timedelta(days=25)
    renewed = keyrings.generate(workspace, progress=Silent(), now=later)
    assert renewed == [KeyringType.DEVICE_SIGNING]
    much_later = now + timedelta(days=800)
    renewed = keyrings.generate(workspace, progress=Silent(), now=much_later)
    assert renewed == [KeyringType.IMAGE_SIGNING, KeyringType.DEVICE_SIGNING]
    open_chain(much_later)


def test_without_keys_nothing_is_published(tmp_path: Path, now: datetime) -> None:
    from coreimage.config import load_workspace
    from coreimage.systemimage.operations import channels

    (tmp_path / "coreimage.toml").touch()
    bare = load_workspace(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        channels.create_channel(bare, "edge", now=now)
    assert "coreimage keyring generate" in caught.value.hint
    assert list(bare.channel_tree.iterdir()) == []
