import os
from pathlib import Path

import pytest

from coreimage.errors import NotFoundError
from coreimage.web.trees import Folder, open_beneath


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "states/7").mkdir(parents=True)
    (root / "states/7/channels.json").write_text("{}")
    (root / "state").symlink_to("states/7")
    (root / "channels.json").symlink_to("state/channels.json")
    (root / ".scratch-1").mkdir()
    (root / ".scratch-1/half").write_text("half")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "tree-two").mkdir()
    (tmp_path / "tree-two/file").write_text("another tree")
    return root


def read(root: Path, path: str) -> bytes:
    found = open_beneath(root, path)
    assert not isinstance(found, Folder)
    with found:
        return found.read()


def test_symlinks_inside_the_tree_are_followed(tree: Path) -> None:
    assert read(tree, "channels.json") == b"{}"
    assert read(tree, "state/channels.json") == b"{}"


def test_a_tree_that_is_reached_by_a_symlink(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "www").symlink_to(tree)

    assert read(tmp_path / "www", "channels.json") == b"{}"


def test_directories_by_their_real_path(tree: Path) -> None:
    assert open_beneath(tree, "state/") == Folder(path=tree / "states/7")
    assert open_beneath(tree, "state") == Folder(path=tree / "states/7")
    assert open_beneath(tree, "") == Folder(path=tree)


@pytest.mark.parametrize(
    "path",
    [
        "missing",
        "channels.json/",
        "channels.json/more",
        "../secret",
        "states/../channels.json",
        "states/../../secret",
        "..",
        ".",
        "./channels.json",
        "/channels.json",
        "/etc/passwd",
        "state//channels.json",
        "channels.json\0",
        "\0",
        ".scratch-1/half",
        ".scratch-1",
        "x" * 300,
        "x/" * 3000,
        "\udcff",
    ],
)
def test_what_is_not_served(tree: Path, path: str) -> None:
    with pytest.raises(NotFoundError):
        open_beneath(tree, path)


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/passwd", "../tree-two/file", ".scratch-1/half", "loop", "gone"]
)
def test_symlinks_to_what_is_not_served(tree: Path, target: str) -> None:
    (tree / "loop").symlink_to("loop")
    (tree / "link").symlink_to(target)

    with pytest.raises(NotFoundError):
        open_beneath(tree, "link")


def test_directory_symlinks_out_of_the_tree(tree: Path) -> None:
    (tree / "up").symlink_to("..")
    (tree / "two").symlink_to("../tree-two")

    for path in ("up/secret", "up/tree/channels.json/..", "two/file", "two", "up"):
        with pytest.raises(NotFoundError):
            open_beneath(tree, path)


def test_pipes_are_neither_served_nor_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe")

    with pytest.raises(NotFoundError):
        open_beneath(tree, "pipe")


def test_a_tree_that_does_not_exist_yet(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_beneath(tmp_path / "missing", "channels.json")


def test_the_open_file_stays_the_same_when_its_name_is_given_away(tree: Path) -> None:
    found = open_beneath(tree, "channels.json")
    assert not isinstance(found, Folder)
    (tree / "new").write_text("another")
    (tree / "new").replace(tree / "states/7/channels.json")

    with found:
        assert found.read() == b"{}"
