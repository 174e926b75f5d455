import pytest

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.flasher.resolve import channel_name, check_purpose, short_channel

INI = "[service]\nchannel: a/b/edge\ndevice: generic_amd64\nbuild_number: 57\n"


@pytest.mark.parametrize(
    ("release", "channel", "expected"),
    [
        ("12", "stable", "debian-core/12/stable"),
        ("13", "edge", "debian-core/13/edge"),
        ("15.04", "edge", "ubuntu-core/15.04/edge"),
        ("24.04", "stable", "ubuntu-core/24.04/stable"),
        ("whatever", "my/own/channel", "my/own/channel"),
    ],
)
def test_releases_and_channels_make_names(release: str, channel: str, expected: str) -> None:
    assert channel_name(release, channel) == expected


@pytest.mark.parametrize("release", ["", "vivid", "13/edge", "130", "15.4", "13\n"])
def test_other_releases_are_unknown(release: str) -> None:
    with pytest.raises(NotFoundError):
        channel_name(release, "edge")


@pytest.mark.parametrize("channel", ["../../etc", "a/../b", "/a", "a//b", "ed ge", "", "pool/x"])
def test_channels_that_cannot_be_names_are_refused(channel: str) -> None:
    with pytest.raises(DataError):
        channel_name("13", channel)


def test_people_say_the_last_part() -> None:
    assert short_channel("debian-core/13/edge") == "edge"
    assert short_channel("edge") == "edge"


def purpose(text: str, *, channels: tuple[str, ...] = ("a/b/edge",), version: int = 57) -> None:
    check_purpose(text, version=version, channels=channels, device="generic_amd64")


def test_an_image_says_what_it_is_for() -> None:
    purpose(INI)
    # A redirect serves the images of another channel; channels.json, signed, says which.
    purpose(INI, channels=("a/b/alias", "a/b/edge"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a/b/edge", "a/b/stable", "channel 'a/b/stable', not 'a/b/edge'"),
        ("amd64", "arm64", "device 'generic_arm64', not 'generic_amd64'"),
        ("57", "56", "version '56', not '57'"),
    ],
)
def test_an_image_for_another_is_refused(old: str, new: str, says: str) -> None:
    with pytest.raises(TrustError, match=says):
        purpose(INI.replace(old, new))


@pytest.mark.parametrize(
    "text", ["", "[service]\n", "nonsense", INI.replace("57", "many"), INI + "channel: twice\n"]
)
def test_an_image_that_does_not_say_it_well_is_malformed(text: str) -> None:
    with pytest.raises(DataError, match="image 57"):
        purpose(text)
