"""Staging: what lies on the disk, what is remembered beside it, and what is refused."""

import shutil
import stat
from io import BytesIO
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.tree.staging import Kind, Limits, Staging


@pytest.fixture
def tree(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "tree")


def test_files_lie_below_the_root_with_harmless_modes(tree: Staging) -> None:
    tree.put_file("usr/bin/su", b"code", mode=0o4755, uid=0, gid=7, mtime=5)

    path = tree.root / "usr/bin/su"
    entry = tree.entries["usr/bin/su"]
    assert path.read_bytes() == b"code"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert (entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime) == (
        Kind.FILE,
        0o4755,
        0,
        7,
        5,
    )


def test_missing_parents_belong_to_root(tree: Staging) -> None:
    tree.put_file("a/b/c", b"")

    assert list(tree.entries) == ["", "a", "a/b", "a/b/c"]
    assert (tree.entries["a/b"].mode, tree.entries["a/b"].uid) == (0o755, 0)


def test_a_directory_gets_its_attributes_later(tree: Staging) -> None:
    tree.put_file("var/log/x", b"")
    tree.put_directory("var/log", mode=0o2755, gid=4)

    assert tree.entries["var/log"].mode == 0o2755
    assert (tree.root / "var/log/x").exists()


def test_the_root_has_attributes_too(tree: Staging) -> None:
    tree.put_directory("", mode=0o700, mtime=9)

    assert (tree.entries[""].mode, tree.entries[""].mtime) == (0o700, 9)


def test_later_entries_replace_earlier_ones_of_any_type(tree: Staging) -> None:
    tree.put_file("x", b"file")
    tree.put_symlink("x", "nowhere")
    assert (tree.root / "x").readlink() == Path("nowhere")
    tree.put_directory("x")
    tree.put_file("x/below", b"")
    tree.put_file("x", b"again")

    assert (tree.root / "x").read_bytes() == b"again"
    assert list(tree.entries) == ["", "x"]


def test_a_file_is_replaced_and_not_written_through(tree: Staging) -> None:
    tree.put_file("one", b"old")
    tree.put_hard_link("two", "one")
    tree.put_file("one", b"new")

    assert (tree.root / "two").read_bytes() == b"old"


def test_hard_links_share_one_entry_and_one_inode(tree: Staging) -> None:
    tree.put_file("one", b"x", mode=0o4711)
    tree.put_hard_link("two", "one")
    tree.put_hard_link("two", "one")

    assert tree.entries["one"] is tree.entries["two"]
    assert (tree.root / "one").stat().st_ino == (tree.root / "two").stat().st_ino
    assert tree.content_size == 1


def test_a_hard_link_to_a_symlink_is_another_name_of_the_symlink(tree: Staging) -> None:
    tree.put_symlink("one", "target")
    tree.put_hard_link("two", "one")

    assert (tree.root / "two").readlink() == Path("target")


@pytest.mark.parametrize("target", ["absent", "dir", "dir/../../x"])
def test_hard_links_lead_to_files_of_the_tree(tree: Staging, target: str) -> None:
    tree.put_directory("dir")

    with pytest.raises(DataError):
        tree.put_hard_link("link", target)


def test_paths_through_a_symlink_go_where_it_leads(tree: Staging) -> None:
    tree.put_symlink("lib", "usr/lib")
    tree.put_symlink("abs", "/usr")
    tree.put_file("lib/modules/x", b"1")
    tree.put_file("abs/lib/y", b"2")

    assert (tree.root / "usr/lib/modules/x").read_bytes() == b"1"
    assert (tree.root / "usr/lib/y").read_bytes() == b"2"
    assert tree.file("lib/y") == tree.root / "usr/lib/y"


def test_a_directory_does_not_replace_a_symlink_to_a_directory(tree: Staging) -> None:
    tree.put_directory("usr/lib", mode=0o711)
    tree.put_symlink("lib", "usr/lib")
    tree.put_directory("lib", mode=0o755)

    assert tree.entries["lib"].kind is Kind.SYMLINK
    assert tree.entries["usr/lib"].mode == 0o711


@pytest.mark.parametrize("target", ["../../../../outside", "/outside", "/../../outside"])
def test_o1_a_symlink_never_leads_out_of_the_tree(tmp_path: Path, target: str) -> None:
    tree = Staging(tmp_path / "tree")
    (tmp_path / "outside").mkdir()
    tree.put_symlink("exit", target)
    tree.put_file("exit/evil", b"!")

    assert list((tmp_path / "outside").iterdir()) == []
    assert (tree.root / "outside/evil").read_bytes() == b"!"


def test_a_symlink_to_the_host_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    (tmp_path / "victim").write_bytes(b"safe")
    tree.put_symlink("x", str(tmp_path / "victim"))
    tree.put_file("x", b"!")

    assert (tmp_path / "victim").read_bytes() == b"safe"
    assert (tree.root / "x").read_bytes() == b"!"


def test_symlinks_in_a_circle_are_refused(tree: Staging) -> None:
    tree.put_symlink("a", "b")
    tree.put_symlink("b", "a")

    with pytest.raises(DataError, match="circle"):
        tree.put_file("a/x", b"")


def test_a_path_below_a_file_is_refused(tree: Staging) -> None:
    tree.put_file("a", b"")

    with pytest.raises(DataError, match="'a/b' would lie below 'a'"):
        tree.put_file("a/b", b"")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "a\0b", "a\nb", "n" * 256, "d/" * 1100 + "x", "", "."],
)
def test_paths_that_no_tree_has_are_refused(tree: Staging, path: str) -> None:
    with pytest.raises(DataError):
        tree.put_file(path, b"")


@pytest.mark.parametrize("target", ["", "a\0b", "x" * 4096])
def test_targets_that_no_symlink_has_are_refused(tree: Staging, target: str) -> None:
    with pytest.raises(DataError):
        tree.put_symlink("x", target)


@pytest.mark.parametrize("name", ["", "user.a b", 'user."', "user.\n", "user.ä"])
def test_attribute_names_that_no_tool_takes_are_refused(tree: Staging, name: str) -> None:
    with pytest.raises(DataError, match="attribute"):
        tree.put_file("x", b"", xattrs={name: b""})
    with pytest.raises(DataError, match="attribute"):
        tree.put_directory("", xattrs={name: b""})


@pytest.mark.parametrize(("uid", "gid"), [(-1, 0), (0, -1), (1 << 32, 0), (0, (1 << 32) - 1)])
def test_owners_that_no_file_has_are_refused(tree: Staging, uid: int, gid: int) -> None:
    with pytest.raises(DataError, match="owner"):
        tree.put_file("x", b"", uid=uid, gid=gid)
    assert list(tree.entries) == [""]


def test_removing_takes_what_lies_below_along(tree: Staging) -> None:
    tree.put_file("a/b/c", b"")
    tree.put_file("ab", b"")
    tree.remove("a")
    tree.remove("a")

    assert list(tree.entries) == ["", "ab"]
    assert [path.name for path in tree.root.iterdir()] == ["ab"]


def test_a_symlink_is_removed_itself(tree: Staging) -> None:
    tree.put_file("a/b", b"")
    tree.put_symlink("l", "a")
    tree.remove("l")

    assert list(tree.entries) == ["", "a", "a/b"]


def test_a_file_that_is_not_there_is_named(tree: Staging) -> None:
    with pytest.raises(NotFoundError, match="'boot/vmlinuz'"):
        tree.file("boot/vmlinuz")


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree", limits=Limits(size=4 << 20))

    with pytest.raises(DataError, match="larger than 4 MiB"):
        tree.put_file("x", BytesIO(bytes((4 << 20) + 1)))


def test_h4_more_entries_than_the_limit_are_refused(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree", limits=Limits(entries=4))

    with pytest.raises(DataError, match="more than 4 entries"):
        tree.put_directory("a/b/c/d/e")


def test_links_count_against_the_limit(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree", limits=Limits(entries=2))
    tree.put_file("one", b"")
    tree.put_hard_link("two", "one")

    with pytest.raises(DataError, match="more than 2 entries"):
        tree.put_symlink("three", "one")


def test_replacing_the_same_entry_for_ever_is_refused(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree", limits=Limits(entries=100))
    for _ in range(100):
        tree.put_directory("a")

    with pytest.raises(DataError, match="more than 100 entries"):
        tree.put_directory("a")


@pytest.mark.parametrize("path", ["d/" * 300 + "x", "link/" + "e/" * 100 + "x"])
def test_h4_trees_too_deep_to_remove_are_refused(tree: Staging, path: str) -> None:
    tree.put_directory("d/" * 200)
    tree.put_symlink("link", "d/" * 200)

    with pytest.raises(DataError, match="leads too deep"):
        tree.put_file(path, b"")
    shutil.rmtree(tree.root)
