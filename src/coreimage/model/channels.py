"""channels.json: the channels of a system-image server and the index of each of their devices.

Unknown keys are kept and written back. Source: wiki.ubuntu.com/ImageBasedUpgrades/Server.

What says how fresh the document is (`serial`, `expires`, `keyrings`) stands in every channel, the
same in all: old clients take each name at the top for a channel, and ignore what they do not know
inside of one.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coreimage.errors import DataError, NotFoundError
from coreimage.model.document import parse_object

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*(/[A-Za-z0-9][A-Za-z0-9.+_-]*)*\Z")
# Old clients turn names into attributes of an object of theirs; other names have a place in a tree.
_RESERVED = frozenset({"keys", "converters", "gpg", "pool", "state", "states", "cdimage", "store"})
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# Serials and times beyond what a JSON number holds exactly everywhere are nobody's.
_MAX_INTEGER = (1 << 53) - 1


def check_channel_name(name: str) -> str:
    """Return a channel or device name that clients can digest, else raise DataError."""
    if not _NAME.match(name) or not _RESERVED.isdisjoint(name.split("/")):
        raise DataError(
            f"'{name}' cannot be a channel or device name",
            hint="use letters, digits and . + _ - in parts joined by '/', each beginning with a "
            "letter or a digit, and none of them " + ", ".join(sorted(_RESERVED)),
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of a channel: where its index lies, and its own signing keyring if it has one.

    `sha256` and `size` (in bytes) bind the index; old servers do not write them. `redirect` names
    the channel that the whole entry is a copy from.
    """

    index: str
    sha256: str | None = None
    size: int | None = None
    keyring: Mapping[str, str] | None = None
    redirect: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel: its devices by name, how it is shown, and which channel it follows.

    An `alias` has indexes of its own with the images of the channel it names; a `redirect` has a
    copy of that channel's `devices`.
    """

    devices: Mapping[str, Device]
    hidden: bool = False
    alias: str | None = None
    redirect: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def follows(self) -> str | None:
        """The channel that this one has all its devices from."""
        return self.alias or self.redirect


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The whole of channels.json.

    `serial` grows with every state of the tree, `expires` is in UNIX seconds, and `keyrings` has
    the sha256 of each keyring tarball by its type. Old servers write none of them.
    """

    channels: Mapping[str, Channel]
    serial: int | None = None
    expires: int | None = None
    keyrings: Mapping[str, str] = field(default_factory=dict)

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

    def owners(self, channel: str, device: str) -> list[str]:
        """Return the names that an index found there may say that it is for, its own first.

        A redirect has the index of another channel, which that one may have from a third.
        """
        names = [channel]
        while (found := self.channels.get(names[-1])) is not None:
            entry = found.devices.get(device)
            target = found.redirect or (entry.redirect if entry else None)
            if target is None or target in names:
                break
            names.append(target)
        return names

    def to_json(self) -> str:
        """Return the text of channels.json, keys sorted."""
        fresh: dict[str, Any] = {}
        if self.serial is not None:
            fresh["serial"] = self.serial
        if self.expires is not None:
            fresh["expires"] = self.expires
        if self.keyrings:
            fresh["keyrings"] = dict(self.keyrings)
        document = {name: _channel_fields(each) | fresh for name, each in self.channels.items()}
        return json.dumps(document, indent=4, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Channels":
        """Parse channels.json; raises DataError.

        A document without channels has no place for what says how fresh it is.
        """
        document = parse_object(text, name="channels.json")
        channels = {name: _channel(name, each) for name, each in document.items()}
        fresh: dict[str, Any] = {}
        for key, check in _FRESH.items():
            fresh[key] = _agreed(document, key)
            if fresh[key] is not None:
                check(fresh[key], f"channels.json: '{key}'")
        return cls(channels=channels, **{**fresh, "keyrings": fresh["keyrings"] or {}})


def _agreed(document: Mapping[str, Any], key: str) -> Any:
    """Return the value that every channel has under `key`, None when none has it."""
    names = sorted(document)
    values = [document[name].get(key) for name in names]
    for name, value in zip(names, values, strict=True):
        # 1, 1.0 and true are equal to Python, and not to others.
        if type(value) is not type(values[0]) or value != values[0]:
            raise DataError(
                f"channels.json: '{key}' of channel '{name}' is not that of '{names[0]}'"
            )
    return values[0] if values else None


def _check_integer(value: Any, where: str) -> None:
    if type(value) is not int or not 1 <= value <= _MAX_INTEGER:
        raise DataError(f"{where} is {value!r}, expected a whole number from 1 to {_MAX_INTEGER}")


def _check_digest(value: Any, where: str) -> None:
    if not isinstance(value, str) or not _SHA256.match(value):
        raise DataError(f"{where} is {value!r}, expected a sha256 in lower-case hex")


def _check_digests(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise DataError(f"{where} is not an object of digests")
    for kind, digest in value.items():
        _check_digest(digest, f"{where} of '{kind}'")


_FRESH: Mapping[str, Callable[[Any, str], None]] = {
    "serial": _check_integer,
    "expires": _check_integer,
    "keyrings": _check_digests,
}
_CHANNEL_KEYS = ("devices", "hidden", "alias", "redirect", *_FRESH)
_DEVICE_KEYS = ("index", "sha256", "size", "keyring", "redirect")


def _choices(lead: str, names: list[str]) -> str:
    return f"{lead} " + ", ".join(f"'{name}'" for name in names) if names else "there is none yet"


def _channel_fields(channel: Channel) -> dict[str, Any]:
    fields: dict[str, Any] = dict(channel.extra)
    fields["devices"] = {name: _device_fields(each) for name, each in channel.devices.items()}
    if channel.hidden:
        fields["hidden"] = True
    followed = {"alias": channel.alias, "redirect": channel.redirect}
    return fields | {key: name for key, name in followed.items() if name is not None}


def _device_fields(device: Device) -> dict[str, Any]:
    known = {
        "index": device.index,
        "sha256": device.sha256,
        "size": device.size,
        "keyring": dict(device.keyring) if device.keyring else None,
        "redirect": device.redirect,
    }
    return {
        **device.extra,
        **{key: value for key, value in known.items() if value is not None},
    }


def _channel(name: str, fields: Any) -> Channel:
    if not isinstance(fields, dict) or not isinstance(fields.get("devices"), dict):
        raise DataError(f"channels.json: channel '{name}' has no object 'devices'")
    where = f"channel '{name}'"
    hidden = fields.get("hidden", False)
    if not isinstance(hidden, bool):
        raise DataError(f"channels.json: 'hidden' of {where} is not true or false")
    return Channel(
        devices={device: _device(name, device, each) for device, each in fields["devices"].items()},
        hidden=hidden,
        alias=_name(fields, "alias", where),
        redirect=_name(fields, "redirect", where),
        extra={key: value for key, value in fields.items() if key not in _CHANNEL_KEYS},
    )


def _name(fields: Mapping[str, Any], key: str, where: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"channels.json: '{key}' of {where} is not a name")
    return value


def _device(channel: str, name: str, fields: Any) -> Device:
    what = f"device '{name}' of channel '{channel}'"
    where = f"channels.json: {what}"
    if not isinstance(fields, dict) or not isinstance(fields.get("index"), str):
        raise DataError(f"{where} has no 'index'")
    keyring = fields.get("keyring")
    if keyring is not None and not (
        isinstance(keyring, dict)
        and isinstance(keyring.get("path"), str)
        and isinstance(keyring.get("signature"), str)
    ):
        raise DataError(f"{where}: 'keyring' needs 'path' and 'signature'")
    sha256, size = fields.get("sha256"), fields.get("size")
    if sha256 is not None:
        _check_digest(sha256, f"{where}: 'sha256'")
    if size is not None:
        _check_integer(size, f"{where}: 'size'")
    return Device(
        index=fields["index"],
        sha256=sha256,
        size=size,
        keyring=keyring,
        redirect=_name(fields, "redirect", what),
        extra={key: value for key, value in fields.items() if key not in _DEVICE_KEYS},
    )
