"""Reading binary keyrings: packets of all lengths, and refusal of what is not understood."""

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreimage.errors import TrustError
from coreimage.lib import openpgp


def fingerprint(body: bytes) -> str:
    digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
    return digest.hexdigest().upper()


def old_packet(tag: int, body: bytes) -> bytes:
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body


def new_packet(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 192:
        length = bytes([size])
    elif size < 8384:
        length = bytes([(size - 192 >> 8) + 192, size - 192 & 0xFF])
    else:
        length = b"\xff" + size.to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + body


@pytest.mark.parametrize("packet", [old_packet, new_packet])
@pytest.mark.parametrize("size", [10, 191, 192, 525, 8383, 8384, 20000])
def test_keys_and_subkeys(tmp_path: Path, packet: object, size: int) -> None:
    assert callable(packet)
    key, subkey = b"\x04" + b"k" * (size - 1), b"\x04" + b"s" * (size - 1)
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(packet(6, key) + packet(13, b"name") + packet(14, subkey))
    keys = openpgp.read_keys(ring)
    assert keys.primary == (fingerprint(key),)
    assert keys.subkeys == (fingerprint(subkey),)


def test_an_empty_keyring_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "ring.gpg").touch()
    assert openpgp.read_keys(tmp_path / "ring.gpg").primary == ()


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
        old_packet(6, b"\x04key")[:-1],
        old_packet(6, b"\x03old key"),
        old_packet(6, b"\x06new key"),
        old_packet(6, b""),
        b"\xc6",
        b"\x99\x01",
        b"\xc6\xe1\x04\x00",
        b"\x9b\x04rest of the file",
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, content: bytes) -> None:
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(content)
    with pytest.raises(TrustError, match=r"ring\.gpg"):
        openpgp.read_keys(ring)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80))
def test_noise_is_read_or_refused_but_never_a_crash(tmp_path: Path, content: bytes) -> None:
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(content)
    with suppress(TrustError):
        assert len(openpgp.read_keys(ring).primary) <= len(content)
