"""Whatever two trees are, the base and its delta make the target, in all that can be seen."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreimage.systemimage.delta.contents import UnsuitableError
from tests.support.recovery import Recovery, same_for_users
from tests.support.tarballs import Member, tar_of_all
from tests.unit.systemimage.delta.deltas import delta

SAFE = ["a", "b", "cc", "é"]
UNSAFE = ["d d", "*", "[a]", "-e", "f\\", "g\n", "h\udcff", " i", "a?"]
FEW = {
    "mode": st.sampled_from([0o644, 0o4755]),
    "owner": st.sampled_from([0, 1000]),
    "mtime": st.sampled_from([1_700_000_000, 1_700_000_001]),
    "headers": st.sampled_from(
        [{}, {"SCHILY.xattr.user.a": "b\udcff"}, {"mtime": "1700000000.123456789"}]
    ),
}


def leaves() -> st.SearchStrategy[dict[str, object]]:
    """Return the fields of things that are no directories."""
    return st.one_of(
        st.fixed_dictionaries({"data": st.sampled_from([b"", b"x", b"y"]), **FEW}),
        st.fixed_dictionaries({"to": st.sampled_from(["a", "/b"]), **FEW}),
        st.fixed_dictionaries(
            {"kind": st.just(b"3"), "device": st.sampled_from([(1, 3), (1, 5)]), **FEW}
        ),
        st.fixed_dictionaries({"kind": st.just(b"6"), **FEW}),
    )


def trees(names: Sequence[str]) -> st.SearchStrategy[dict[str, object]]:
    """Return directories: fields, and below "" what is in them."""

    def folders(
        inner: st.SearchStrategy[dict[str, object]],
    ) -> st.SearchStrategy[dict[str, object]]:
        return st.fixed_dictionaries(
            {
                "": st.dictionaries(st.sampled_from(names), inner, max_size=4),
                "implicit": st.booleans(),
                **FEW,
            }
        )

    return folders(st.recursive(leaves(), folders, max_leaves=8))


def flattened(tree: dict[str, object], prefix: str = "") -> list[Member]:
    members: list[Member] = []
    inside: dict[str, dict[str, object]] = tree[""]  # type: ignore[assignment]
    for name, each in inside.items():
        path = f"{prefix}{name}"
        fields = {key: value for key, value in each.items() if key not in ("", "implicit")}
        if "" in each:
            if not (each["implicit"] and each[""]):
                members.append(Member(name=path, **fields))  # type: ignore[arg-type]
            members += flattened(each, f"{path}/")
        else:
            members.append(Member(name=path, **fields))  # type: ignore[arg-type]
    return members


@st.composite
def tarballs(draw: st.DrawFn, names: Sequence[str]) -> list[Member]:
    members = flattened(draw(trees(names)), "system/")
    files = [each for each in members if each.data is not None]
    for each in files[1:]:
        if draw(st.booleans()):
            first = draw(st.sampled_from(files[: files.index(each)]))
            members[members.index(each)] = Member(name=each.name, link=first.link or first.name)
            files[files.index(each)] = Member(name=each.name, link=first.link or first.name)
    return members


def check(old: list[Member], new: list[Member]) -> None:
    base, target = tar_of_all(old), tar_of_all(new)
    made = delta(base, target)
    device, wanted = Recovery(), Recovery()
    device.update(base)
    device.update(made)
    wanted.update(target)
    assert same_for_users(device.described(), wanted.described())
    assert delta(base, target) == made


@given(tarballs(SAFE), tarballs(SAFE))
@settings(max_examples=60)
def test_base_and_delta_make_the_target(base: list[Member], target: list[Member]) -> None:
    check(base, target)


@given(tarballs(SAFE + UNSAFE), tarballs(SAFE + UNSAFE))
@settings(max_examples=60)
def test_names_are_removed_exactly_or_the_delta_is_refused(
    base: list[Member], target: list[Member]
) -> None:
    with suppress(UnsuitableError):
        check(base, target)


@given(tarballs(SAFE))
@settings(max_examples=20)
def test_nothing_changes_between_equals(tree: list[Member]) -> None:
    base = tar_of_all(tree)
    made = delta(base, base)
    device = Recovery()
    device.update(base)
    before = device.described()
    device.update(made)
    assert device.described() == before


@pytest.mark.long
@given(tarballs(SAFE), tarballs(SAFE))
@settings(max_examples=3000)
def test_thousands_of_trees(base: list[Member], target: list[Member]) -> None:
    check(base, target)
