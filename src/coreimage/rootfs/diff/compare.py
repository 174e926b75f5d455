"""What changed between two builds: packages with their changelogs, files, sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coreimage.rootfs.diff.files import FileChange, Scan, compare_files, scan, unexplained
from coreimage.rootfs.diff.packages import (
    PackageChange,
    PackageChangeKind,
    by_importance,
    compare_packages,
)
from coreimage.rootfs.diff.sides import TARBALLS, Side, packages_of
from coreimage.rootfs.packages.changelog import Debs, news


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What changed in one of the two tarballs; sizes are those of the content, in bytes."""

    before: int
    after: int
    changes: Sequence[FileChange]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that changed; `parts` by kind of tarball: rootfs, device."""

    before: Side
    after: Side
    packages: Sequence[PackageChange]
    parts: Mapping[str, Part]
    missing: Sequence[str]

    @property
    def changed_packages(self) -> set[str]:
        """The names of changed packages, without architecture."""
        names = (name for each in self.packages for name in (each.name, each.former))
        return {name.partition(":")[0] for name in names} - {""}

    @property
    def unexplained(self) -> list[FileChange]:
        """The changes of files that no changed package explains, those of rights first."""
        found = [
            change
            for part in self.parts.values()
            for change in unexplained(part.changes, self.changed_packages)
        ]
        return sorted(found, key=lambda each: (not each.gives_rights, each.path))


def compare(before: Side, after: Side, *, debs: Debs) -> Difference:
    """Return what changed from one build to another; raises DataError, NotFoundError."""
    sides = (before, after)
    missing: list[str] = []
    scans: dict[str, tuple[Scan, Scan]] = {}
    for kind in TARBALLS:
        paths = [side.tarball(kind) for side in sides]
        if paths[0] is not None and paths[1] is not None:
            scans[kind] = (scan(paths[0]), scan(paths[1]))
        elif any(paths):
            lacking = sides[paths.index(None)].name
            missing.append(f"{lacking} has no {kind} tarball: its files are not compared")
    roots = scans.get("rootfs", (Scan(), Scan()))
    states = [packages_of(side, root.status) for side, root in zip(sides, roots, strict=True)]
    owners = {**roots[0].owners, **roots[1].owners}
    changes = [_with_news(each, debs) for each in compare_packages(*states)]
    return Difference(
        before=before,
        after=after,
        packages=by_importance(changes),
        parts={
            kind: Part(before=old.size, after=new.size, changes=compare_files(old, new, owners))
            for kind, (old, new) in scans.items()
        },
        missing=missing,
    )


def _with_news(change: PackageChange, debs: Debs) -> PackageChange:
    """Return a change with what the changelog of the newer version says about it."""
    if change.before is None or change.after is None:
        return change
    backwards = change.kind is PackageChangeKind.DOWNGRADED
    older, newer = (change.after, change.before) if backwards else (change.before, change.after)
    if change.kind is PackageChangeKind.REPLACED:
        return change
    if not newer.sha256:
        return replace(change, no_changelog="no bill of materials says which .deb it came from")
    deb = debs(newer.sha256, newer.files)
    name = (change.former if backwards and change.former else change.name).partition(":")[0]
    versions = (older.source_version, newer.source_version)
    if not all(versions) or versions[0] == versions[1]:  # a rebuild of the same source
        versions = (older.version, newer.version)
    found = news(deb, name, older=versions[0], newer=versions[1])
    return replace(change, changelog=found.entries, no_changelog=found.missing)
