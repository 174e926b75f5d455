"""A store's index: what is written reads back, what is wrong is named."""

import json
from typing import Any

import pytest

from coreimage.errors import DataError
from coreimage.model.store import StoreIndex, StorePackage, check_store_id, index_path


def package(version: str, **changes: Any) -> StorePackage:
    fields = {
        "name": "board",
        "version": version,
        "architecture": "armhf",
        "path": f"/store/mine/board_{version}.tar.xz",
        "sha256": "0" * 64,
        "size": 10,
        **changes,
    }
    return StorePackage(**fields)


INDEX = StoreIndex(
    store="mine",
    serial=3,
    generated_at=100,
    expires=200,
    packages=(package("1.0", extra={"colour": "red"}), package("0.9")),
    extra={"new": [1]},
)


def test_what_is_written_reads_back_with_keys_of_others() -> None:
    assert StoreIndex.from_json(INDEX.to_json()) == INDEX


def test_the_one_that_was_published_last_is_found() -> None:
    assert INDEX.find("board") == package("0.9")
    assert INDEX.find("board", "1.0") == INDEX.packages[0]
    assert INDEX.find("board", "2.0") is None
    assert INDEX.find("other") is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"packages": {}}, "list 'packages'"),
        ({"packages": [1]}, "not an object"),
        ({"serial": True}, "'serial' is True"),
        ({"expires": -1}, "'expires' is -1"),
        ({"store": "../x"}, "id of a store"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], says: str) -> None:
    document = {**json.loads(INDEX.to_json()), **changes}
    with pytest.raises(DataError, match=says):
        StoreIndex.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": "/../etc/passwd"}, "not a path"),
        ({"path": "//elsewhere/x"}, "not a path"),
        ({"sha256": "0" * 63}, "'sha256'"),
        ({"name": "a/b"}, "'name'"),
        ({"size": 1.5}, "'size'"),
        ({"version": "0.9"}, "twice"),
    ],
)
def test_mistakes_of_packages_are_named(changes: dict[str, Any], says: str) -> None:
    document = json.loads(INDEX.to_json())
    document["packages"][0].update(changes)
    with pytest.raises(DataError, match=says):
        StoreIndex.from_json(json.dumps(document))


@pytest.mark.parametrize("store", ["", ".", "..", "a/b", "a b", "-a", "a" * 65, None, 1])
def test_a_store_is_called_by_a_plain_word(store: Any) -> None:
    with pytest.raises(DataError):
        check_store_id(store)


def test_the_index_lies_below_the_id() -> None:
    assert index_path("mine") == "/store/mine/index.json"
