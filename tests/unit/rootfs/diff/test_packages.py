import pytest

from coreimage.rootfs.diff.packages import (
    PackageChange,
    PackageChangeKind,
    PackageState,
    by_importance,
    compare_packages,
)
from coreimage.rootfs.packages.changelog import ChangelogEntry

SECURITY = ChangelogEntry(
    version="2", suites="trixie-security", urgency="high", date="", lines=["CVE-2026-1"]
)


def states(**versions: str) -> dict[str, PackageState]:
    return {name: PackageState(version=version) for name, version in versions.items()}


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("1", "2", "upgraded"),
        ("1.9", "1.10", "upgraded"),
        ("1~rc1", "1", "upgraded"),
        ("1:1", "2", "downgraded"),
        ("1", "1~rc1", "downgraded"),
    ],
)
def test_versions_are_compared_as_dpkg_does(old: str, new: str, kind: str) -> None:
    (change,) = compare_packages(states(dash=old), states(dash=new))
    assert (change.name, change.kind) == ("dash", kind)


def test_what_is_the_same_is_no_change() -> None:
    assert compare_packages(states(a="1", b="1"), states(a="1", b="1")) == []


def test_packages_that_come_and_go() -> None:
    changes = compare_packages(states(a="1", b="1"), states(b="1", c="1"))
    assert [(each.name, each.kind) for each in changes] == [("a", "removed"), ("c", "added")]


def test_another_deb_of_the_same_version_is_told_where_both_are_known() -> None:
    one, two = (PackageState(version="1", sha256=each * 64) for each in "ab")
    (change,) = compare_packages({"a": one}, {"a": two})
    assert change.kind is PackageChangeKind.REPLACED
    assert compare_packages({"a": one}, states(a="1")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("linux-image-6.12.96+deb13-cloud-amd64", "linux-image-6.12.118+deb13-cloud-amd64"),
        ("linux-modules-6.8.0-31-generic", "linux-modules-6.8.0-48-generic"),
        ("linux-image-6.1.0-42-armmp", "linux-image-6.1.0-43-armmp"),
    ],
)
def test_a_new_kernel_takes_the_place_of_the_one_before(old: str, new: str) -> None:
    (change,) = compare_packages(states(**{old: "1"}), states(**{new: "2"}))
    assert (change.name, change.former, change.kind) == (new, old, "upgraded")


def test_kernels_of_other_flavours_come_and_go() -> None:
    old, new = "linux-image-6.1.0-42-armmp", "linux-image-6.1.0-43-armmp-lpae"
    changes = compare_packages(states(**{old: "1"}), states(**{new: "2"}))
    assert [each.kind for each in changes] == ["removed", "added"]
    changes = compare_packages(
        states(**{"linux-image-1-a": "1", "linux-image-2-a": "2"}),
        states(**{"linux-image-3-a": "3"}),
    )
    assert [each.kind for each in changes] == ["removed", "removed", "added"]


def test_what_matters_most_comes_first() -> None:
    old = states(a="1", b="2", c="1", d="1", e="1")
    new = states(a="2", b="1", c="2", d="2", f="1")
    changes = compare_packages(old, new)
    changes = [
        PackageChange(
            name=each.name,
            kind=each.kind,
            before=each.before,
            after=each.after,
            changelog=[SECURITY] if each.name == "c" else [],
        )
        for each in changes
    ]
    assert [each.name for each in by_importance(changes)] == ["b", "c", "e", "f", "a", "d"]
