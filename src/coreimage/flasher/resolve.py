"""From what people say to a channel's name, and what an image itself says that it is for."""

import configparser
import re
from collections.abc import Sequence

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.model.channels import check_channel_name

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
