"""Ar archives: those of ar(1), and those that are none."""

import io
from pathlib import Path

import pytest

from coreimage.lib import ar, run

WHOLE = ar.MAGIC + ar.header("one", 3) + b"abc\n" + ar.header("two", 0)


def content(archive: bytes) -> dict[str, bytes]:
    source = io.BytesIO(archive)
    return {each.name: b"".join(ar.chunks(source, each)) for each in ar.members(source)}


def test_what_we_write_is_read_by_us_and_by_ar(tmp_path: Path) -> None:
    assert content(WHOLE) == {"one": b"abc", "two": b""}
    (tmp_path / "x.ar").write_bytes(WHOLE)
    assert run.run(["ar", "p", tmp_path / "x.ar", "one"]).stdout == b"abc"


def test_what_ar_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"x" * 4097)
    (tmp_path / "even").write_bytes(b"y" * 10)
    run.run(["ar", "qc", "x.ar", "odd", "even"], cwd=tmp_path)
    found = content((tmp_path / "x.ar").read_bytes())
    assert found == {"odd": b"x" * 4097, "even": b"y" * 10}


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (b"", "no ar archive"),
        (b"\x1f\x8b" + bytes(100), "no ar archive"),
        (WHOLE[:-1], "cut short"),
        (WHOLE[:70], "'one' is cut short"),
        (WHOLE.replace(b"`\n", b"``"), "damaged"),
        (WHOLE.replace(b"3         `", b"-60       `"), "a number is none"),
        (WHOLE.replace(b"3         `", b"1_0       `"), "a number is none"),
        (WHOLE.replace(b"3         `", b"          `"), "a number is none"),
        (WHOLE.replace(b"3         `", b"9999999999`"), "'one' is cut short"),
    ],
)
def test_damage_is_noticed_before_anything_is_read(archive: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        content(archive)
