import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.model.build import Build, BuildRequest, BuildState
from tests.support.documents import JSON, places, replaced

REQUEST = BuildRequest(
    project="core", release="13", series="trixie", arch="amd64", version="20261123.1"
)
BUILD = Build(
    id=7,
    request=REQUEST,
    state=BuildState.SUCCEEDED,
    created_at=datetime(2026, 11, 23, 14, 46, tzinfo=UTC),
    finished_at=datetime(2026, 11, 23, 14, 50, tzinfo=UTC),
    artifacts=("livecd.core.manifest",),
    extra={"note": [1, {"a": None}]},
)
GOOD = json.loads(BUILD.to_json())


def test_a_build_round_trips() -> None:
    assert Build.from_json(BUILD.to_json()) == BUILD


def test_states_are_final_or_not() -> None:
    assert {state for state in BuildState if not state.finished} == {
        BuildState.NEEDS_BUILDING,
        BuildState.BUILDING,
        BuildState.UPLOADING,
    }


@given(st.sampled_from(list(places(GOOD))), JSON)
def test_a_good_record_with_one_other_value_is_parsed_or_refused(
    at: tuple[Any, ...], value: Any
) -> None:
    try:
        build = Build.from_json(json.dumps(replaced(GOOD, at, value)))
    except DataError:
        return
    assert Build.from_json(build.to_json()) == build


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../7"},
        {"id": 7.0},
        {"request": None},
        {"request": {**GOOD["request"], "arch": 7}},
        {"request": {"project": "core"}},
        {"state": "Lost"},
        {"created_at": "yesterday"},
        {"created_at": None},
        {"artifacts": [7]},
        {"artifacts": 7},
        {"future": 1},
    ],
)
def test_a_malformed_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"build\.json is malformed"):
        Build.from_json(json.dumps({**GOOD, **change}))
