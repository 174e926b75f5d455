"""From names to an image: release and channel to the signed index, and the index to an image.

Nothing is looked at before its signature was verified, from the pinned archive-master downwards.
"""

import configparser
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.flasher.download import Source
from coreimage.lib.trust import Chain, open_chain
from coreimage.model.channels import Channels, check_channel_name
from coreimage.model.index import Index, check_path
from coreimage.model.keyring import KeyringType

_PAIR_ATTEMPTS = 3
# What releases look like, and the project that has them.
_PROJECTS = (
    (re.compile(r"\d\d\.\d\d\Z"), "ubuntu-core"),
    (re.compile(r"\d\d?\Z"), "debian-core"),
)


def channel_name(release: str, channel: str) -> str:
    """Return a channel's full name: 15.04 and edge make ubuntu-core/15.04/edge.

    A channel with a slash is a full name already. Raises NotFoundError for a release that looks
    like none.
    """
    if "/" in channel:
        return check_channel_name(channel)
    for pattern, project in _PROJECTS:
        if pattern.match(release):
            return check_channel_name(f"{project}/{release}/{channel}")
    raise NotFoundError(
        f"there is no release '{release}'",
        hint="give a release such as 13 or 24.04, or a full name with --channel PROJECT/13/edge",
    )


def short_channel(channel: str) -> str:
    """Return the last part of a channel's name, as people say it."""
    return channel.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server whose keyrings and channels.json were verified."""

    source: Source
    chain: Chain
    channels: Channels

    def index(self, channel: str, device: str) -> Index:
        """Return the verified index of a device in a channel.

        Raises NotFoundError that names the channels or devices there are, TrustError, DataError.
        """
        entry = self.channels.device(channel, device)
        if entry.keyring is not None:
            tarball = self.source.metadata(check_path(entry.keyring["path"]))
            signature = self.source.metadata(check_path(entry.keyring["signature"]))
            self.chain.add_device_signing(tarball, signature, device)
        text = _verified(self.source, self.chain, entry.index, level=self.chain.payload_level)
        index = Index.from_json(text)
        # Indexes of other servers may not say what they are for; their images do.
        expected = {"channel": self.answers_to(channel, device), "device": [device]}
        for what, allowed in expected.items():
            if index.extra.get(what, allowed[0]) not in allowed:
                raise _other_purpose(f"'{entry.index}'", what, index.extra[what], allowed)
        return index

    def answers_to(self, channel: str, device: str) -> list[str]:
        """Return the channel names that an image found there may say that it is for.

        Redirects serve the images of another channel under their own name.
        """
        return self.channels.owners(channel, device)


def open_server(source: Source, *, archive_master: Path, scratch: Path, now: datetime) -> Server:
    """Verify keyrings and channels.json of a server; raises TrustError, UnavailableError."""
    keys = scratch / "keyrings"
    keys.mkdir()
    chain = open_chain(archive_master=archive_master, fetch=source.metadata, scratch=keys, now=now)
    text = b""
    for attempt in range(_PAIR_ATTEMPTS, 0, -1):
        try:
            text = _verified(source, chain, "/channels.json", level=KeyringType.IMAGE_SIGNING)
            break
        except TrustError:
            # The server may have published between our two requests.
            if attempt == 1:
                raise
    return Server(source=source, chain=chain, channels=Channels.from_json(text))


def _verified(source: Source, chain: Chain, path: str, *, level: KeyringType) -> bytes:
    file = source.metadata(check_path(path))
    try:
        signature = source.metadata(f"{path}.asc")
    except NotFoundError as error:
        raise TrustError(f"'{path}' has no signature: {error.message}") from error
    # The copy is ours alone: what is verified is what is read.
    chain.verify(file, signature, level=level, what=path)
    return file.read_bytes()


def check_purpose(text: str, *, version: int, channels: Sequence[str], device: str) -> None:
    """See that an image's own channel.ini names what was asked for; TrustError when it does not.

    index.json does not say what it is for, so a mirror could serve another's at this place. The
    image itself does, under the same signature.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        service = parser["service"]
        found = (service["channel"], service["device"], int(service["build_number"]))
    except (configparser.Error, KeyError, ValueError) as error:
        raise DataError(f"image {version}: its channel.ini is malformed: {error}") from error
    for what, said, expected in (
        ("channel", found[0], channels),
        ("device", found[1], [device]),
        ("version", found[2], [version]),
    ):
        if said not in expected:
            raise _other_purpose(f"image {version}", what, said, expected)


def _other_purpose(name: str, what: str, said: object, expected: Sequence[object]) -> TrustError:
    return TrustError(
        f"{name} says that it is for {what} '{said}', not '{expected[0]}'",
        hint="the server offers what was made for another; ask whoever runs it",
    )
