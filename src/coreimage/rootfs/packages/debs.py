"""Binary packages: what they say of themselves, and how they are laid out for dpkg.

A package is decompressed once, on all cores; dpkg, which reads some of them twice and on one core
only, then has nothing to decompress. Source: deb(5), deb-control(5).
"""

import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from debian.deb822 import Deb822

from coreimage.errors import DataError
from coreimage.lib import ar, run
from coreimage.lib.files import copy_stream

# What is decompressed at once. What comes out of larger pieces is new memory each time, and the
# kernel's work on it costs a tenth of decompressing.
_PIECE = 1 << 16
# What people read, which no package needs before dpkg has unpacked it.
_FOR_PEOPLE = tuple(
    f"/usr/share/{name}/" for name in ("doc", "i18n", "info", "locale", "man", "zoneinfo")
)
_T = TypeVar("_T")
_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes:
        """Return what the data decompresses to."""


class _Plain:
    def decompress(self, data: bytes, /) -> bytes:
        """Return the data."""
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package: its file, the fields of its control file, and when it was built, UNIX seconds."""

    path: Path
    fields: Mapping[str, str]
    time: int

    @property
    def name(self) -> str:
        """The name of the package."""
        return self.fields["Package"]

    @property
    def essential(self) -> bool:
        """Whether no system can do without it."""
        return self.fields.get("Essential") == "yes"

    @property
    def required(self) -> bool:
        """Whether it belongs to the smallest system."""
        return self.essential or self.name == "apt" or self.fields.get("Priority") == "required"

    def relations(self, *kinds: str) -> list[list[str]]:
        """Return the names that fields such as Depends ask for: one of each inner list."""
        text = ",".join(self.fields.get(kind, "") for kind in kinds)
        groups = [
            [found[1] for each in group.split("|") if (found := _NAME.match(each))]
            for group in text.split(",")
        ]
        return [names for names in groups if names]

    def provides(self) -> list[str]:
        """Return the other names that the package goes by."""
        return [name for names in self.relations("Provides") for name in names]


def read_all(paths: Iterable[Path]) -> list[Deb]:
    """Read what packages say of themselves; raises DataError."""
    return [_reading(path, _read) for path in paths]


def unpack(deb: Deb, target: Path) -> None:
    """Write a package without compression into a folder, under the same name."""
    _reading(deb.path, lambda source: _unpack(source, target / deb.path.name))


def _reading(path: Path, read: Callable[[BinaryIO], _T]) -> _T:
    try:
        with path.open("rb") as source:
            return read(source)
    except (OSError, KeyError, ValueError, EOFError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"'{path.name}' is no package: {error}") from error


def _read(source: BinaryIO) -> Deb:
    members = {each.name: each for each in ar.members(source)}
    text = io.BytesIO()
    _copy_member(source, _only(members, "control.tar"), text)
    fields = _control(text.getvalue())
    return Deb(path=Path(source.name), fields=fields, time=members["debian-binary"].time)


def _unpack(source: BinaryIO, target: Path) -> None:
    members = {each.name: each for each in ar.members(source)}
    with target.open("wb") as output:
        output.write(ar.MAGIC + ar.header("debian-binary", 4) + b"2.0\n")
        for name in ("control.tar", "data.tar"):
            begin = output.tell()
            output.write(ar.header(name, 0))
            _copy_member(source, _only(members, name), output)
            end = output.tell()
            size = end - begin - ar.HEADER
            output.seek(begin)
            output.write(ar.header(name, size))
            output.seek(end)
            output.write(b"\n" * (size % 2))


def built_at(path: Path) -> int:
    """Return when a package was built, in UNIX seconds, as its first member says."""
    with path.open("rb") as source:
        return next(ar.members(source)).time


def _only(members: Mapping[str, ar.Member], stem: str) -> ar.Member:
    found = [each for name, each in members.items() if name == stem or name.startswith(f"{stem}.")]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} members '{stem}'")
    return found[0]


def _copy_member(source: BinaryIO, member: ar.Member, output: BinaryIO) -> None:
    """Write a member without its compression."""
    if member.name.endswith(".zst"):
        # What dpkg-deb puts out is the same; Python learns to read zstd in version 3.14.
        option = "--ctrl-tarfile" if member.name.startswith("control") else "--fsys-tarfile"
        with run.start(["dpkg-deb", option, source.name], stdout=run.PIPE) as process:
            assert process.stdout is not None  # noqa: S101  PIPE was asked for
            copy_stream(process.stdout, output)
        if process.returncode:
            raise ValueError(f"dpkg-deb failed, {run.describe_status(process.returncode)}")
        return
    decompressor = _decompressor(member.name)
    chunks = ar.chunks(source, member, size=_PIECE)
    output.writelines(decompressor.decompress(chunk) for chunk in chunks)
    if not getattr(decompressor, "eof", True):
        raise ValueError(f"its {member.name} is cut short")


def _decompressor(name: str) -> _Decompressor:
    if name.endswith((".xz", ".lzma")):
        return lzma.LZMADecompressor()
    if name.endswith(".gz"):
        return zlib.decompressobj(wbits=31)
    if name.endswith(".tar"):
        return _Plain()
    raise ValueError(f"its '{name}' is compressed in a way that is not known")


def _control(data: bytes) -> dict[str, str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for each in archive:
                if each.name.removeprefix("./") == "control":
                    reader = archive.extractfile(each)
                    return dict(Deb822(reader.read() if reader else b""))
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    raise ValueError("it has no control file")


def essentials(debs: Sequence[Deb]) -> list[Deb]:
    """Return the essential packages and all that they need, sorted by name."""
    known = _names(debs)
    wanted = _closure([each for each in debs if each.essential], known, "Depends", "Pre-Depends")
    return sorted(wanted, key=lambda each: each.name)


def install_order(debs: Sequence[Deb], installed: Sequence[Deb]) -> list[list[Deb]]:
    """Return the packages in groups, each of which dpkg can unpack when those before are set up.

    What a package names in Pre-Depends must be set up before it is unpacked (Debian Policy,
    7.2). All but the last group hold only what is needed so early, with all that it needs.
    """
    known = _names([*debs, *installed])
    ready = {each.name for each in installed}
    groups: list[list[Deb]] = []
    while True:
        left = [each for each in debs if each.name not in ready]
        early = {
            each.name: each
            for deb in left
            for each in _closure(
                _wanted([deb], known, "Pre-Depends"), known, "Depends", "Pre-Depends"
            )
            if each.name not in ready
        }
        first = [
            each
            for each in early.values()
            if all(need.name in ready for need in _wanted([each], known, "Pre-Depends"))
        ]
        # A group must be complete: what is set up needs its dependencies.
        group = [
            each
            for each in first
            if all(
                need.name in ready or need in first
                for need in _closure([each], known, "Depends", "Pre-Depends")
            )
        ]
        if not group:
            return [*groups, sorted(left, key=lambda each: each.name)]
        groups.append(sorted(group, key=lambda each: each.name))
        ready.update(each.name for each in group)


def _names(debs: Iterable[Deb]) -> dict[str, list[Deb]]:
    """Return the packages by their names, and by what they provide; the real ones come first."""
    known: dict[str, list[Deb]] = {}
    ordered = sorted(debs, key=lambda each: each.name)
    for deb in ordered:
        known.setdefault(deb.name, []).append(deb)
    for deb in ordered:
        for name in deb.provides():
            known.setdefault(name, []).append(deb)
    return known


def _wanted(debs: Iterable[Deb], known: Mapping[str, list[Deb]], *kinds: str) -> list[Deb]:
    """Return what packages ask for, as far as it is there."""
    found = []
    for deb in debs:
        for names in deb.relations(*kinds):
            # The first alternative that is there will do, as for apt.
            fitting = [each for name in names for each in known.get(name, ())]
            if fitting and deb not in fitting:
                found.append(fitting[0])
    return found


def _closure(debs: Sequence[Deb], known: Mapping[str, list[Deb]], *kinds: str) -> list[Deb]:
    found: dict[str, Deb] = {}
    left = list(debs)
    while left:
        deb = left.pop()
        if deb.name not in found:
            found[deb.name] = deb
            left += _wanted([deb], known, *kinds)
    return list(found.values())


def members_left_out(
    plain: Iterable[Path], exclude: Sequence[str], include: Sequence[str]
) -> list[str]:
    """Return the members of plain packages that need not be there before dpkg unpacks them.

    These are what dpkg's path filters leave out and what people read; of the latter only files,
    as folders keep the time that they have when they come first. See --path-exclude in dpkg(1),
    which looks at all patterns in order; in our definitions, the includes come last.
    """
    names: set[str] = set()
    for path in plain:
        with path.open("rb") as source:
            member = next(each for each in ar.members(source) if each.name == "data.tar")
            source.seek(member.offset)
            with tarfile.open(fileobj=source, mode="r:") as archive:
                for each in archive:
                    name = "/" + each.name.removeprefix("./").rstrip("/")
                    for_people = name.startswith(_FOR_PEOPLE) and not each.isdir()
                    if for_people or (
                        any(fnmatchcase(name, pattern) for pattern in exclude)
                        and not any(fnmatchcase(name, pattern) for pattern in include)
                    ):
                        names.add(each.name)
    return sorted(names)
