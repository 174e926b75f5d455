"""A difference between two builds as plain data, and as lines for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from coreimage.rootfs.diff.compare import Difference, Part
from coreimage.rootfs.diff.files import Entry, FileChange, by_folder
from coreimage.rootfs.diff.packages import PackageChange, PackageState
from coreimage.rootfs.packages.changelog import flaws, to_json

# How much of a changelog, and how many files, people are shown; JSON has all.
SHOWN_LINES = 8
SHOWN_FILES = 25
SHOWN_FLAWS = 3


def describe(difference: Difference) -> dict[str, Any]:
    """Return a difference for programs; lists begin with what matters most."""
    loose = {id(change) for change in difference.unexplained}
    return {
        "before": difference.before.name,
        "after": difference.after.name,
        "packages": [_package(each) for each in difference.packages],
        "sizes": {
            kind: {"before": part.before, "after": part.after, "growth": part.after - part.before}
            for kind, part in difference.parts.items()
        },
        "folders": {
            kind: [
                {
                    "folder": each.folder,
                    "added": each.added,
                    "removed": each.removed,
                    "changed": each.changed,
                    "growth": each.growth,
                }
                for each in by_folder(part.changes)
            ]
            for kind, part in difference.parts.items()
        },
        "files": {
            kind: [{**_file(each), "explained": id(each) not in loose} for each in part.changes]
            for kind, part in difference.parts.items()
        },
        "missing": list(difference.missing),
    }


def _package(change: PackageChange) -> dict[str, Any]:
    return {
        "name": change.name,
        "former": change.former or None,
        "change": change.kind.value,
        "source": change.source,
        "before": _state(change.before),
        "after": _state(change.after),
        "flaws": flaws(change.changelog),
        "changelog": [to_json(entry) for entry in change.changelog],
        "no_changelog": change.no_changelog or None,
    }


def _state(state: PackageState | None) -> dict[str, str] | None:
    return None if state is None else {"version": state.version, "sha256": state.sha256}


def _file(change: FileChange) -> dict[str, Any]:
    return {
        "path": change.path,
        "change": change.presence.value,
        "aspects": change.aspects,
        "package": change.package or None,
        "growth": change.growth,
        "before": _entry(change.before),
        "after": _entry(change.after),
    }


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    content = (
        entry.content.hex() if entry.kind == "file" else entry.content.decode(errors="replace")
    )
    return {
        "kind": entry.kind,
        "size": entry.size,
        "sha256" if entry.kind == "file" else "target": content,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
    }


def summary(difference: Difference) -> Iterator[str]:
    """Yield a few lines that say what happened in all."""
    yield f"{difference.before.name} -> {difference.after.name}"
    counts: dict[str, int] = {}
    for change in difference.packages:
        counts[change.kind.value] = counts.get(change.kind.value, 0) + 1
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    yield f"packages: {said or 'the same'}"
    for kind, part in difference.parts.items():
        yield f"{kind}: {_grown(part)}, {len(part.changes)} entries differ"
    yield from difference.missing


def _grown(part: Part) -> str:
    return f"{mib(part.before)} -> {mib(part.after)} MiB ({signed(part.after - part.before)})"


def mib(size: int) -> str:
    """Return bytes as MiB with one digit."""
    return f"{size / 2**20:.1f}"


def signed(size: int) -> str:
    """Return a growth in bytes, in the unit that fits, with its sign."""
    for unit, divisor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(size) >= divisor:
            return f"{size / divisor:+.1f} {unit}"
    return f"{size:+d} B" if size else "0"


def package_rows(difference: Difference) -> list[list[str]]:
    """Return a row for each package: change, name, versions, flaws that are fixed or come back."""
    return [
        [
            each.kind.value,
            f"{each.name} (was {each.former})" if each.former else each.name,
            each.before.version if each.before else "",
            each.after.version if each.after else "",
            _few(flaws(each.changelog)) or ("security" if each.fixes_flaws else ""),
        ]
        for each in difference.packages
    ]


def _few(numbers: Sequence[str]) -> str:
    more = len(numbers) - SHOWN_FLAWS
    return " ".join(numbers[:SHOWN_FLAWS]) + (f" and {more} more" if more > 0 else "")


def folder_rows(part: Part) -> list[list[str]]:
    """Return a row for each directory: name, entries added, removed, changed, growth."""
    return [
        [each.folder, str(each.added), str(each.removed), str(each.changed), signed(each.growth)]
        for each in by_folder(part.changes)
    ]


def file_rows(changes: Sequence[FileChange]) -> list[list[str]]:
    """Return a row for each path: change, path, what differs, growth, package."""
    return [
        [each.presence.value, each.path, _what(each), signed(each.growth), each.package]
        for each in changes
    ]


def _what(change: FileChange) -> str:
    old, new = change.before, change.after
    if old is None or new is None:
        entry = new or old
        return f"{entry.kind} {entry.mode:04o}" if entry else ""
    words = {
        "kind": f"{old.kind} -> {new.kind}",
        "content": "content",
        "mode": f"mode {old.mode:04o} -> {new.mode:04o}",
        "owner": f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}",
        "attributes": "attributes",
    }
    return ", ".join(words[aspect] for aspect in change.aspects)


def changelog_lines(difference: Difference) -> Iterator[str]:
    """Yield what the changelogs say, once for all packages of a source."""
    groups: dict[tuple[str, tuple[str, ...]], list[PackageChange]] = {}
    for change in difference.packages:
        if change.changelog:
            versions = tuple(entry.version for entry in change.changelog)
            groups.setdefault((change.source, versions), []).append(change)
    for (source, _), changes in groups.items():
        first = changes[0]
        way = "goes back over" if first.kind.value == "downgraded" else "has"
        yield f"{source} {way} ({', '.join(each.name for each in changes)}):"
        lines = [
            line
            for entry in first.changelog
            for line in (
                f"  {entry.version}, {entry.date}",
                *(f"    {each}" for each in entry.lines),
            )
        ]
        yield from lines[:SHOWN_LINES]
        if len(lines) > SHOWN_LINES:
            yield f"    … {len(lines) - SHOWN_LINES} more lines in --json"
    reasons: dict[str, list[str]] = {}
    for change in difference.packages:
        if change.no_changelog:
            reasons.setdefault(change.no_changelog, []).append(change.name)
    for reason, names in reasons.items():
        yield f"no changelog of {', '.join(names)}: {reason}"
