"""Image definitions: a folder with definition.toml and the live-build tree beside it."""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from coreimage.config import explain
from coreimage.errors import DataError, NotFoundError

_Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.:-]*[a-z0-9+.]$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
_Suite = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./-]*$")]
_MAX_DEPTH = 8
# Lists to which a definition adds what it extends.
_ADDED = ("packages", "exclude_paths", "include_paths")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Release(_Strict):
    """One release of the distribution: its series name and the suites that packages come from."""

    series: _Name
    suites: Sequence[_Suite]
    security_suites: Sequence[_Suite] = ()
    components: Sequence[_Name] = ("main",)
    packages: Sequence[_Package] = ()
    without_packages: Sequence[_Package] = ()


class Architecture(_Strict):
    """What an architecture adds: its kernel and its boot loader."""

    bootloader: Literal["grub"]
    packages: Sequence[_Package] = ()


class Definition(_Strict):
    """definition.toml, with what it extends merged in."""

    name: _Name
    title: str
    extends: _Name | None = None
    distribution: Literal["debian", "ubuntu"]
    product: _Name = "core"
    default_release: str
    packages: Sequence[_Package] = ()
    exclude_paths: Sequence[str] = ()
    include_paths: Sequence[str] = ()
    releases: Mapping[str, Release] = Field(min_length=1)
    architectures: Mapping[str, Architecture] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One release and architecture of a definition, and the folders it comes from, base first."""

    definition: Definition
    folders: Sequence[Path]
    release_name: str
    release: Release
    arch: str
    architecture: Architecture

    @property
    def packages(self) -> list[str]:
        """The packages to install, sorted; dependencies come on top."""
        wanted = {
            *self.definition.packages,
            *self.release.packages,
            *self.architecture.packages,
        }
        return sorted(wanted.difference(self.release.without_packages))

    def files(self, part: str) -> dict[str, Path]:
        """Return the files of a part such as hooks or includes.chroot by their name below it.

        A file of the definition takes the place of one with the same name in what it extends.
        """
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted((folder / part).rglob("*")):
                if path.is_symlink() or path.is_file():
                    found[str(path.relative_to(folder / part))] = path
        return dict(sorted(found.items()))

    def hooks(self, kind: str) -> dict[str, Path]:
        """Return the hooks of a kind, such as chroot, in the order they run."""
        return {
            name: path for name, path in self.files("hooks").items() if name.endswith(f".{kind}")
        }

    def digest(self) -> str:
        """Return the sha256 over everything the definition contributes."""
        state = hashlib.sha256(self.definition.model_dump_json().encode())
        state.update(f"\0{self.release_name}\0{self.arch}".encode())
        for part in ("hooks", "includes.chroot", "includes.chroot_before_packages"):
            for name, path in self.files(part).items():
                content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
                executable = not path.is_symlink() and bool(path.stat().st_mode & 0o100)
                state.update(f"\0{part}/{name}\0{executable}\0{len(content)}\0".encode())
                state.update(content)
        return state.hexdigest()


def shipped_definitions() -> Path:
    """Return the folder of the definitions that come with coreimage."""
    installed = Path(__file__).parents[1] / "data/definitions"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "definitions"


def definition_places(workspace: Path | None) -> list[Path]:
    """Return the folders that hold definitions: the operator's own, then the shipped ones."""
    own = [workspace / "definitions"] if workspace else []
    return [*own, shipped_definitions()]


def definition_names(places: Sequence[Path]) -> list[str]:
    """Return the names of all definitions in the given folders."""
    return sorted(
        {path.parent.name for place in places for path in place.glob("*/definition.toml")}
    )


def load(name: str, places: Sequence[Path]) -> tuple[Definition, list[Path]]:
    """Return a definition and the folders it is made of, what it extends first.

    `places` are searched in order. Raises NotFoundError and DataError.
    """
    folders: list[Path] = []
    document: dict[str, Any] = {}
    wanted: str | None = name
    while wanted is not None:
        folder = _find(wanted, places)
        if folder in folders or len(folders) >= _MAX_DEPTH:
            raise DataError(f"definition '{name}' extends itself by way of '{wanted}'")
        folders.insert(0, folder)
        own = _read(folder / "definition.toml")
        document = _merge(own, document)
        wanted = own.get("extends")
    source = folders[-1] / "definition.toml"
    try:
        definition = Definition.model_validate(document)
    except ValidationError as error:
        complaint, hint = explain(Definition, error)
        raise DataError(f"{source}: {complaint}", hint=hint) from error
    if definition.name != name:
        raise DataError(
            f"{source}: 'name' is '{definition.name}', in a folder named '{name}'",
            hint="give both the same name",
        )
    return definition, folders


def select(name: str, release: str | None, arch: str, places: Sequence[Path]) -> Selection:
    """Return one release and architecture of a definition; NotFoundError names the ones it has."""
    definition, folders = load(name, places)
    chosen = release or definition.default_release
    aliases = {each.series: number for number, each in definition.releases.items()}
    chosen = aliases.get(chosen, chosen)
    if chosen not in definition.releases:
        raise NotFoundError(
            f"definition '{name}' has no release '{chosen}'",
            hint="its releases are " + ", ".join(_shown(definition.releases)),
        )
    if arch not in definition.architectures:
        raise NotFoundError(
            f"definition '{name}' has no architecture '{arch}'",
            hint="its architectures are " + ", ".join(definition.architectures),
        )
    return Selection(
        definition=definition,
        folders=folders,
        release_name=chosen,
        release=definition.releases[chosen],
        arch=arch,
        architecture=definition.architectures[arch],
    )


def _shown(releases: Mapping[str, Release]) -> Iterator[str]:
    return (f"{number} ({release.series})" for number, release in releases.items())


def _find(name: str, places: Sequence[Path]) -> Path:
    for place in places:
        if "/" not in name and (place / name / "definition.toml").is_file():
            return place / name
    raise NotFoundError(
        f"there is no definition '{name}'",
        hint="the definitions are " + ", ".join(definition_names(places)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    # What is merged is looked at first; the rest is checked when all is merged.
    for key in _ADDED:
        if not isinstance(document.get(key, []), list):
            raise DataError(f"{path}: '{key}' is {document[key]!r}, expected a list")
    if not isinstance(document.get("extends", ""), str):
        raise DataError(f"{path}: 'extends' is {document['extends']!r}, expected a name")
    return document


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overlaid by `own`: package and path lists add up, all else is replaced."""
    merged = dict(base)
    for key, value in own.items():
        if key in _ADDED:
            merged[key] = [*merged.get(key, []), *value]
        else:
            merged[key] = value
    return merged
