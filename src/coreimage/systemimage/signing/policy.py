"""What may be signed with which key: the rules that the signer keeps, whoever asks.

A signature means what clients take it for, so each key signs only the kinds of files that clients
expect it on, and only files that are of that kind. Without the second rule, a payload that is a
keyring in truth would become a keyring for a device.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from coreimage.errors import CoreImageError, DataError, TrustError
from coreimage.lib import trust
from coreimage.model.channels import Channels
from coreimage.model.document import parse_object
from coreimage.model.index import Index
from coreimage.model.keyring import SIGNED_BY, KeyringType
from coreimage.model.publication import parse_checksums

_MAX_DOCUMENT = 64 << 20
_XZ = b"\xfd7zXZ\0"


class Purpose(StrEnum):
    """What a file is for."""

    KEYRING = "keyring"
    CHANNELS = "channels"
    INDEX = "index"
    PAYLOAD = "payload"
    RECORD = "record"
    CHECKSUMS = "checksums"


def purpose_of(path: str) -> Purpose:
    """Return what a file of the channel tree is for, by its root-relative path."""
    folder, _, name = path.rpartition("/")
    if folder == "/gpg" or name.startswith("device-signing"):
        return Purpose.KEYRING
    if path == "/channels.json":
        return Purpose.CHANNELS
    if name.endswith(".json"):
        in_pool = folder == "/pool" or not name.startswith("index")
        return Purpose.RECORD if in_pool else Purpose.INDEX
    return Purpose.PAYLOAD


_LOWER = frozenset({KeyringType.IMAGE_SIGNING, KeyringType.DEVICE_SIGNING})
_LEVELS: Mapping[Purpose, frozenset[KeyringType]] = {
    Purpose.CHANNELS: frozenset({KeyringType.IMAGE_SIGNING}),
    Purpose.CHECKSUMS: frozenset({KeyringType.IMAGE_SIGNING}),
    Purpose.INDEX: _LOWER,
    Purpose.PAYLOAD: _LOWER,
    Purpose.RECORD: _LOWER,
}


def require_allowed(
    data: Path, *, level: KeyringType, purpose: Purpose, channel: str, device: str
) -> None:
    """Raise TrustError unless a key of `level` may sign this file for this purpose.

    `channel` and `device` are what the caller says that an index is for, empty when unknown.
    """
    allowed = _LEVELS.get(purpose, frozenset(SIGNED_BY.values()))
    if level not in allowed:
        raise TrustError(
            f"a key of '{level}' does not sign '{data.name}': files of the kind '{purpose}' are "
            f"signed by {' or '.join(sorted(allowed))}"
        )
    try:
        _KINDS[purpose](data)
        if purpose is Purpose.KEYRING:
            _require_level(data, level)
        if purpose is Purpose.INDEX:
            _require_place(data, channel=channel, device=device)
    except CoreImageError as error:
        raise TrustError(
            f"'{data.name}' is not signed as '{purpose}': {error.message}", hint=error.hint
        ) from error


def _require_level(data: Path, level: KeyringType) -> None:
    kind = trust.keyring_type(data)
    above = SIGNED_BY.get(kind, kind)
    if level is not above:
        raise TrustError(f"the keyring '{kind}' is signed by '{above}', not by '{level}'")


def _require_place(data: Path, *, channel: str, device: str) -> None:
    says = Index.from_json(data.read_bytes()).extra
    for what, expected in (("channel", channel), ("device", device)):
        if expected and says.get(what, expected) != expected:
            raise TrustError(f"it says that it is for {what} '{says[what]}', not '{expected}'")


def _check_channels(data: Path) -> None:
    Channels.from_json(_document(data))


def _check_index(data: Path) -> None:
    Index.from_json(_document(data))


def _check_checksums(data: Path) -> None:
    parse_checksums(_document(data).decode(errors="replace"), source=data.name)


def _check_record(data: Path) -> None:
    text = _document(data)
    parse_object(text, name=data.name)
    for kind, parse in (("channels.json", Channels.from_json), ("an index", Index.from_json)):
        if _parses(parse, text):
            raise DataError(f"it is {kind}")


def _parses(parse: Callable[[bytes], object], text: bytes) -> bool:
    try:
        parse(text)
    except DataError:
        return False
    return True


def _check_payload(data: Path) -> None:
    with data.open("rb") as file:
        if file.read(len(_XZ)) != _XZ:
            raise DataError("it is not an xz file")
    if trust.is_keyring(data):
        raise DataError("it is a keyring")


def _check_keyring(data: Path) -> None:
    trust.keyring_type(data)


def _document(data: Path) -> bytes:
    if data.stat().st_size > _MAX_DOCUMENT:
        raise DataError(f"it is larger than {_MAX_DOCUMENT} bytes")
    with data.open("rb") as file:
        return file.read()


_KINDS: Mapping[Purpose, Callable[[Path], None]] = {
    Purpose.KEYRING: _check_keyring,
    Purpose.CHANNELS: _check_channels,
    Purpose.INDEX: _check_index,
    Purpose.PAYLOAD: _check_payload,
    Purpose.RECORD: _check_record,
    Purpose.CHECKSUMS: _check_checksums,
}
