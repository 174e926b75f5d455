from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.errors import RightsError, TrustError
from coreimage.lib import memory
from coreimage.model.freshness import NOTHING, Remembered, SeenImage

SEEN = Remembered(
    serial=7,
    digest="d",
    signed_by="A",
    time=datetime(2026, 11, 24, 12, tzinfo=UTC),
    images={"edge a": SeenImage(version=3, contents="c", signed_by="A")},
    revoked=frozenset({"X", "Y"}),
)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    place = tmp_path / "state/trust"
    assert memory.load(place, ["R"]) == NOTHING
    assert memory.update(place, ["R"], lambda _: SEEN) == SEEN
    assert memory.load(place, ["R"]) == SEEN
    assert memory.load(place, ["S"]) == NOTHING
    assert (place / "R.json").stat().st_mode & 0o777 == 0o600


def test_a_renewed_root_has_the_memory_of_the_old_one(tmp_path: Path) -> None:
    memory.update(tmp_path, ["R"], lambda _: SEEN)
    newer = replace(SEEN, serial=8, revoked=frozenset({"Z"}))
    memory.update(tmp_path, ["R", "S"], lambda _: newer)
    assert memory.load(tmp_path, ["S"]) == newer
    memory.update(tmp_path, ["R"], lambda _: replace(SEEN, serial=9))
    found = memory.load(tmp_path, ["R", "S"])
    assert found.serial == 9
    assert found.revoked == {"X", "Y", "Z"}


def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    memory.update(tmp_path, ["R"], lambda _: SEEN)

    def refuse(_: Remembered) -> Remembered:
        raise TrustError("no")

    with pytest.raises(TrustError, match="no"):
        memory.update(tmp_path, ["R"], refuse)
    assert memory.load(tmp_path, ["R"]) == SEEN


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"serial": 1}', "\0", '{"serial": "x"}'])
def test_a_damaged_file_is_no_fresh_start(tmp_path: Path, text: str) -> None:
    memory.update(tmp_path, ["R"], lambda _: SEEN)
    (tmp_path / "R.json").write_text(text)
    with pytest.raises(TrustError, match=r"R\.json.*is damaged"):
        memory.load(tmp_path, ["R"])
    with pytest.raises(TrustError, match=r"R\.json.*is damaged"):
        memory.update(tmp_path, ["R"], lambda seen: seen)


def test_where_nothing_can_be_remembered_nothing_is_believed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RightsError, match="cannot be remembered") as raised:
        memory.update(tmp_path / "file/trust", ["R"], lambda _: SEEN)
    assert "XDG_STATE_HOME" in raised.value.hint


def test_the_default_is_the_state_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert memory.default_directory() == Path("/somewhere/coreimage/trust")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert memory.default_directory() == Path("/home/me/.local/state/coreimage/trust")
