"""The decisions of a client about freshness, as data."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.model import freshness
from coreimage.model.freshness import NOTHING, Reason, Received, Remembered, SeenImage, SeenStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
RECEIVED = Received(
    serial=7,
    expires=int(LATER.timestamp()),
    digest="d7",
    signed_by="A" * 40,
    keyrings={"blacklist": "b", "image-signing": "s"},
    fetched={"blacklist": "b", "image-signing": "s"},
    signers={"blacklist.tar.xz": "M" * 40},
)
SEEN = freshness.remember(NOTHING, RECEIVED, clock=NOW)


def reason(remembered: Remembered, received: Received, *, clock: datetime = NOW) -> Reason | None:
    found = freshness.judge_channels(remembered, received, clock=clock)
    return found.reason if found else None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"serial": 8, "digest": "d8"}, None),
        ({"serial": 6}, Reason.ROLLBACK),
        ({"digest": "other"}, Reason.CHANGED),
        ({"serial": 0}, Reason.CHANGED),
        ({"serial": True}, Reason.CHANGED),
        ({"serial": 1 << 53}, Reason.CHANGED),
        ({"serial": 8, "expires": int(NOW.timestamp())}, Reason.EXPIRED),
        ({"serial": 8, "expires": True}, Reason.EXPIRED),
        ({"serial": None}, Reason.ROLLBACK),
        ({"serial": 8, "fetched": {"blacklist": "old"}}, Reason.MIXED),
        ({"serial": 8, "keyrings": {"blacklist": "b"}}, Reason.MIXED),
        ({"serial": 8, "blacklist": frozenset({"A" * 40})}, Reason.REVOKED),
        ({"serial": 8, "blacklist": frozenset({"M" * 40})}, Reason.REVOKED),
    ],
)
def test_a_channels_json_after_one_that_was_seen(
    change: dict[str, object], expected: Reason | None
) -> None:
    assert reason(SEEN, replace(RECEIVED, **change)) == expected  # type: ignore[arg-type]


def test_every_refusal_says_what_was_found_and_expected() -> None:
    old = freshness.judge_channels(SEEN, replace(RECEIVED, serial=6), clock=NOW)
    assert old is not None
    assert "serial 6" in old.message
    assert "serial 7" in old.message
    late = freshness.judge_channels(SEEN, RECEIVED, clock=LATER)
    assert late is not None
    assert f"{LATER:%F %T} UTC" in late.message
    assert "channel refresh" in late.hint


@pytest.mark.parametrize("gone", ["serial", "expires", "keyrings"])
def test_a_server_without_freshness_needs_a_word(gone: str) -> None:
    empty: dict[str, object] = {gone: {} if gone == "keyrings" else None}
    bare = replace(RECEIVED, **empty)  # type: ignore[arg-type]
    refused = freshness.judge_channels(NOTHING, bare, clock=NOW)
    assert refused is not None
    assert refused.reason is Reason.UNFRESH
    assert gone in refused.message
    assert "--allow-unfresh" in refused.hint
    assert freshness.judge_channels(NOTHING, bare, clock=NOW, allow_unfresh=True) is None
    again = freshness.judge_channels(SEEN, bare, clock=NOW, allow_unfresh=True)
    assert again is not None
    assert again.reason is Reason.ROLLBACK


def test_a_clock_set_back_does_not_bring_time_back() -> None:
    past = NOW - timedelta(days=400)
    assert freshness.effective_time(SEEN, past) == NOW
    assert freshness.effective_time(NOTHING, past) == past
    kept = freshness.remember(SEEN, replace(RECEIVED, serial=8), clock=past)
    assert kept.time == NOW
    expired = replace(RECEIVED, serial=9, expires=int((NOW - timedelta(days=1)).timestamp()))
    assert reason(SEEN, expired, clock=past) is Reason.EXPIRED


def test_what_a_revoked_key_said_is_forgotten_and_the_key_is_not() -> None:
    images = {"edge a": SeenImage(version=65535, contents="", signed_by="A" * 40)}
    stolen = replace(SEEN, serial=freshness.MAX_SERIAL, images=images)
    honest = replace(
        RECEIVED, serial=8, signed_by="B" * 40, digest="d8", blacklist=frozenset({"A" * 40})
    )
    assert reason(stolen, replace(honest, blacklist=frozenset())) is Reason.ROLLBACK
    assert reason(stolen, honest) is None
    kept = freshness.remember(stolen, honest, clock=NOW)
    assert (kept.serial, kept.images) == (8, {})
    assert kept.revoked == frozenset({"A" * 40})
    # An old state, in which the key was not revoked yet, does not bring it back.
    assert reason(kept, replace(RECEIVED, serial=9)) is Reason.REVOKED
    assert freshness.remember(kept, replace(honest, blacklist=frozenset()), clock=NOW).revoked


@pytest.mark.parametrize(
    ("newest", "contents", "downgrade", "expected"),
    [
        (5, "c5", False, None),
        (6, "c6", False, None),
        (4, "c4", False, Reason.DOWNGRADE),
        (0, "", False, Reason.DOWNGRADE),
        (4, "c4", True, None),
        (5, "other", False, Reason.CHANGED),
        (5, "other", True, Reason.CHANGED),
        (5, "", False, None),
    ],
)
def test_images_of_a_place(
    newest: int,
    contents: str,
    downgrade: bool,  # noqa: FBT001  a parameter of the test
    expected: Reason | None,
) -> None:
    seen = SeenImage(version=5, contents="c5", signed_by="A" * 40)
    remembered = replace(SEEN, images={"edge a": seen})
    for place, wanted in (("edge a", expected), ("edge b", None)):
        found = freshness.judge_images(
            remembered, place, newest=newest, contents=contents, downgrade=downgrade
        )
        assert (found.reason if found else None) == wanted


def test_an_index_is_the_bound_one_for_this_place() -> None:
    def bound(digest: str, size: int, expected: str | None = "d") -> Reason | None:
        found = freshness.judge_index(
            digest=digest, size=size, expected_digest=expected, expected_size=9, what="/index.json"
        )
        return found.reason if found else None

    assert bound("d", 9) is None
    assert bound("e", 9) is Reason.MIXED
    assert bound("d", 8) is Reason.MIXED
    assert bound("d", 9, None) is Reason.UNFRESH

    def placed(**says: object) -> Reason | None:
        found = freshness.judge_place(says, channels=("a", "b"), device="x", serial=7)
        return found.reason if found else None

    assert placed() is None
    assert placed(channel="b", device="x", serial=7) is None
    assert placed(channel="c") is Reason.FOREIGN
    assert placed(device="y") is Reason.FOREIGN
    assert placed(serial=8) is Reason.MIXED
    assert placed(serial=True) is Reason.MIXED
    assert placed(serial="7") is Reason.MIXED


serials = st.integers(1, 50)


@given(st.lists(st.tuples(serials, st.integers(-40, 40)), max_size=30))
def test_serials_and_time_never_go_back(steps: list[tuple[int, int]]) -> None:
    """Whatever is shown, in any order, by any clock."""
    remembered = NOTHING
    for serial, days in steps:
        clock = NOW + timedelta(days=days)
        shown = replace(RECEIVED, serial=serial, digest=f"d{serial}")
        if freshness.judge_channels(remembered, shown, clock=clock) is None:
            after = freshness.remember(remembered, shown, clock=clock)
            assert after.serial >= remembered.serial
            assert after.time is not None
            assert remembered.time is None or after.time >= remembered.time
            assert after.time < LATER
            remembered = after


STORE = SeenStore(serial=4, digest="s4", signed_by="B" * 40)


@pytest.mark.parametrize(
    ("change", "after", "expected"),
    [
        ({}, timedelta(), None),
        ({"serial": 5, "digest": "s5"}, timedelta(), None),
        ({"serial": 3}, timedelta(), Reason.ROLLBACK),
        ({"digest": "other"}, timedelta(), Reason.CHANGED),
        ({"serial": 5}, timedelta(days=30), Reason.EXPIRED),
        ({"serial": 5, "signed_by": "C" * 40}, timedelta(), Reason.REVOKED),
    ],
)
def test_the_index_of_a_store_after_one_that_was_seen(
    change: dict[str, object], after: timedelta, expected: Reason | None
) -> None:
    known = replace(SEEN, stores={"mine": STORE}, revoked=frozenset({"C" * 40}))
    shown = replace(STORE, **change)  # type: ignore[arg-type]
    expires = int(LATER.timestamp())
    found = freshness.judge_store(known, "mine", shown, expires=expires, clock=NOW + after)
    assert (found.reason if found else None) == expected
    assert freshness.judge_store(known, "other", STORE, expires=expires, clock=NOW) is None


def test_what_a_revoked_key_said_of_stores_is_forgotten() -> None:
    known = replace(SEEN, stores={"mine": STORE})
    assert freshness.forgive(known, frozenset({"D" * 40})).stores == known.stores
    assert freshness.forgive(known, frozenset({"B" * 40})).stores == {}
