import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.errors import TrustError
from coreimage.lib import ledger

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def filled(path: Path) -> Path:
    for number in range(1, 5):
        assert ledger.append(path, {"name": f"file {number}"}, now=NOW) == number
    return path


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none") == []
    path = filled(tmp_path / "state/log")
    found = ledger.read(path)
    assert [each.fields["name"] for each in found] == [f"file {number}" for number in range(1, 5)]
    assert found[0].fields["previous"] == ledger.START
    assert found[1].fields["previous"] == found[0].digest
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["edit", "remove", "insert", "swap", "first"])
def test_a_change_is_noticed(tmp_path: Path, change: str) -> None:
    path = filled(tmp_path / "log")
    lines = path.read_text().splitlines(keepends=True)
    forged = json.dumps({**json.loads(lines[1]), "name": "another"}) + "\n"
    changed = {
        "edit": [lines[0], forged, *lines[2:]],
        "remove": [lines[0], *lines[2:]],
        "insert": [*lines[:2], forged, *lines[2:]],
        "swap": [lines[1], lines[0], *lines[2:]],
        "first": lines[1:],
    }[change]
    path.write_text("".join(changed))
    with pytest.raises(TrustError, match=r"line [1-3] of|at line [1-3]"):
        ledger.read(path)


def test_a_torn_line_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    path = filled(tmp_path / "log")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 5, "prev')
    assert ledger.append(path, {"name": "file 5"}, now=NOW) == 5
    assert path.read_bytes().startswith(whole)
    assert len(ledger.read(path)) == 5


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def write() -> None:
        for _ in range(20):
            ledger.append(path, {"name": "x"}, now=NOW)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.number for each in ledger.read(path)] == list(range(1, 81))
