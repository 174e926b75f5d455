"""Attacks with data on the flash tool: endless, too large, too deep, and archives that lead out.

The letters and numbers are those of our list of attacks: H endless data, O archives.
"""

import lzma
import tarfile
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, TrustError, UnavailableError
from coreimage.model.keyring import KeyringType
from tests.integration import liar
from tests.integration.attacks import Client, Thief

# Fixtures are found by their names.
from tests.integration.test_attacks import (  # noqa: F401
    client,
    first,
    honest_again,
    made,
    refused,
    server,
    small,
    thief,
    workspace,
)
from tests.support.tarballs import Member, file, tar_of

MASTER = KeyringType.IMAGE_MASTER
SIGNING_KEYRING = "/gpg/image-signing.tar.xz"


def victims(thief: Thief) -> dict[str, str]:  # noqa: F811
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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
    member: str,
) -> None:
    content = bomb(member, 64)
    assert len(content) < 1 << 20
    thief.write(SIGNING_KEYRING, content, key=MASTER)
    refused(client, server, "too large")
    honest_again(client, server, workspace, thief.root)


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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
    text: bytes,
) -> None:
    thief.write("channels.json", text)
    with pytest.raises(CoreImageError) as raised:
        client.fetch(server.url)
    assert raised.value.exit_code in (65, 76)
    honest_again(client, server, workspace, thief.root)


def test_h5_a_document_of_spaces(
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
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
    server: liar.Liar,  # noqa: F811
    workspace: Workspace,  # noqa: F811
    thief: Thief,  # noqa: F811
    client: Client,  # noqa: F811
) -> None:
    """It is not even looked at: what is said is about the signature, not about the noise."""
    (thief.root / SIGNING_KEYRING[1:]).write_bytes(b"noise")
    refused(client, server, "signature", kind=TrustError)
    honest_again(client, server, workspace, thief.root)
