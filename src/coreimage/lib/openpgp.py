"""OpenPGP keyrings: which keys a public keyring holds, without a key management program.

Source: RFC 9580, sections 4.2 (packet headers), 5.2.3 (signatures), 5.5 (key material), 5.5.4
(fingerprints) and 6 (ASCII armour).
"""

import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from coreimage.errors import TrustError

_SIGNATURE, _PUBLIC_KEY, _PUBLIC_SUBKEY, _MAX_TAG = 2, 6, 14, 63
_ISSUER_FINGERPRINT = 33
_RSA, _RSA_SIGN = 1, 3
# Of a version 4 key: version, time of creation, algorithm; then the numbers follow.
_KEY_HEAD = 6
_SHORT_KEY_ID = 16
# Of an old-format header: the number of length bytes; 3 would mean "until the end of the file".
_OLD_LENGTHS = {0: 1, 1: 2, 2: 4}
_ARMOUR = re.compile(
    rb"-----BEGIN PGP (?:PUBLIC KEY BLOCK|SIGNATURE)-----[ \t]*\r?\n"
    rb"(?:[^\r\n]*:[^\r\n]*\r?\n)*\s*"
    rb"([A-Za-z0-9+/=\s]*?)-----END PGP (?:PUBLIC KEY BLOCK|SIGNATURE)-----"
)
_ARMOUR_WIDTH = 64
_ONE_OCTET, _TWO_OCTETS, _FIVE_OCTETS = 192, 224, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringKeys:
    """Fingerprints in upper-case hex: of primary keys, and of their subkeys."""

    primary: tuple[str, ...]
    subkeys: tuple[str, ...]


def read_keys(keyring: Path) -> KeyringKeys:
    """Return the keys of a binary keyring; raises TrustError when any of it is not understood.

    A key of a version other than 4 is refused as well: a reader that skipped it could miss a
    revoked key.
    """
    return keys_of(keyring.read_bytes(), name=str(keyring))


def keys_of(data: bytes, *, name: str) -> KeyringKeys:
    """Return the keys of a binary keyring's content; see read_keys."""
    found: dict[int, list[str]] = {_PUBLIC_KEY: [], _PUBLIC_SUBKEY: []}
    for tag, body in _packets(data, name=name):
        if tag in found:
            if body[:1] != b"\x04":
                raise TrustError(f"keyring '{name}' holds a key that is not of version 4")
            prefix = b"\x99" + len(body).to_bytes(2, "big")
            digest = hashlib.sha1(prefix + body, usedforsecurity=False)
            found[tag].append(digest.hexdigest().upper())
    return KeyringKeys(primary=tuple(found[_PUBLIC_KEY]), subkeys=tuple(found[_PUBLIC_SUBKEY]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """One key of a keyring with all that belongs to it, as its bytes.

    `bits` and `keygrip`, by which GnuPG names the file of the private half, are those of an RSA
    key; of any other, `bits` is 0.
    """

    fingerprint: str
    bits: int
    keygrip: str
    data: bytes


def split_keys(data: bytes, *, name: str) -> list[PublicKey]:
    """Return the keys of a binary keyring one by one, in their order; raises TrustError."""
    found = [
        (begin, data[start:end])
        for tag, begin, start, end in _spans(data, name=name)
        if tag == _PUBLIC_KEY
    ]
    keys = keys_of(data, name=name).primary
    ends = [*(begin for begin, _ in found[1:]), len(data)]
    return [
        PublicKey(fingerprint=key, data=data[begin:end], **_rsa(body))
        for key, (begin, body), end in zip(keys, found, ends, strict=True)
    ]


class _RsaFields(TypedDict):
    bits: int
    keygrip: str


def _rsa(body: bytes) -> _RsaFields:
    """Return size and keygrip: the SHA-1 of the modulus, a signed number, as libgcrypt has it."""
    if body[_KEY_HEAD - 1 : _KEY_HEAD] not in (bytes([_RSA]), bytes([_RSA_SIGN])):
        return {"bits": 0, "keygrip": ""}
    bits = int.from_bytes(body[_KEY_HEAD : _KEY_HEAD + 2], "big")
    start = _KEY_HEAD + 2
    modulus = body[start : start + (bits + 7) // 8]
    signed = b"\0" + modulus if modulus[:1] >= b"\x80" else modulus
    return {
        "bits": bits,
        "keygrip": hashlib.sha1(signed, usedforsecurity=False).hexdigest().upper(),
    }


def issuer(signature: bytes, *, name: str) -> str:
    """Return the fingerprint that a detached signature names as its maker, empty if it names none.

    Nothing is verified: whoever makes a signature writes what he likes. Source: section 5.2.3.35.
    Raises TrustError for what is no signature of version 4.
    """
    packets = list(_packets(dearmor(signature, name=name), name=name))
    if len(packets) != 1 or packets[0][0] != _SIGNATURE or packets[0][1][:1] != b"\x04":
        raise TrustError(f"'{name}' is not one signature of version 4")
    body = packets[0][1]
    hashed = body[6 : 6 + int.from_bytes(body[4:6], "big")]
    while hashed:
        # One-octet lengths are enough for what we look for; longer subpackets are skipped.
        size, skip = hashed[0], 1
        if size >= _ONE_OCTET:
            if size == _FIVE_OCTETS:
                size, skip = int.from_bytes(hashed[1:5], "big"), 5
            else:
                size, skip = ((size - _ONE_OCTET) << 8) + hashed[1] + _ONE_OCTET, 2
        kind, content = hashed[skip] & 0x7F, hashed[skip + 1 : skip + size]
        if kind == _ISSUER_FINGERPRINT and content[:1] == b"\x04":
            return content[1:].hex().upper()
        hashed = hashed[skip + size :]
    return ""


def dearmor(data: bytes, *, name: str) -> bytes:
    """Return keys or a signature in binary, whether it is armoured (one or more blocks) or binary.

    Raises TrustError for armour that cannot be read.
    """
    if data[:1] >= b"\x80":
        return data
    blocks = [match.group(1) for match in _ARMOUR.finditer(data)]
    if not blocks:
        raise TrustError(
            f"'{name}' is not an OpenPGP public key or signature",
            hint="export a key with 'gpg --export', with or without --armor",
        )
    try:
        return b"".join(_decode(block) for block in blocks)
    except ValueError as error:
        raise TrustError(f"the armour of '{name}' is damaged", hint="fetch the key anew") from error


def _decode(block: bytes) -> bytes:
    lines = block.split()
    # A checksum may follow; it adds nothing where signatures are checked (section 6.1).
    if lines and lines[-1].startswith(b"="):
        lines.pop()
    return binascii.a2b_base64(b"".join(lines), strict_mode=True)


def armor(data: bytes) -> str:
    """Return a binary keyring as an armoured block."""
    text = binascii.b2a_base64(data, newline=False).decode()
    lines = [text[at : at + _ARMOUR_WIDTH] for at in range(0, len(text), _ARMOUR_WIDTH)]
    begin, end = (f"-----{word} PGP PUBLIC KEY BLOCK-----" for word in ("BEGIN", "END"))
    return "\n".join([begin, "", *lines, end, ""])


def key_id(fingerprint: str) -> str:
    """Return the 16 hex digits by which people and programs call a key."""
    return fingerprint[-_SHORT_KEY_ID:]


def _packets(data: bytes, *, name: str) -> Iterator[tuple[int, bytes]]:
    for tag, _, start, end in _spans(data, name=name):
        yield tag, data[start:end]


def _spans(data: bytes, *, name: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield each packet's tag, where it begins, and where its body begins and ends."""
    position = 0
    while position < len(data):
        begin = position
        try:
            tag, start, length = _header(data, begin)
        except (IndexError, KeyError) as error:
            raise TrustError(f"'{name}' is not a binary OpenPGP keyring or signature") from error
        position = start + length
        if position > len(data) or tag > _MAX_TAG:
            raise TrustError(f"keyring or signature '{name}' is cut short")
        yield tag, begin, start, position


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return tag, start and length of the packet at `position`."""
    first = data[position]
    if not first & 0x80:
        raise KeyError(first)
    if not first & 0x40:
        size = _OLD_LENGTHS[first & 0x03]
        start = position + 1 + size
        return (first >> 2) & 0x0F, start, int.from_bytes(data[position + 1 : start], "big")
    length = data[position + 1]
    if length < _ONE_OCTET:
        return first & 0x3F, position + 2, length
    if length < _TWO_OCTETS:
        rest = data[position + 2]
        return first & 0x3F, position + 3, ((length - _ONE_OCTET) << 8) + rest + _ONE_OCTET
    if length != _FIVE_OCTETS:
        raise KeyError(length)  # a partial length, which keys do not have
    start = position + 6
    return first & 0x3F, start, int.from_bytes(data[position + 2 : start], "big")
