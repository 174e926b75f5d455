"""channels.json: the channels of a system-image server and the index of each of their devices.

Unknown keys are kept and written back. Source: wiki.ubuntu.com/ImageBasedUpgrades/Server.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coreimage.errors import DataError, NotFoundError
from coreimage.model.document import parse_object

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*(/[A-Za-z0-9][A-Za-z0-9.+_-]*)*\Z")
# Old clients turn names into attributes of an object of theirs, and these collide.
_RESERVED = frozenset({"keys", "converters", "gpg", "pool", "state", "states", "cdimage"})


def check_channel_name(name: str) -> str:
    """Return a channel or device name that clients can digest, else raise DataError."""
    if not _NAME.match(name) or not _RESERVED.isdisjoint(name.split("/")):
        raise DataError(
            f"'{name}' cannot be a channel or device name",
            hint="use letters, digits and . + _ - in parts joined by '/', none of them "
            + ", ".join(sorted(_RESERVED)),
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of a channel: where its index lies, and its own signing keyring if it has one."""

    index: str
    keyring: Mapping[str, str] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel: its devices by name, and how it is shown."""

    devices: Mapping[str, Device]
    hidden: bool = False
    alias: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The whole of channels.json."""

    channels: Mapping[str, Channel]

    def require(self, channel: str) -> Channel:
        """Return a channel; NotFoundError names the ones that exist."""
        found = self.channels.get(channel)
        if found is None:
            shown = sorted(name for name, each in self.channels.items() if not each.hidden)
            raise NotFoundError(
                f"there is no channel '{channel}'", hint=_choices("the channels are", shown)
            )
        return found

    def device(self, channel: str, device: str) -> Device:
        """Return a device of a channel; NotFoundError names the ones that exist."""
        found = self.require(channel)
        if device not in found.devices:
            raise NotFoundError(
                f"channel '{channel}' has no device '{device}'",
                hint=_choices("its devices are", sorted(found.devices)),
            )
        return found.devices[device]

    def to_json(self) -> str:
        """Return the text of channels.json, keys sorted."""
        return (
            json.dumps(
                {name: _channel_fields(each) for name, each in self.channels.items()},
                indent=4,
                sort_keys=True,
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Channels":
        """Parse channels.json; raises DataError."""
        document = parse_object(text, name="channels.json")
        return cls(channels={name: _channel(name, each) for name, each in document.items()})


def _choices(lead: str, names: list[str]) -> str:
    return f"{lead} " + ", ".join(f"'{name}'" for name in names) if names else "there is none yet"


def _channel_fields(channel: Channel) -> dict[str, Any]:
    fields: dict[str, Any] = dict(channel.extra)
    fields["devices"] = {
        name: {
            **device.extra,
            "index": device.index,
            **({"keyring": dict(device.keyring)} if device.keyring else {}),
        }
        for name, device in channel.devices.items()
    }
    if channel.hidden:
        fields["hidden"] = True
    if channel.alias is not None:
        fields["alias"] = channel.alias
    return fields


def _channel(name: str, fields: Any) -> Channel:
    if not isinstance(fields, dict) or not isinstance(fields.get("devices"), dict):
        raise DataError(f"channels.json: channel '{name}' has no object 'devices'")
    hidden, alias = fields.get("hidden", False), fields.get("alias")
    if not isinstance(hidden, bool):
        raise DataError(f"channels.json: 'hidden' of channel '{name}' is not true or false")
    if alias is not None and not isinstance(alias, str):
        raise DataError(f"channels.json: 'alias' of channel '{name}' is not a name")
    return Channel(
        devices={device: _device(name, device, each) for device, each in fields["devices"].items()},
        hidden=hidden,
        alias=alias,
        extra={
            key: value for key, value in fields.items() if key not in ("devices", "hidden", "alias")
        },
    )


def _device(channel: str, name: str, fields: Any) -> Device:
    where = f"channels.json: device '{name}' of channel '{channel}'"
    if not isinstance(fields, dict) or not isinstance(fields.get("index"), str):
        raise DataError(f"{where} has no 'index'")
    keyring = fields.get("keyring")
    if keyring is not None and not (
        isinstance(keyring, dict)
        and isinstance(keyring.get("path"), str)
        and isinstance(keyring.get("signature"), str)
    ):
        raise DataError(f"{where}: 'keyring' needs 'path' and 'signature'")
    return Device(
        index=fields["index"],
        keyring=keyring,
        extra={key: value for key, value in fields.items() if key not in ("index", "keyring")},
    )
