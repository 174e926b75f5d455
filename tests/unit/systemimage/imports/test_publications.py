"""Which publication is imported."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coreimage.errors import NotFoundError
from coreimage.systemimage.imports.publications import find_newest

COMPLETE = ["SHA256SUMS", "SHA256SUMS.gpg", "a.tar.gz"]


def make(tree: Path, version: str, names: list[str]) -> None:
    directory = tree / "core/vivid/daily-preinstalled" / version
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()


def newest(
    tree: Path,
    *,
    wanted: Sequence[Sequence[str]] = (("a.tar.gz",),),
    only_good: bool = False,
    series: str = "vivid",
    note: Callable[[str], object] = print,
) -> str:
    return find_newest(
        tree,
        project="core",
        series=series,
        wanted=wanted,
        only_good=only_good,
        note=note,
    ).version


def test_versions_are_not_sorted_as_text(tmp_path: Path) -> None:
    for version in ("20150402", "20150402.9", "20150402.10"):
        make(tmp_path, version, COMPLETE)
    assert newest(tmp_path) == "20150402.10"


@pytest.mark.parametrize("missing", COMPLETE)
def test_incomplete_publications_are_passed_over(tmp_path: Path, missing: str) -> None:
    make(tmp_path, "20150401", COMPLETE)
    make(tmp_path, "20150402", [name for name in COMPLETE if name != missing])
    told: list[str] = []
    assert newest(tmp_path, note=told.append) == "20150401"
    assert told == [f"a newer publication is passed over: '20150402' lacks {missing}"]


def test_one_of_the_names_that_a_file_may_have_is_enough(tmp_path: Path) -> None:
    wanted = [("b.tar.gz", "a.tar.gz")]
    make(tmp_path, "20150401", COMPLETE)
    assert newest(tmp_path, wanted=wanted) == "20150401"
    make(tmp_path, "20150402", ["SHA256SUMS", "SHA256SUMS.gpg", "b.tar.gz"])
    assert newest(tmp_path, wanted=wanted) == "20150402"
    make(tmp_path, "20150403", ["SHA256SUMS", "SHA256SUMS.gpg"])
    told: list[str] = []
    assert newest(tmp_path, wanted=wanted, note=told.append) == "20150402"
    assert told == ["a newer publication is passed over: '20150403' lacks b.tar.gz or a.tar.gz"]


def test_links_and_other_names_do_not_count(tmp_path: Path) -> None:
    make(tmp_path, "20150401", COMPLETE)
    make(tmp_path, "pending.new", COMPLETE)
    parent = tmp_path / "core/vivid/daily-preinstalled"
    (parent / "current").symlink_to("20150401")
    (parent / "20150409").symlink_to("20150401")
    assert newest(tmp_path) == "20150401"


def test_only_good_ones_where_that_is_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "20150401", [*COMPLETE, ".marked_good"])
    make(tmp_path, "20150402", COMPLETE)
    told: list[str] = []
    assert newest(tmp_path, note=told.append) == "20150402"
    assert newest(tmp_path, only_good=True, note=told.append) == "20150401"
    assert told == []


def test_when_none_counts_the_reason_is_told(tmp_path: Path) -> None:
    make(tmp_path, "20150402", ["a.tar.gz", "SHA256SUMS"])
    with pytest.raises(NotFoundError) as caught:
        newest(tmp_path, only_good=True)
    assert caught.value.hint == "'20150402' lacks SHA256SUMS.gpg, .marked_good"


def test_when_none_is_marked_good_the_way_out_is_told(tmp_path: Path) -> None:
    make(tmp_path, "20150402", COMPLETE)
    with pytest.raises(NotFoundError) as caught:
        newest(tmp_path, only_good=True)
    assert caught.value.hint == "mark one with 'coreimage publication mark-good': 20150402"


def test_an_unknown_series_names_the_known_ones(tmp_path: Path) -> None:
    make(tmp_path, "20150402", COMPLETE)
    with pytest.raises(NotFoundError, match="'trixie'") as caught:
        newest(tmp_path, series="trixie")
    assert caught.value.hint == "there are publications of 'core' for 'vivid'"
