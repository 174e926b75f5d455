import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError, NotFoundError
from coreimage.model.channels import Channels, check_channel_name
from tests.support.documents import JSON, UNKNOWN, places, replaced

KEYRING = {"path": "/edge/mako/device-signing.tar.xz", "signature": "/edge/mako/x.tar.xz.asc"}
GOOD: dict[str, Any] = {
    "core/15.04/edge": {
        "devices": {
            "generic_amd64": {"index": "/core/15.04/edge/generic_amd64/index.json"},
            "mako": {"index": "/core/15.04/edge/mako/index.json", "keyring": KEYRING},
        },
        "alias": "core/rolling/edge",
    },
    "core/15.04/secret": {"devices": {}, "hidden": True},
}


def parse(value: Any) -> Channels:
    return Channels.from_json(json.dumps(value))


def test_channels_round_trip() -> None:
    channels = parse(GOOD)
    assert json.loads(channels.to_json()) == GOOD
    assert Channels.from_json(channels.to_json()) == channels
    assert channels.device("core/15.04/edge", "mako").keyring == KEYRING
    assert channels.require("core/15.04/secret").hidden


FRESH: dict[str, Any] = {
    "serial": 7,
    "expires": 1_800_000_000,
    "keyrings": {"image-signing": "0" * 64},
}


def fresh(**other: Any) -> dict[str, Any]:
    """Return the good channels, fresh, with other values in one of them."""
    value = {name: {**channel, **FRESH} for name, channel in GOOD.items()}
    value["core/15.04/secret"] |= other
    return value


def test_what_says_how_fresh_it_is_stands_in_every_channel() -> None:
    channels = parse(fresh())
    assert (channels.serial, channels.expires) == (7, 1_800_000_000)
    assert channels.keyrings == {"image-signing": "0" * 64}
    assert all(channel.extra == {} for channel in channels.channels.values())
    assert json.loads(channels.to_json()) == fresh()
    assert Channels.from_json(channels.to_json()) == channels


def test_old_servers_do_not_say_how_fresh_they_are() -> None:
    channels = parse(GOOD)
    assert (channels.serial, channels.expires, channels.keyrings) == (None, None, {})
    assert json.loads(channels.to_json()) == GOOD


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"serial": 8}, "'serial' of channel 'core/15.04/secret' is not that of"),
        ({"serial": 7.0}, "'serial' of channel"),
        ({"serial": None}, "'serial' of channel"),
        ({"expires": 1}, "'expires' of channel"),
        ({"keyrings": {}}, "'keyrings' of channel"),
    ],
)
def test_channels_of_two_states_are_refused(other: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        parse(fresh(**other))


@pytest.mark.parametrize("key", ["serial", "expires"])
@pytest.mark.parametrize("value", [0, -1, 1 << 53, 10**4000, 1.0, True, "7", [7]])
def test_serial_and_expiry_are_whole_numbers(key: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"'{key}'"):
        parse({"edge": {"devices": {}, key: value}})


@pytest.mark.parametrize("value", [[], "0" * 64, {"blacklist": 7}, {"blacklist": "F" * 64}])
def test_keyrings_are_named_with_their_digests(value: Any) -> None:
    with pytest.raises(DataError, match="'keyrings'"):
        parse({"edge": {"devices": {}, "keyrings": value}})


def test_an_index_is_bound_by_digest_and_size() -> None:
    entry = {"index": "/i.json", "sha256": "a" * 64, "size": 900, "redirect": "stable"}
    value = {"edge": {"devices": {"mako": entry}, "redirect": "stable"}}
    channels = parse(value)
    device = channels.device("edge", "mako")
    assert (device.sha256, device.size, device.redirect) == ("a" * 64, 900, "stable")
    assert channels.require("edge").follows == "stable"
    assert json.loads(channels.to_json()) == value


def test_an_index_of_a_redirect_is_of_the_channel_that_it_leads_to() -> None:
    entry = {"index": "/i.json"}
    value = {
        "own": {"devices": {"mako": entry, "flo": entry}},
        "mixed": {"devices": {"mako": {**entry, "redirect": "own"}}},
        "whole": {"devices": {"mako": {**entry, "redirect": "own"}}, "redirect": "mixed"},
        "round": {"devices": {"mako": entry}, "redirect": "about"},
        "about": {"devices": {"mako": entry}, "redirect": "round"},
    }
    channels = parse(value)
    assert channels.owners("own", "mako") == ["own"]
    assert channels.owners("mixed", "mako") == ["mixed", "own"]
    assert channels.owners("whole", "mako") == ["whole", "mixed", "own"]
    assert channels.owners("round", "mako") == ["round", "about"]
    assert channels.owners("gone", "mako") == ["gone"]


@given(UNKNOWN, UNKNOWN)
def test_unknown_keys_are_kept(channel: dict[str, Any], device: dict[str, Any]) -> None:
    value = {"edge": {**channel, "devices": {"mako": {**device, "index": "/i.json"}}}}
    assert json.loads(parse(value).to_json()) == value


def test_the_text_does_not_depend_on_the_order() -> None:
    turned = dict(reversed(GOOD.items()))
    assert parse(turned).to_json() == parse(GOOD).to_json()


@given(JSON)
def test_any_json_is_parsed_or_refused(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"edge": value}), json.dumps({"a": {"devices": 1}})):
        try:
            assert Channels.from_json(text).channels == {}
        except DataError:
            continue


@given(st.sampled_from(list(places(GOOD))), JSON)
def test_good_channels_with_one_other_value_are_parsed_or_refused(
    at: tuple[Any, ...], value: Any
) -> None:
    try:
        channels = parse(replaced(GOOD, at, value))
    except DataError:
        return
    assert Channels.from_json(channels.to_json()) == channels


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "is not an object"),
        ({"edge": None}, "channel 'edge' has no object 'devices'"),
        ({"edge": {}}, "channel 'edge' has no object 'devices'"),
        ({"edge": {"devices": []}}, "channel 'edge' has no object 'devices'"),
        ({"edge": {"devices": {}, "hidden": 1}}, "'hidden' of channel 'edge'"),
        ({"edge": {"devices": {}, "hidden": "true"}}, "'hidden' of channel 'edge'"),
        ({"edge": {"devices": {}, "alias": 7}}, "'alias' of channel 'edge'"),
        ({"edge": {"devices": {}, "redirect": []}}, "'redirect' of channel 'edge'"),
        (
            {"edge": {"devices": {"mako": {"index": "/i", "redirect": 7}}}},
            "'redirect' of device 'mako'",
        ),
        ({"edge": {"devices": {"mako": {"index": "/i", "sha256": "x"}}}}, "'sha256' is 'x'"),
        ({"edge": {"devices": {"mako": {"index": "/i", "size": True}}}}, "'size' is True"),
        ({"edge": {"devices": {"mako": {}}}}, "device 'mako' of channel 'edge' has no 'index'"),
        ({"edge": {"devices": {"mako": {"index": 7}}}}, "has no 'index'"),
        (
            {"edge": {"devices": {"mako": {"index": "/i", "keyring": {"path": "/k"}}}}},
            "'keyring' needs 'path' and 'signature'",
        ),
        ({"edge": {"devices": {"mako": {"index": "/i", "keyring": []}}}}, "'keyring' needs"),
    ],
)
def test_malformed_channels_are_refused(value: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        parse(value)


def test_what_is_missing_is_answered_with_what_there_is() -> None:
    channels = parse(GOOD)
    with pytest.raises(NotFoundError, match=r"no channel 'core/15\.04/stable'") as caught:
        channels.require("core/15.04/stable")
    assert caught.value.hint == "the channels are 'core/15.04/edge'"
    with pytest.raises(NotFoundError, match=r"'core/15\.04/edge' has no device 'rpi2'") as caught:
        channels.device("core/15.04/edge", "rpi2")
    assert caught.value.hint == "its devices are 'generic_amd64', 'mako'"
    with pytest.raises(NotFoundError) as caught:
        parse({}).require("edge")
    assert caught.value.hint == "there is none yet"


@pytest.mark.parametrize("name", ["edge", "ubuntu-core/15.04/edge", "generic_amd64", "a+b", "0"])
def test_names_that_clients_can_digest(name: str) -> None:
    assert check_channel_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/edge", "edge/", "a//b", "..", "a/../b", "a/.hidden", "_private", "-x", "a b"),
        *("a\n", "a\0", "\u00e4", "a%2eb", "a\\b", "keys", "core/gpg/edge", "pool", "state"),
    ],
)
def test_names_that_they_cannot(name: str) -> None:
    with pytest.raises(DataError, match="cannot be a channel or device name"):
        check_channel_name(name)
