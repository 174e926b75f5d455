"""The newest publication to import from, and proof that its files are what the publisher made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPublication:
    """A publication whose checksums are signed: sha256 in lower-case hex by file name."""

    publication: Publication
    directory: Path
    sums: Mapping[str, str]

    def sha256(self, name: str) -> str:
        """Return the digest that a file must have; TrustError when the publisher gave none."""
        if name not in self.sums:
            raise TrustError(f"'{name}' is not listed in '{self.directory / _SUMS}'")
        return self.sums[name]


def find_newest(
    tree: Path, *, project: str, series: str, wanted: Sequence[str], only_good: bool
) -> Publication:
    """Return the newest complete publication that has the wanted files.

    Raises NotFoundError that says why the newest directories do not count, or which projects and
    series there are.
    """
    parent = tree / project / series / IMAGE_TYPE
    if not parent.is_dir():
        raise NotFoundError(
            f"there are no publications of '{project}' for series '{series}'",
            hint=_existing(tree),
        )
    required = [_SUMS, _SIGNATURE, *wanted, *([_GOOD] if only_good else [])]
    complaints: list[str] = []
    names = [path.name for path in parent.iterdir() if is_build_id(path.name)]
    for name in sorted(names, key=build_id_key, reverse=True):
        missing = [each for each in required if not (parent / name / each).is_file()]
        if not missing and not (parent / name).is_symlink():
            return Publication(project=project, series=series, version=name)
        complaints.append(f"'{name}' lacks {', '.join(missing) or 'a directory of its own'}")
    raise NotFoundError(
        f"no publication in '{parent}' can be imported",
        hint="; ".join(complaints[:3]) or "publish a build first",
    )


def verify(tree: Path, publication: Publication, *, chain: trust.Chain) -> VerifiedPublication:
    """Return the checksums of a publication once their signature was found good."""
    directory = tree / publication.path
    path = directory / _SUMS
    with path.open("rb") as file:
        chain.verify(file, directory / _SIGNATURE, level=KeyringType.IMAGE_SIGNING, what=str(path))
        text = file.read(_MAX_SUMS).decode(errors="replace")
    return VerifiedPublication(
        publication=publication,
        directory=directory,
        sums=parse_checksums(text, source=str(path)),
    )


def _existing(tree: Path) -> str:
    found = sorted(
        f"'{path.parent.parent.name}' for '{path.parent.name}'"
        for path in tree.glob(f"*/*/{IMAGE_TYPE}")
    )
    return f"there are publications of {', '.join(found)}" if found else "publish a build first"
