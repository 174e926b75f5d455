import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.model.keyring import SIGNED_BY, KeyringInfo, KeyringType
from tests.support.documents import HUGE, JSON, UNKNOWN


def test_old_recoveries_find_what_they_grep_for() -> None:
    expiry = datetime(2026, 11, 23, tzinfo=UTC)
    info = KeyringInfo(type=KeyringType.DEVICE_SIGNING, expiry=expiry, model="mako")
    lines = info.to_json().splitlines()
    assert '    "type": "device-signing",' in lines
    assert '    "expiry": 1795392000,' in lines
    assert KeyringInfo.from_json(info.to_json()) == info


def test_every_level_but_the_pinned_one_has_a_signer() -> None:
    assert set(KeyringType) - set(SIGNED_BY) == {KeyringType.ARCHIVE_MASTER}


@given(JSON, UNKNOWN)
def test_any_json_is_parsed_or_refused(value: Any, unknown: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        KeyringInfo.from_json(json.dumps(value))
    assert KeyringInfo.from_json(json.dumps({**unknown, "type": "blacklist"})) == KeyringInfo(
        type=KeyringType.BLACKLIST
    )


@given(st.integers() | st.sampled_from(HUGE))
def test_any_expiry_is_a_time_or_refused(expiry: int) -> None:
    try:
        info = KeyringInfo.from_json(json.dumps({"type": "blacklist", "expiry": expiry}))
    except DataError:
        return
    assert info.expiry is not None
    assert int(info.expiry.timestamp()) == expiry


@pytest.mark.parametrize("expiry", [True, 1.5, 1.0, "1795392000", [], {}])
def test_an_expiry_is_a_whole_number(expiry: Any) -> None:
    with pytest.raises(DataError, match="'expiry' is"):
        KeyringInfo.from_json(json.dumps({"type": "blacklist", "expiry": expiry}))


@pytest.mark.parametrize("value", [{}, {"type": "other"}, {"type": None}, {"type": ["blacklist"]}])
def test_a_keyring_has_one_of_the_types(value: Any) -> None:
    with pytest.raises(DataError, match=r"keyring\.json is malformed"):
        KeyringInfo.from_json(json.dumps(value))
