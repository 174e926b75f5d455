"""What changed between the packages of two builds."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from debian.debian_support import Version

from coreimage.rootfs.packages.changelog import ChangelogEntry, is_security

# linux-image-6.12.118+deb13-cloud-amd64, linux-modules-6.8.0-31-generic
_KERNEL = re.compile(r"(linux-[a-z-]+)-\d[^-]*(?:-\d+)?-([a-z].*)")


class PackageChangeKind(StrEnum):
    """What happened to a package; `replaced` is another .deb of the same version."""

    DOWNGRADED = "downgraded"
    REPLACED = "replaced"
    UPGRADED = "upgraded"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageState:
    """A package of a build; source, digest and names of its .deb are empty when not known."""

    version: str
    source: str = ""
    source_version: str = ""
    sha256: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChange:
    """A package before and after; `changelog` has what is new in it, the newest entry first.

    `former` is the name that a kernel had before: theirs change with their versions. The changelog
    of a downgraded package has what is lost. `no_changelog` says why there is none.
    """

    name: str
    kind: PackageChangeKind
    before: PackageState | None
    after: PackageState | None
    changelog: Sequence[ChangelogEntry] = ()
    no_changelog: str = ""
    former: str = ""

    @property
    def source(self) -> str:
        """The source package, or the package's own name."""
        state = self.after or self.before
        return (state and state.source) or self.name.partition(":")[0]

    @property
    def fixes_flaws(self) -> bool:
        """Whether the changelog tells of security."""
        upgraded = self.kind is PackageChangeKind.UPGRADED
        return upgraded and any(is_security(entry) for entry in self.changelog)


def compare_packages(
    before: Mapping[str, PackageState], after: Mapping[str, PackageState]
) -> list[PackageChange]:
    """Return what changed, by name."""
    former = _former_kernels(before, after)
    changes = []
    for name in sorted((before.keys() | after.keys()) - set(former.values())):
        old, new = before.get(former.get(name, name)), after.get(name)
        kind = _kind(old, new)
        if kind is not None:
            changes.append(
                PackageChange(
                    name=name, kind=kind, before=old, after=new, former=former.get(name, "")
                )
            )
    return changes


def _former_kernels(
    before: Mapping[str, PackageState], after: Mapping[str, PackageState]
) -> dict[str, str]:
    """Return the names of kernel packages that are gone, by those that came in their place."""
    gone, new = (
        _kernels(names - others.keys())
        for names, others in ((before.keys(), after), (after.keys(), before))
    )
    return {
        new[flavour][0]: gone[flavour][0]
        for flavour in gone.keys() & new.keys()
        if len(gone[flavour]) == len(new[flavour]) == 1
    }


def _kernels(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the packages of kernels and their modules by kind and flavour."""
    found: dict[str, list[str]] = {}
    for name in names:
        kernel = _KERNEL.fullmatch(name)
        if kernel is not None:
            found.setdefault("-".join(kernel.groups()), []).append(name)
    return found


def _kind(old: PackageState | None, new: PackageState | None) -> PackageChangeKind | None:
    if old is None or new is None:
        return PackageChangeKind.ADDED if old is None else PackageChangeKind.REMOVED
    if old.version == new.version:
        known = old.sha256 and new.sha256
        return PackageChangeKind.REPLACED if known and old.sha256 != new.sha256 else None
    newer = Version(new.version) > Version(old.version)
    return PackageChangeKind.UPGRADED if newer else PackageChangeKind.DOWNGRADED


def by_importance(changes: Iterable[PackageChange]) -> list[PackageChange]:
    """Return changes with the ones first that a person should look at.

    What went backwards, then fixed flaws, removed and new packages, and other upgrades.
    """
    order = [
        PackageChangeKind.DOWNGRADED,
        PackageChangeKind.REPLACED,
        PackageChangeKind.REMOVED,
        PackageChangeKind.ADDED,
        PackageChangeKind.UPGRADED,
    ]
    return sorted(
        changes,
        key=lambda each: (
            order.index(PackageChangeKind.REPLACED) + 0.5
            if each.fixes_flaws
            else order.index(each.kind),
            each.source,
            each.name,
        ),
    )
