"""What goes and what comes, in examples."""

import io
import tarfile
from typing import Any

import pytest

from coreimage.errors import DataError
from coreimage.systemimage.delta import contents, write
from coreimage.systemimage.delta.contents import UnsuitableError
from coreimage.systemimage.delta.plan import Plan, is_safe
from tests.support.tarballs import Member, directory, file, hard_link, symlink, tar_of
from tests.unit.systemimage.delta.deltas import delta, members, names, planned, removed

CAPABILITY = {"SCHILY.xattr.security.capability": "\x01\udcff\x00"}


def changes(base: list[Member], target: list[Member]) -> tuple[list[str], list[str]]:
    """Return what is removed, and the names of what is sent."""
    made = delta(tar_of(*base), tar_of(*target))
    return removed(made).split(), names(made)[1:]


def test_the_list_comes_first_and_ends_its_lines() -> None:
    made = delta(tar_of(file("a"), file("b")), tar_of(file("a", b"x")))
    assert names(made) == ["removed", "a"]
    assert removed(made) == "a\nb\n"


def test_an_empty_list_is_an_empty_line() -> None:
    made = delta(tar_of(file("a")), tar_of(file("a")))
    assert (names(made), removed(made)) == (["removed"], "\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"data": b"kernel 1"}, {"data": b"kernel 2"}),
        ({"data": b"x"}, {"data": b"x", "mode": 0o4755}),
        ({"data": b"x"}, {"data": b"x", "owner": 1000}),
        ({"data": b"x"}, {"data": b"x", "mtime": 7}),
        ({"data": b"x"}, {"data": b"x", "headers": CAPABILITY}),
        ({"data": b"x", "headers": {"mtime": "7.1"}}, {"data": b"x", "headers": {"mtime": "7.2"}}),
        ({"data": b"x"}, {"to": "x"}),
        ({"to": "boot/vmlinuz-1"}, {"to": "boot/vmlinuz-2"}),
        ({"kind": b"3", "device": (1, 3)}, {"kind": b"3", "device": (1, 5)}),
        ({"kind": b"3", "device": (1, 3)}, {"kind": b"4", "device": (1, 3)}),
    ],
)
def test_o18_every_difference_of_files_counts(old: dict[str, Any], new: dict[str, Any]) -> None:
    """The original compared size and time: such changes were missing from its deltas."""
    assert changes([Member(name="a", **old)], [Member(name="a", **new)]) == (["a"], ["a"])


@pytest.mark.parametrize("new", [{"mode": 0o700}, {"owner": 5}, {"mtime": 7}])
def test_directories_change_without_their_content(new: dict[str, Any]) -> None:
    base, target = directory("d"), directory("d", **new)
    inside = [file("d/a"), symlink("d/b", "a")]
    assert changes([base, *inside], [target, *inside]) == ([], ["d"])


def test_a_directory_that_loses_attributes_is_replaced_with_what_is_in_it() -> None:
    """Unpacking over a directory adds attributes, and takes none away."""
    inside = [file("d/a"), file("d/b")]
    base, target = directory("d", headers=CAPABILITY), directory("d")
    assert changes([base, *inside], [target, *inside]) == (["d"], ["d", "d/a", "d/b"])
    assert changes([target, *inside], [base, *inside]) == ([], ["d"])


def test_the_mode_of_a_symlink_means_nothing() -> None:
    assert changes([symlink("a", "b", mode=0o777)], [symlink("a", "b", mode=0o444)]) == ([], [])


def test_names_of_owners_mean_nothing() -> None:
    info = file("a").info()
    info.uname = "root"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(info)
    assert not planned(tar_of(file("a")), buffer.getvalue())


def test_a_directory_goes_as_a_whole() -> None:
    base = [directory("d"), directory("d/e"), file("d/e/f * ?"), file("keep")]
    assert changes(base, [file("keep")]) == (["d"], [])


def test_a_directory_becomes_a_link_and_back() -> None:
    tree, link = [directory("lib"), file("lib/a")], [symlink("lib", "usr/lib")]
    assert changes(tree, link) == (["lib"], ["lib"])
    assert changes(link, tree) == (["lib"], ["lib", "lib/a"])


def test_where_something_comes_or_goes_the_directory_keeps_its_time() -> None:
    here = [directory("d"), directory("e"), directory("f"), file("f/a")]
    assert changes([*here, file("d/a")], [*here, file("e/b")]) == (["d/a"], ["d", "e", "e/b"])
    assert changes(here, [*here[:-1], file("f/a", b"x")]) == (["f/a"], ["f", "f/a"])


def test_children_of_a_directory_that_is_no_longer_listed_survive() -> None:
    assert changes([directory("d"), file("d/a"), file("d/b")], [file("d/a")]) == (["d/b"], [])


GROUP = [file("a", b"x"), hard_link("b", "a"), hard_link("c", "a")]


@pytest.mark.parametrize(
    ("base", "target", "gone", "sent"),
    [
        (GROUP, [file("a", b"y"), *GROUP[1:]], "a b c", "a b c"),
        (GROUP, GROUP[:2], "c", ""),
        (GROUP, [file("b", b"x")], "a c", ""),
        (GROUP[:2], GROUP, "a b", "a b c"),
        ([*GROUP[:2], file("c", b"x")], GROUP, "a b c", "a b c"),
        (GROUP, [file("a", b"x"), file("b", b"x"), file("c", b"x")], "b c", "b c"),
        (GROUP, [file("a", b"x"), file("b", b"x"), hard_link("c", "b")], "b c", "b c"),
        (GROUP, [file("b", b"x"), hard_link("a", "b"), hard_link("c", "b")], "", ""),
    ],
    ids=str,
)
def test_hard_links(base: list[Member], target: list[Member], gone: str, sent: str) -> None:
    assert changes(base, target) == (gone.split(), sent.split())


def test_attributes_and_times_are_delivered_exactly() -> None:
    headers = {**CAPABILITY, "mtime": "1700000000.123456789", "SCHILY.acl.access": "user::rw-"}
    made = delta(tar_of(), tar_of(file("ping", b"x", headers=headers, owner=1 << 22)))
    (found,) = members(made)[1:]
    assert headers.items() <= found.pax_headers.items()
    assert (found.uid, found.uname) == (1 << 22, "")


def test_names_of_any_bytes_are_delivered() -> None:
    long = "long/" * 60
    assert changes([], [file("é\udcff"), file(f"{long}end")])[1] == ["é\udcff", f"{long}end"]


@pytest.mark.parametrize(
    "name", ["a b", " a", "a\tb", "*", "a?", "[a]", "a\\b", "a\nb", "-rf", "a\udcff", "a\u00a0b"]
)
def test_what_cannot_be_removed_safely_has_no_delta(name: str) -> None:
    assert not is_safe(name)
    with pytest.raises(UnsuitableError, match="has to go, and no recovery could be told so"):
        planned(tar_of(file(name)), tar_of())
    with pytest.raises(UnsuitableError, match="has to go"):
        planned(tar_of(directory(name)), tar_of(file(name)))
    # tar replaces a file by itself, and new ones need no removing.
    assert planned(tar_of(file(name)), tar_of(file(name, b"x"))).removed == ()
    assert planned(tar_of(), tar_of(file(name))).sent == {name}


@pytest.mark.parametrize("name", ["a", "a/-b", "x86_64-linux.so.1.0", "a~", "a..b", "é", "a:b@c"])
def test_ordinary_names_are_safe(name: str) -> None:
    assert is_safe(name)


@pytest.mark.parametrize("name", ["../a", "/a", "d/../../a"])
def test_o1_members_outside_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="outside its root"):
        planned(tar_of(file(name)), tar_of())


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([symlink("lib", "usr/lib"), file("lib/a")], "'lib/a' of 'target.tar' lies below"),
        ([file("a"), file("a/b")], "lies below a file"),
        ([file("a"), file("a")], "has 'a' twice"),
        ([file("a"), directory("a")], "'a' of 'target.tar' replaces another kind of file"),
        ([file("d/a"), file("d")], "'target.tar' has 'd' twice"),
        ([file("removed")], "has a member 'removed' of its own"),
        ([hard_link("a", "b")], "is a hard link to no earlier file"),
        ([directory("d"), hard_link("a", "d")], "is a hard link to no earlier file"),
        ([file("a", kind=b"D")], "'a' is of an unknown type"),
        ([file(".")], "the root of 'target.tar' is not a directory"),
    ],
    ids=str,
)
def test_trees_that_are_not_plain_have_no_delta(tree: list[Member], reason: str) -> None:
    with pytest.raises(UnsuitableError, match=reason):
        planned(tar_of(), tar_of(*tree))


def test_too_many_members_have_no_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_ENTRIES", 3)
    planned(tar_of(), tar_of(file("a/b"), file("a/c")))
    with pytest.raises(UnsuitableError, match="more than 3 entries"):
        planned(tar_of(), tar_of(file("a/b"), file("a/c"), file("a/d")))


def test_a_damaged_tarball_is_named() -> None:
    with pytest.raises(DataError, match=r"'target\.tar' is not a readable tar"):
        planned(tar_of(), tar_of(file("a", b"x" * 9999))[:2000])


def test_a_target_that_changed_under_way_is_noticed() -> None:
    made_for = Plan(sent=frozenset({"a"}))
    with pytest.raises(DataError, match="was changed while its delta was made: no 'a'"):
        write.write_tar(made_for, io.BytesIO(tar_of(file("b"))), io.BytesIO(), name="target.tar")


def test_sparse_files_are_sent_dense() -> None:
    sparse = Member(name="s", data=b"x", headers={
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": "3",
        "GNU.sparse.map": "1,1",
    })  # fmt: skip
    made = delta(tar_of(), tar_of(sparse))
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        content = archive.extractfile("s")
        assert content is not None
        assert content.read() == b"\0x\0"
    assert changes([file("s", b"\0x\0")], [sparse]) == ([], [])
