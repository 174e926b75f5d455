"""The newest publication to import from, and proof that its files are what the publisher made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coreimage.errors import NotFoundError, TrustError
from coreimage.lib import trust
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import (
    IMAGE_TYPE,
    Publication,
    build_id_key,
    is_build_id,
    parse_checksums,
)

_SUMS, _SIGNATURE, _GOOD = "SHA256SUMS", "SHA256SUMS.gpg", ".marked_good"
_MAX_SUMS = 4 << 20


_MOST_COMPLAINTS = 3


class NoPublicationError(NotFoundError):
    """There is no publication that has what is wanted of it."""


Note = Callable[[str], object]
"""Tells people something."""

Check = Callable[..., object]
"""Verifies an open file by its signature: check(file, signature, what=...); raises TrustError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPublication:
    """A publication whose checksums are signed: sha256 in lower-case hex by file name.

    `name` is where it lies, relative to the publication tree or absolute; `title` is for people.
    """

    name: str
    title: str
    directory: Path
    sums: Mapping[str, str]

    @property
    def version(self) -> str:
        """The build id."""
        return self.directory.name

    def sha256(self, name: str) -> str:
        """Return the digest that a file must have; TrustError when the publisher gave none."""
        if name not in self.sums:
            raise TrustError(f"'{name}' is not listed in '{self.directory / _SUMS}'")
        return self.sums[name]


def find_newest(
    tree: Path,
    *,
    project: str,
    series: str,
    wanted: Sequence[Sequence[str]],
    only_good: bool,
    note: Note,
) -> Publication:
    """Return the newest complete publication that has the wanted files.

    Each is wanted by the names that it may have, of which one is enough. `note` is told of newer
    ones that are not complete. Raises NoPublicationError that says why the newest directories do
    not count, or which projects and series there are.
    """
    parent = tree / project / series / IMAGE_TYPE
    if not parent.is_dir():
        raise NoPublicationError(
            f"there are no publications of '{project}' for series '{series}'",
            hint=_existing(tree),
        )
    version = newest_version(parent, wanted=wanted, only_good=only_good, note=note)
    return Publication(project=project, series=series, version=version)


def newest_version(
    parent: Path, *, wanted: Sequence[Sequence[str]], only_good: bool, note: Note
) -> str:
    """Return the newest build id below a folder that is complete; see `find_newest`.

    Build ids are compared by date and number: 20150402.10 is newer than 20150402.9.
    """
    required = [(_SUMS,), (_SIGNATURE,), *wanted, *([(_GOOD,)] if only_good else [])]
    complaints: list[str] = []
    waiting: list[str] = []
    names = [path.name for path in _entries(parent) if is_build_id(path.name)]
    for name in sorted(names, key=build_id_key, reverse=True):
        missing = [
            " or ".join(names)
            for names in required
            if not any((parent / name / each).is_file() for each in names)
        ]
        if not missing and not (parent / name).is_symlink():
            for complaint in complaints[:_MOST_COMPLAINTS]:
                note(f"a newer publication is passed over: {complaint}")
            return name
        if missing == [_GOOD]:
            waiting.append(name)
            continue
        complaints.append(f"'{name}' lacks {', '.join(missing) or 'a directory of its own'}")
    if waiting:
        complaints.insert(0, f"mark one with 'coreimage publication mark-good': {waiting[0]}")
    raise NoPublicationError(
        f"no publication in '{parent}' can be imported",
        hint="; ".join(complaints[:_MOST_COMPLAINTS]) or "publish a build first",
    )


def _entries(parent: Path) -> list[Path]:
    try:
        return list(parent.iterdir())
    except OSError as error:
        raise NotFoundError(f"'{parent}' has no publications: {error.strerror}") from error


def verify(tree: Path, publication: Publication, *, chain: trust.Chain) -> VerifiedPublication:
    """Return the checksums of a publication of ours once their signature was found good."""
    title = f"{publication.project} {publication.series} {publication.version}"
    check = partial(chain.verify, level=KeyringType.IMAGE_SIGNING)
    directory = tree / publication.path
    return verify_directory(directory, name=str(publication.path), title=title, check=check)


def verify_directory(
    directory: Path, *, name: str, title: str, check: Check
) -> VerifiedPublication:
    """Return the checksums of any publication once `check` has found their signature good."""
    path = directory / _SUMS
    with path.open("rb") as file:
        check(file, directory / _SIGNATURE, what=str(path))
        text = file.read(_MAX_SUMS).decode(errors="replace")
    sums = parse_checksums(text, source=str(path))
    return VerifiedPublication(name=name, title=title, directory=directory, sums=sums)


def _existing(tree: Path) -> str:
    found = sorted(
        f"'{path.parent.parent.name}' for '{path.parent.name}'"
        for path in tree.glob(f"*/*/{IMAGE_TYPE}")
    )
    return f"there are publications of {', '.join(found)}" if found else "publish a build first"
