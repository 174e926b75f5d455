"""H endless data, O archives that lead out."""

import lzma
import tarfile
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, TrustError, UnavailableError
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import CHANNEL, DEVICE
from tests.support.attacks import MASTER, Client, Thief, honest_again, refused, served
from tests.support.tarballs import Member, file, tar_of

SIGNING_KEYRING = "/gpg/image-signing.tar.xz"


def victims(thief: Thief) -> dict[str, str]:
    return {
        "channels": "/channels.json",
        "signature": "/channels.json.asc",
        "keyring": SIGNING_KEYRING,
        "index": thief.index_path(),
    }


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        *((liar.endless, name) for name in ("channels", "signature", "keyring", "index")),
        *((liar.longer, name) for name in ("channels", "keyring", "index")),
        *((liar.shorter, name) for name in ("channels", "keyring", "index")),
        (liar.packed, "channels"),
    ],
)
def test_h1_h2_metadata_without_end_or_of_another_length(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    lie: liar.Behaviour,
    name: str,
) -> None:
    server.lies[victims(thief)[name]] = lie
    with pytest.raises(CoreImageError) as raised:
        client.fetch(server.url)
    assert raised.value.exit_code in (65, 69, 76)
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize("lie", [liar.endless, liar.longer, liar.hidden_longer, liar.shorter])
def test_o12_h1_h2_payload_without_end_or_of_another_length(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    lie: liar.Behaviour,
) -> None:
    for path in thief.root.glob("pool/*.tar.xz"):
        server.lies[f"/pool/{path.name}"] = lie
    refused(client, server, "bytes", kind=UnavailableError)
    honest_again(client, server, workspace, thief.root)


def bomb(name: str, mebibytes: int) -> bytes:
    """Return a tarball that unpacks to very much more than it is."""
    packer = lzma.LZMACompressor(preset=0, check=lzma.CHECK_CRC32)
    info = tarfile.TarInfo(name)
    info.size = mebibytes << 20
    pieces = [packer.compress(info.tobuf())]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b"".join([*pieces, packer.flush()])


@pytest.mark.parametrize("member", ["keyring.gpg", "keyring.json"])
def test_h3_a_keyring_that_unpacks_to_very_much(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    member: str,
) -> None:
    content = bomb(member, 64)
    assert len(content) < 1 << 20
    thief.write(SIGNING_KEYRING, content, key=MASTER)
    refused(client, server, "too large")
    honest_again(client, server, workspace, thief.root)


def sparse(name: str, size: int) -> bytes:
    """Return a tarball of one member that is a hole."""
    data = b"0\n".ljust(512, b"\0")
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return lzma.compress(tar_of(file(name, data, headers=headers)))


def huge(name: str, size: int) -> bytes:
    """Return a tarball that promises a member of `size` bytes, and its first MiB."""
    info = tarfile.TarInfo(name)
    info.size = size
    return lzma.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (huge("system/x", 100 << 30), "larger than"),
        (sparse("system/x", 100 << 30), "larger than"),
        (lzma.compress(tar_of(file("system/" + "d/" * 300 + "x"))), "too (deep|long)"),
        (lzma.compress(tar_of(file("system/" + "n" * 256))), "too long"),
        (lzma.compress(tar_of(file("system/" + "/".join(["n" * 250] * 9)))), "too long"),
    ],
    ids=["huge", "sparse", "deep", "long name", "long path"],
)
def test_h3_h4_payload_that_unpacks_to_too_much(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    payload: bytes,
    says: str,
) -> None:
    """All of it signed; refused before the bytes are there, and the disk of the client too."""
    version = channel_tree.version_files(3, channel=CHANNEL, device=DEVICE)
    files = {
        "/pool/ubuntu-{}.tar.xz": payload,
        "/pool/device-{}.tar.xz": channel_tree.tarball(channel_tree.DEVICE_FILES),
        f"/{CHANNEL}/{DEVICE}/version-3.tar.xz": channel_tree.tarball(version),
    }
    channel_tree.publish(workspace, 3, files=files)
    served(workspace, thief.root)
    with pytest.raises(DataError, match=f"ubuntu-.*{says}"):
        client.flash(server.url)
    assert not client.output.exists()
    channel_tree.publish(workspace, 4)
    honest_again(client, server, workspace, thief.root, version=4)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
        b'{"debian-core/13/edge": {"devices": {}}, "debian-core/13/edge": {"devices": {}}}',
        b'{"a": {"devices": {}, "serial": NaN}}',
        b'{"a": {"devices": {}, "serial": 1' + b"0" * 10_000 + b"}}",
    ],
    ids=["deep list", "deep object", "twice", "no number", "long number"],
)
def test_h5_json_that_is_signed_and_makes_no_sense(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    text: bytes,
) -> None:
    thief.write("channels.json", text)
    with pytest.raises(CoreImageError) as raised:
        client.fetch(server.url)
    assert raised.value.exit_code in (65, 76)
    honest_again(client, server, workspace, thief.root)


def test_h5_a_document_of_spaces(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
) -> None:
    thief.write("channels.json", b" " * (64 << 20) + b"{}")
    refused(client, server, "more than the [0-9]+ allowed", kind=UnavailableError)
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize(
    "members",
    [
        [file("../outside", b"x")],
        [file("/tmp/outside", b"x")],
        [Member(name="keyring.gpg", to="/etc/passwd")],
        [Member(name="sub", to=".."), file("sub/outside", b"x")],
        [Member(name="keyring.gpg", kind=b"3", device=(1, 5))],
        [file("keyring.json", b"{}"), Member(name="keyring.gpg", link="keyring.json")],
    ],
    ids=["parent", "absolute", "symlink", "through a symlink", "device", "hard link"],
)
def test_o1_o2_a_keyring_tarball_that_leads_out(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    tmp_path: Path,
    members: list[Member],
) -> None:
    thief.write(SIGNING_KEYRING, lzma.compress(tar_of(*members)), key=MASTER)
    with pytest.raises(CoreImageError) as raised:
        client.fetch(server.url)
    assert raised.value.exit_code in (65, 76)
    assert not list(tmp_path.rglob("outside"))
    honest_again(client, server, workspace, thief.root)


def test_o2_nothing_is_unpacked_before_its_signature_is_good(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
) -> None:
    """It is not even looked at: what is said is about the signature, not about the noise."""
    (thief.root / SIGNING_KEYRING[1:]).write_bytes(b"noise")
    refused(client, server, "signature", kind=TrustError)
    honest_again(client, server, workspace, thief.root)
