"""Changelogs of packages, read out of their .deb files.

Source of the format: deb-changelog(5); of the places: Debian Policy, 12.7.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from debian.debian_support import Version

from coreimage.errors import CoreImageError
from coreimage.lib import run, tar
from coreimage.lib.files import sha256_of

_HEADER = re.compile(
    r"(?P<source>\S+) \((?P<version>[^()\s]+)\) (?P<suites>[^;]*);(?P<fields>.*)", re.ASCII
)
_TRAILER = re.compile(r" -- (?P<who>.*?)  (?P<date>.*)")
_URGENCY = re.compile(r"urgency=(\w+)", re.IGNORECASE)
_CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_MAX_SIZE = 16 << 20
_URGENT = frozenset({"high", "emergency", "critical"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangelogEntry:
    """The changes of one version, as lines without their indentation."""

    version: str
    suites: str
    urgency: str
    date: str
    lines: Sequence[str]

    @property
    def flaws(self) -> Sequence[str]:
        """The numbers of the flaws that it names: CVE-2026-1234."""
        return sorted({found for line in self.lines for found in _CVE.findall(line)})


def is_security(entry: ChangelogEntry) -> bool:
    """Tell whether an entry is about security: it names a flaw, or went to such a suite."""
    return bool(entry.flaws) or "security" in entry.suites or entry.urgency in _URGENT


def parse_changelog(text: str) -> Iterator[ChangelogEntry]:
    """Yield the entries, the newest first; what does not look like one is passed over."""
    header: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        found, end = _HEADER.fullmatch(line), _TRAILER.fullmatch(line)
        if found:
            header, lines = found, []
        elif end and header:
            urgency = _URGENCY.search(header["fields"])
            yield ChangelogEntry(
                version=header["version"],
                suites=header["suites"].strip(),
                urgency=urgency[1].lower() if urgency else "",
                date=end["date"].strip(),
                lines=[each for each in lines if each],
            )
            header = None
        elif line.startswith("  "):
            lines.append(line.strip() if not line.startswith("    ") else f"  {line.strip()}")


def entries_between(
    entries: Iterator[ChangelogEntry], older: str, newer: str
) -> list[ChangelogEntry]:
    """Return the entries of versions above `older` up to `newer`, the newest first."""
    found = []
    for entry in entries:
        with suppress(ValueError):
            version = Version(entry.version)
            # Rebuilds for one architecture have entries of their own, or none at all.
            if version <= Version(older):
                break
            if version <= Version(newer):
                found.append(entry)
    return found


def changelog_of(deb: Path, package: str) -> str | None:
    """Return the changelog of a .deb file, None when it has none of its own.

    Raises CoreImageError for a file that is none.
    """
    places = re.compile(
        rf"usr/share/doc/{re.escape(package)}/changelog(\.Debian(\.\w+)?)?\.gz", re.ASCII
    )
    found: dict[str, bytes] = {}
    with run.start(["dpkg-deb", "--fsys-tarfile", deb], stdout=run.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        with tar.reading(process.stdout, archive=deb.name) as archive:
            for member in tar.members(archive, archive=deb.name):
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None and places.fullmatch(member.name):
                    found[member.name.rpartition("/")[2]] = content.read(_MAX_SIZE)
        while process.stdout.read(1 << 16):
            pass
    # A package that comes from elsewhere has two: its own is changelog.Debian. A rebuild for one
    # architecture adds changelog.Debian.ARCH, which comes first because it is newer.
    own = [name for name in found if name.startswith("changelog.Debian")] or list(found)
    texts = [_unpacked(found[name]) for name in sorted(own, key=lambda each: -len(each))]
    return "\n".join(texts) if texts else None


def _unpacked(data: bytes) -> str:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        return unpacker.decompress(data, _MAX_SIZE).decode(errors="replace")
    except zlib.error:
        return ""


Debs = Callable[[str, Sequence[str]], Path | None]
"""Finds a .deb file by its sha256 and the names that it may have."""


def debs_in(folders: Sequence[Path]) -> Debs:
    """Return what finds .deb files in folders: by their sha256, or by a name.

    A file counts when it has the digest.
    """

    def find(sha256: str, files: Sequence[str]) -> Path | None:
        names = [f"{sha256[:2]}/{sha256}.deb", f"{sha256}.deb", *files]
        for folder in folders:
            for name in names:
                path = folder / name
                if path.is_file() and sha256_of(path) == sha256:
                    return path
        return None

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a changelog says between two versions, or why nobody knows."""

    entries: Sequence[ChangelogEntry] = ()
    missing: str = ""


def news(deb: Path | None, package: str, *, older: str, newer: str) -> News:
    """Return what changed in a package from one version to another, from the newer one's .deb."""
    if deb is None:
        return News(missing="its .deb is not in the package store")
    try:
        text = changelog_of(deb, package)
    except CoreImageError as error:
        return News(missing=error.message)
    if text is None:
        return News(missing="its .deb has no changelog of its own")
    entries = entries_between(parse_changelog(text), older, newer)
    return News(entries=entries, missing="" if entries else "its changelog has no such entries")


def flaws(entries: Sequence[ChangelogEntry]) -> list[str]:
    """Return the numbers of all flaws that entries name."""
    return sorted({number for entry in entries for number in entry.flaws})


def to_json(entry: ChangelogEntry) -> Mapping[str, object]:
    """Return an entry for programs."""
    return {
        "version": entry.version,
        "suites": entry.suites,
        "urgency": entry.urgency,
        "date": entry.date,
        "changes": list(entry.lines),
        "flaws": list(entry.flaws),
    }
