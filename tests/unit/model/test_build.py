import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.model.build import (
    LABELS,
    Attempt,
    Build,
    BuildRequest,
    BuildResult,
    BuildStatus,
    split_target,
    status_of_label,
)
from tests.support.documents import JSON, places, replaced

REQUEST = BuildRequest(
    project="core", release="13", series="trixie", arch="amd64", version="20261123.1"
)
BUILD = Build(
    id=7,
    request=REQUEST,
    status=BuildStatus.COMPLETED,
    result=BuildResult.SUCCESS,
    attempt=2,
    attempts=(
        Attempt(
            number=1,
            worker="one:1",
            started_at=datetime(2026, 11, 23, 14, 46, tzinfo=UTC),
            finished_at=datetime(2026, 11, 23, 14, 47, tzinfo=UTC),
            result=BuildResult.ERROR,
            exit_code=-9,
            message="lost",
        ),
    ),
    created_at=datetime(2026, 11, 23, 14, 46, tzinfo=UTC),
    finished_at=datetime(2026, 11, 23, 14, 50, tzinfo=UTC),
    artifacts=("livecd.core.manifest",),
    extra={"note": [1, {"a": None}]},
)
GOOD = json.loads(BUILD.to_json())
OLD_KEYS = ("id", "request", "created_at", "started_at", "finished_at", "fingerprint", "message")


def test_a_build_round_trips() -> None:
    assert Build.from_json(BUILD.to_json()) == BUILD


def test_a_build_for_a_device_has_its_name_in_the_target() -> None:
    request = replace(REQUEST, arch="armhf", device="raspi2")
    assert request.target == "armhf.raspi2"
    assert split_target("armhf.raspi2") == ("armhf", "raspi2")
    assert (REQUEST.target, split_target("amd64")) == ("amd64", ("amd64", ""))
    build = replace(BUILD, request=request)
    assert Build.from_json(build.to_json()) == build


def test_a_record_from_before_devices_is_of_the_generic_one() -> None:
    fields = json.loads(BUILD.to_json())
    del fields["request"]["device"]
    assert Build.from_json(json.dumps(fields)) == BUILD


def test_a_status_is_final_or_not() -> None:
    assert {status for status in BuildStatus if status.finished} == {
        BuildStatus.COMPLETED,
        BuildStatus.ABORTED,
    }


def test_labels_are_launchpads_words() -> None:
    assert [BUILD.label, *LABELS[-2:]] == ["Successfully built", "Chroot problem", "Cancelled"]
    assert status_of_label("Uploading build") == (BuildStatus.RUNNING, None)
    with pytest.raises(ValueError, match="'Lost' is not a state"):
        status_of_label("Lost")


@pytest.mark.parametrize("label", LABELS)
def test_a_record_of_an_older_version_is_read(label: str) -> None:
    old = {key: value for key, value in GOOD.items() if key in OLD_KEYS}
    build = Build.from_json(json.dumps({**old, "state": label}))

    assert build.label == label
    assert build.attempts == ()


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
        {"status": "lost"},
        {"result": None},
        {"status": "pending"},
        {"attempts": [{"number": 1}]},
        {"attempts": 7},
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
