"""Signatures with real gpg and gpgv: made by the signer, and every kind that must be refused."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError, TrustError
from coreimage.lib import openpgp, run, trust
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType
from tests.support.foreign_keys import ForeignGpg, foreign_gpg

LEVEL = KeyringType.IMAGE_SIGNING


@pytest.fixture
def signer(workspace: Workspace) -> Signer:
    return Signer(workspace.gpg_home)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"some bytes\n" * 1000)
    return path


@pytest.fixture(scope="module")
def gpg() -> Iterator[ForeignGpg]:
    with foreign_gpg() as found:
        found.make("stranger")
        found.make("family")
        subkey = found.gpg("--with-colons", "--list-keys", "family").decode()
        fingerprint = next(line.split(":")[9] for line in subkey.splitlines() if "fpr" in line)
        found.gpg("--quick-add-key", fingerprint, "rsa2048", "sign", "never")
        yield found


def agents() -> set[str]:
    """Return the gpg agents that run on homes of ours; ended ones that wait for init do not."""
    lines = run.run(["ps", "-eo", "args"]).stdout.decode().splitlines()
    return {line for line in lines if line.startswith("gpg-agent") and "/.scratch-" in line}


def verify(data: Path, signature: Path, keyring: Path, blacklist: Path | None = None) -> str:
    return trust.verify(
        data, signature, keyring=keyring, blacklist=blacklist, what="data", level="image-signing"
    ).fingerprint


def test_keys_are_primary_rsa_keys_alone_for_their_owner(workspace: Workspace) -> None:
    signer = Signer(workspace.gpg_home)
    for level, bits in ((KeyringType.ARCHIVE_MASTER, "4096"), (LEVEL, "2048")):
        keyring = signer.public_keyring(level)
        shown = run.run(["gpg", "--with-colons", "--show-keys", keyring]).stdout.decode()
        records = [line.split(":") for line in shown.splitlines()]
        assert [each[2:4] for each in records if each[0] == "pub"] == [[bits, "1"]]
        assert not [each for each in records if each[0] == "sub"]
        fingerprints = [each[9] for each in records if each[0] == "fpr"]
        assert fingerprints == [signer.fingerprint(level)]
        assert openpgp.read_keys(keyring).primary == (fingerprints[0],)
    assert workspace.gpg_home.stat().st_mode & 0o777 == 0o700


def test_a_signature_is_armoured_single_and_good(
    signer: Signer, data: Path, tmp_path: Path
) -> None:
    signature = tmp_path / "data.asc"
    signer.sign(data, signature, key=LEVEL)
    assert signature.read_text().startswith("-----BEGIN PGP SIGNATURE-----")
    keyring = signer.public_keyring(LEVEL)
    assert verify(data, signature, keyring) == signer.fingerprint(LEVEL)
    run.run(["gpgv", "--keyring", keyring, signature, data])


def test_a_home_with_a_long_path_and_keys_that_exist(tmp_path: Path, data: Path) -> None:
    signer = Signer(tmp_path / ("long" * 40) / "gpg")
    with pytest.raises(NotFoundError, match="there is no 'image-signing' key"):
        signer.sign(data, tmp_path / "data.asc", key=LEVEL)
    made = signer.generate(LEVEL)
    signer.sign(data, tmp_path / "data.asc", key=LEVEL)
    assert verify(data, tmp_path / "data.asc", signer.public_keyring(LEVEL)) == made
    with pytest.raises(CoreImageError, match="already"):
        signer.generate(LEVEL)
    assert signer.fingerprint(LEVEL) == made


def test_many_may_sign_at_once_and_no_agent_stays(signer: Signer, data: Path) -> None:
    signatures = [data.with_name(f"{number}.asc") for number in range(6)]
    threads = [
        threading.Thread(target=signer.sign, args=(data, each), kwargs={"key": LEVEL})
        for each in signatures
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keyring = signer.public_keyring(LEVEL)
    assert {verify(data, each, keyring) for each in signatures} == {signer.fingerprint(LEVEL)}
    assert agents() == set()


def test_one_flipped_byte_is_refused(signer: Signer, data: Path, tmp_path: Path) -> None:
    signature = tmp_path / "data.asc"
    signer.sign(data, signature, key=LEVEL)
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(content)
    with pytest.raises(TrustError, match="data was changed") as caught:
        verify(data, signature, signer.public_keyring(LEVEL))
    key = signer.fingerprint(LEVEL)[-16:]
    assert key in caught.value.message
    assert key in caught.value.hint


def test_a_foreign_key_is_named_beside_the_expected_one(
    signer: Signer, data: Path, tmp_path: Path, gpg: ForeignGpg
) -> None:
    signature = gpg.sign(data, tmp_path / "data.asc", "--local-user", "stranger")
    stranger = openpgp.read_keys(gpg.export(tmp_path / "stranger.gpg", "stranger")).primary[0]
    with pytest.raises(TrustError, match=stranger[-16:]) as caught:
        verify(data, signature, signer.public_keyring(LEVEL))
    assert signer.fingerprint(LEVEL)[-16:] in caught.value.hint


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--local-user", "stranger", "--local-user", "family"], "more than one signature"),
        (["--local-user", "stranger", "--digest-algo", "SHA1"], "number 2"),
        (["--local-user", "stranger", "--textmode"], "binary file"),
        (["--local-user", "family"], "subkey"),
    ],
)
def test_unusual_signatures_are_refused(
    data: Path, tmp_path: Path, gpg: ForeignGpg, options: list[str], complaint: str
) -> None:
    signature = gpg.sign(data, tmp_path / "data.asc", *options)
    keyring = gpg.export(tmp_path / "ring.gpg", "stranger")
    keyring.write_bytes(
        keyring.read_bytes() + gpg.export(tmp_path / "f.gpg", "family").read_bytes()
    )
    with pytest.raises(TrustError, match=complaint):
        verify(data, signature, keyring)


@pytest.mark.parametrize("form", ["--sign", "--clear-sign"])
def test_a_signed_message_is_not_a_detached_signature(
    data: Path, tmp_path: Path, gpg: ForeignGpg, form: str
) -> None:
    message = tmp_path / "data.asc"
    gpg.gpg("--local-user", "stranger", "--output", message, form, data)
    with pytest.raises(TrustError, match="not a detached"):
        verify(data, message, gpg.export(tmp_path / "ring.gpg", "stranger"))


def test_the_same_signature_twice_is_refused(data: Path, tmp_path: Path, gpg: ForeignGpg) -> None:
    signature = gpg.sign(data, tmp_path / "data.asc", "--local-user", "stranger")
    signature.write_bytes(signature.read_bytes() * 2)
    with pytest.raises(TrustError, match="more than one"):
        verify(data, signature, gpg.export(tmp_path / "ring.gpg", "stranger"))


def test_expired_keys_and_signatures_are_refused(data: Path, tmp_path: Path) -> None:
    with foreign_gpg() as gpg:
        past = ["--faked-system-time", "20200101T000000!"]
        gpg.gpg(*past, "--quick-gen-key", "short", "rsa2048", "cert,sign", "2020-02-01")
        signature = gpg.sign(data, tmp_path / "a.asc", *past)
        with pytest.raises(TrustError, match="key has expired"):
            verify(data, signature, gpg.export(tmp_path / "ring.gpg", "short"))
    with foreign_gpg() as gpg:
        gpg.gpg(*past, "--quick-gen-key", "long", "rsa2048", "cert,sign", "never")
        signature = gpg.sign(data, tmp_path / "b.asc", *past, "--default-sig-expire", "1d")
        with pytest.raises(TrustError, match="signature has expired"):
            verify(data, signature, gpg.export(tmp_path / "ring.gpg", "long"))


def test_a_blacklisted_key_is_refused(signer: Signer, data: Path, tmp_path: Path) -> None:
    signature = tmp_path / "data.asc"
    signer.sign(data, signature, key=LEVEL)
    keyring = signer.public_keyring(LEVEL)
    empty = tmp_path / "empty.gpg"
    empty.touch()
    assert verify(data, signature, keyring, blacklist=empty)
    with pytest.raises(TrustError, match="blacklisted"):
        verify(data, signature, keyring, blacklist=keyring)
    empty.write_bytes(b"noise")
    with pytest.raises(TrustError, match="not a binary OpenPGP keyring"):
        verify(data, signature, keyring, blacklist=empty)


@pytest.mark.parametrize("content", [None, b"", b"noise", b"x" * (1 << 17)])
def test_no_usable_signature(
    signer: Signer, data: Path, tmp_path: Path, content: bytes | None
) -> None:
    signature = tmp_path / "data.asc"
    if content is not None:
        signature.write_bytes(content)
    with pytest.raises(TrustError, match="'data'"):
        verify(data, signature, signer.public_keyring(LEVEL))


def test_an_open_file_is_what_was_verified(signer: Signer, data: Path, tmp_path: Path) -> None:
    signature = tmp_path / "data.asc"
    signer.sign(data, signature, key=LEVEL)
    expected = data.read_bytes()
    with data.open("rb") as file:
        file.read(100)
        data.rename(tmp_path / "away")
        data.write_bytes(b"swapped")
        trust.verify(
            file,
            signature,
            keyring=signer.public_keyring(LEVEL),
            blacklist=None,
            what="data",
            level=LEVEL,
        )
        assert file.read() == expected
