"""A the start of trust, B arbitrary software."""

import os
import shutil
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import UnavailableError
from coreimage.lib import openpgp, run
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from tests.integration import liar
from tests.integration.channel_tree import NOW
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
from tests.support.foreign_keys import foreign_gpg

# A. Trust start


def test_a1_first_contact_with_a_root_that_is_not_the_pinned_one(
    client: Client, server: liar.Liar, keyed_root: Path, workspace: Workspace, thief: Thief
) -> None:
    mine = client.archive_master.read_bytes()
    shutil.copy(keyed_root / "trust/archive-master.tar.xz", client.archive_master)
    refused(client, server, "image-master.*not in the keyring")
    client.archive_master.write_bytes(mine)
    honest_again(client, server, workspace, thief.root)


@pytest.mark.parametrize("missing", ["gpg/image-master.tar.xz", "gpg/image-master.tar.xz.asc"])
def test_a2_a_chain_that_does_not_start_at_the_root(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, missing: str
) -> None:
    (thief.root / missing).unlink()
    refused(client, server, "image-master")
    honest_again(client, server, workspace, thief.root)


def test_a3_without_tls_verification_signatures_decide(
    client: Client, thief: Thief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    key, pem = tmp_path / "key.pem", tmp_path / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    run.run([*argv, "-keyout", key, "-out", pem])
    pem.write_text(pem.read_text() + key.read_text())
    with liar.serving(thief.root, certificate=pem) as secure:
        refused(client, secure, "certificate", kind=UnavailableError)
        for path in ("/channels.json", thief.index_path(), "/gpg/blacklist.tar.xz"):
            secure.lies[path] = liar.flipped
            refused(client, secure, "data was changed", verify_tls=False)
            secure.lies.clear()
        assert client.fetch(secure.url, verify_tls=False) == 2


# B. Arbitrary software


@pytest.mark.parametrize("which", ["channels", "index"])
def test_b1_unsigned(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, which: str
) -> None:
    path = "/channels.json" if which == "channels" else thief.index_path()
    (thief.root / f"{path[1:]}.asc").unlink()
    refused(client, server, "has no signature")
    honest_again(client, server, workspace, thief.root)


def of_digest(signature: bytes, number: int) -> bytes:
    """Return a signature that says that it is over another digest: 1 is MD5, 2 SHA-1, 99 nothing.

    Source: RFC 9580, sections 4.2.2 and 5.2.3.
    """
    assert signature[0] == 0x89
    assert signature[3] == 4
    changed = bytearray(signature)
    changed[6] = number
    return bytes(changed)


@pytest.mark.parametrize("which", ["channels", "index"])
def test_b2_b6_b7_b8_signatures_that_are_not_the_one_good_one(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief, which: str
) -> None:
    name = "channels.json" if which == "channels" else thief.index_path()[1:]
    path, signature = thief.root / name, thief.root / f"{name}.asc"
    good = openpgp.dearmor(signature.read_bytes(), name="x")
    with foreign_gpg() as gpg:
        gpg.make("stranger")
        strange = gpg.sign(path, gpg.home / "strange").read_bytes()
        private = workspace.gpg_home / SIGNING / "private-keys-v1.d"
        shutil.copytree(private, gpg.home / private.name, dirs_exist_ok=True)
        gpg.gpg("--import", thief.store.public_keyring(SIGNING))
        key = thief.store.fingerprint(SIGNING)
        weak = gpg.sign(path, gpg.home / "weak", "-u", key, "--digest-algo", "SHA1").read_bytes()
        gpg.gpg("-u", key, "--armor", "--output", gpg.home / "clear", "--clear-sign", path)
        gpg.gpg("-u", key, "--output", gpg.home / "attached", "--sign", path)
        clear, attached = ((gpg.home / each).read_bytes() for each in ("clear", "attached"))
    for wrong, says in (
        (strange, "not in the keyring"),  # B2
        (good + good, "more than one"),  # B6: one key twice is not two
        (good + strange, "more than one|not in"),  # B7
        (clear, "refused"),
        (attached, "refused"),
        (good + b"\xb4\x01x", "refused"),
        (weak, "weaker than SHA-256|refused"),  # B8
        *((of_digest(good, number), "refused|no usable|weaker") for number in (1, 2, 3, 99)),
        (b"", "no usable signature"),
    ):
        signature.write_bytes(wrong)
        refused(client, server, says)
    honest_again(client, server, workspace, thief.root)


def test_b3_a_key_that_was_blacklisted(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    """Its keyring still has it, as with a thief's help; the blacklist decides."""
    old = thief.store.fingerprint(SIGNING)
    rotate(workspace, SIGNING)
    revoke(workspace, old)
    shutil.rmtree(thief.root)
    served(workspace, thief.root)
    thief.store.ban(thief.store.keys(SIGNING)[-1])
    both = b"".join(key.data for key in [*thief.store.retired(SIGNING), *thief.store.keys(SIGNING)])
    tarball = keyrings.keyring_tarball(SIGNING, both, now=NOW)
    thief.write("gpg/image-signing.tar.xz", tarball, key=MASTER)
    content = (thief.root / "channels.json").read_bytes()
    shutil.copytree(workspace.gpg_home / SIGNING, workspace.root / "old", dirs_exist_ok=True)
    ring = workspace.gpg_home / SIGNING / "public.gpg"
    ring.write_bytes(both)
    thief.write("channels.json", content, fingerprint=old)
    refused(client, server, "blacklisted")


def test_b4_the_right_kind_of_key_for_the_wrong_role(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    content = (thief.root / "channels.json").read_bytes()
    for key in (KeyringType.DEVICE_SIGNING, MASTER, KeyringType.ARCHIVE_MASTER):
        thief.write("channels.json", content, key=key)
        refused(client, server, r"channels\.json.*not in the keyring")
    thief.write("channels.json", content)
    for name, key in (
        ("image-signing", SIGNING),
        ("image-signing", KeyringType.ARCHIVE_MASTER),
        ("blacklist", SIGNING),
        ("image-master", MASTER),
    ):
        path = thief.root / f"gpg/{name}.tar.xz"
        right = Path(f"{path}.asc").read_bytes()
        thief.write(f"gpg/{name}.tar.xz", path.read_bytes(), key=key)
        refused(client, server, rf"{name}\.tar\.xz.*not in the keyring")
        Path(f"{path}.asc").write_bytes(right)
    honest_again(client, server, workspace, thief.root)


def test_b5_signatures_of_two_files_exchanged(
    client: Client, server: liar.Liar, workspace: Workspace, thief: Thief
) -> None:
    index = thief.index_path()[1:]
    one, two = thief.root / "channels.json.asc", thief.root / f"{index}.asc"
    signatures = one.read_bytes(), two.read_bytes()
    two.write_bytes(signatures[0])
    refused(client, server, "signature belongs to other data")
    one.write_bytes(signatures[1])
    refused(client, server, "signature belongs to other data")
    honest_again(client, server, workspace, thief.root)
