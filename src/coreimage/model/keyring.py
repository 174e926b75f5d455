"""Keyrings: the levels of the signing chain, and the keyring.json that travels with each.

Source: wiki.ubuntu.com/ImageBasedUpgrades/GPG, sections "Keyrings" and "Keyring tarballs".
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from coreimage.errors import DataError
from coreimage.model.document import parse_object


class KeyringType(StrEnum):
    """The levels, from the one that devices are born with downwards."""

    ARCHIVE_MASTER = "archive-master"
    IMAGE_MASTER = "image-master"
    IMAGE_SIGNING = "image-signing"
    DEVICE_SIGNING = "device-signing"
    BLACKLIST = "blacklist"


SIGNED_BY = {
    KeyringType.IMAGE_MASTER: KeyringType.ARCHIVE_MASTER,
    KeyringType.IMAGE_SIGNING: KeyringType.IMAGE_MASTER,
    KeyringType.DEVICE_SIGNING: KeyringType.IMAGE_SIGNING,
    KeyringType.BLACKLIST: KeyringType.IMAGE_MASTER,
}
"""Whose signature each keyring must carry; archive-master is pinned on the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringInfo:
    """keyring.json: what a keyring is for and how long it may be used."""

    type: KeyringType
    expiry: datetime | None = None
    model: str | None = None

    def to_json(self) -> str:
        """Return the text: one key a line, indented by four spaces, because old recoveries grep."""
        fields: dict[str, object] = {"type": self.type.value}
        if self.expiry is not None:
            fields["expiry"] = int(self.expiry.timestamp())
        if self.model is not None:
            fields["model"] = self.model
        return json.dumps(fields, indent=4) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "KeyringInfo":
        """Parse keyring.json; raises DataError."""
        try:
            fields = parse_object(text, name="keyring.json")
            expiry = fields.get("expiry")
            if expiry is not None and (isinstance(expiry, bool) or not isinstance(expiry, int)):
                raise DataError(f"keyring.json: 'expiry' is {expiry!r}, expected UNIX seconds")
            model = fields.get("model")
            return cls(
                type=KeyringType(fields["type"]),
                expiry=None if expiry is None else datetime.fromtimestamp(expiry, UTC),
                model=None if model is None else str(model),
            )
        except (ValueError, KeyError, OverflowError, OSError) as error:
            raise DataError(f"keyring.json is malformed: {error}") from error
