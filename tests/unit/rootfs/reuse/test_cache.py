import os
from pathlib import Path

import pytest

from coreimage.config import CacheSettings
from coreimage.rootfs.reuse.cache import Cache, Shelf, differences, explain, key_of

RECIPE = {"definition": "base", "package a": "1 all " + "0" * 64, "time": "5"}


def put(shelf: Shelf, folder: Path, recipe: dict[str, str], data: bytes = b"x") -> None:
    path = folder / "made"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    shelf.put(recipe, {"made": path}, {"epoch": 5})


def test_an_entry_is_found_by_its_recipe(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", limit=1 << 20)
    put(shelf, tmp_path, RECIPE)
    found = shelf.find(dict(reversed(RECIPE.items())))
    assert found is not None
    assert (found.path / "made").read_bytes() == b"x"
    assert (found.recipe, found.notes) == (RECIPE, {"epoch": 5})
    assert shelf.find({**RECIPE, "time": "6"}) is None
    assert key_of(RECIPE) != key_of({**RECIPE, "time": "6"})


def test_of_two_that_put_the_same_one_stays(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", limit=1 << 20)
    put(shelf, tmp_path, RECIPE)
    put(shelf, tmp_path, RECIPE)
    assert len(list(shelf.entries())) == 1
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == [key_of(RECIPE)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recipe": {}}'])
def test_a_damaged_entry_is_none(tmp_path: Path, text: str) -> None:
    shelf = Shelf(tmp_path / "shelf", limit=1 << 20)
    put(shelf, tmp_path, RECIPE)
    (tmp_path / "shelf" / key_of(RECIPE) / "entry.json").write_text(text)
    assert shelf.find(RECIPE) is None
    assert list(shelf.entries()) == []


def test_what_was_not_used_longest_goes_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", limit=1 << 20)
    recipes = [{**RECIPE, "time": str(number)} for number in range(3)]
    for age, recipe in enumerate(recipes):
        put(shelf, tmp_path, recipe, bytes(1000))
        os.utime(tmp_path / "shelf" / key_of(recipe), (1000 + age, 1000 + age))
    assert shelf.find(recipes[0]) is not None  # which counts as a use
    Shelf(tmp_path / "shelf", limit=2600).trim()
    assert [shelf.find(each) is not None for each in recipes] == [True, False, True]


def test_others_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path / "shelf", limit=1 << 20)
    put(shelf, tmp_path, RECIPE)
    if os.geteuid() == 0:
        os.chown(tmp_path / "shelf" / key_of(RECIPE), 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert shelf.find(RECIPE) is None


def test_differences_are_named() -> None:
    new = {"definition": "base", "package b": "1", "time": "6"}
    assert differences(RECIPE, new) == [
        "package a is gone",
        "package b is new",
        "time was 5, is 6",
    ]


def test_what_the_cache_says_of_a_build(tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "cache", settings=CacheSettings())
    verdicts = explain(cache, [], stage=RECIPE, image=RECIPE)
    assert [each.hit for each in verdicts] == [True, False, False]
    assert verdicts[1].differences == ["nothing of this definition is kept"]
    put(cache.stages, tmp_path, RECIPE)
    put(cache.images, tmp_path, {**RECIPE, "time": "6", "package a": "2"})
    put(cache.images, tmp_path, {**RECIPE, "time": "7"})
    verdicts = explain(cache, [], stage=RECIPE, image=RECIPE)
    assert [each.hit for each in verdicts] == [True, True, False]
    assert verdicts[2].differences == ["time was 7, is 5"]
