"""Image definitions: a folder with definition.toml and the live-build tree beside it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from coreimage.errors import DataError, NotFoundError
from coreimage.lib.arches import OTHERS, known_arches
from coreimage.model.build import Subproject, target_of
from coreimage.rootfs.definitions import ids
from coreimage.rootfs.definitions import livebuild as tree
from coreimage.rootfs.definitions.packagelists import PACKAGE, read_list
from coreimage.rootfs.definitions.source import Source, read_source, refuse_unknown, validate

_Package = Annotated[str, StringConstraints(pattern=PACKAGE)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
_Device = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
_Suite = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./-]*$")]
_MAX_DEPTH = 8
# What stands after the architecture in names of published files, where a device's name does.
_FILE_KINDS = ("custom", "device")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Release(_Strict):
    """One release of the distribution: its series name and the suites that packages come from."""

    series: _Name
    """The series, such as trixie; it names the release too."""
    suites: Sequence[_Suite]
    """Suites of the mirror."""
    security_suites: Sequence[_Suite] = ()
    """Suites of the security mirror."""
    proposed_suites: Sequence[_Suite] = ()
    """Suites of the mirror that hold updates before they are released; for builds that ask."""
    components: Sequence[_Name] = ("main",)
    """Components of all suites."""
    packages: Sequence[_Package] = ()
    """More packages in this release."""
    without_packages: Sequence[_Package] = ()
    """Packages that this release does without."""
    without_architectures: Mapping[_Name, str] = Field(default_factory=dict)
    """Architectures that this release lacks, and why."""


class Architecture(_Strict):
    """What an architecture adds: its kernel and its boot loader."""

    bootloader: Literal["grub", "u-boot"]
    """The boot loader."""
    packages: Sequence[_Package] = ()
    """More packages on this architecture: its kernel."""


class Device(_Strict):
    """What a device adds to its architecture."""

    arch: _Name
    """The architecture that the device has."""
    bootloader: Literal["grub", "u-boot"] | None = None
    """The boot loader, where it is not the architecture's."""
    packages: Sequence[_Package] = ()
    """More packages on this device."""
    without_packages: Sequence[_Package] = ()
    """Packages that this device does without."""


class Definition(_Strict):
    """definition.toml, with what it extends merged in."""

    name: _Name
    """The folder's name."""
    title: str
    """The definition's name for people."""
    extends: _Name | None = None
    """The definition that this one is laid over."""
    distribution: Literal["debian", "ubuntu"]
    """Whose packages they are."""
    product: _Name = "core"
    """Part of the names of published files."""
    default_release: str
    """The release that is built when none is named."""
    subproject: Subproject = Subproject.SYSTEM_IMAGE
    """Whether kernel, initrd and modules move into a device tarball, when a build does not say."""
    packages: Sequence[_Package] = ()
    """Packages for every release and architecture."""
    exclude_paths: Sequence[str] = ()
    """Patterns of files that dpkg leaves out."""
    include_paths: Sequence[str] = ()
    """Patterns that it keeps nevertheless."""
    releases: Mapping[str, Release] = Field(min_length=1)
    """The releases by their number."""
    architectures: Mapping[str, Architecture] = Field(min_length=1)
    """The architectures by their Debian names."""
    devices: Mapping[_Device, Device] = Field(default_factory=dict)
    """Devices that need more than their architecture has."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One release, architecture, device and subproject of a definition, and its folders.

    The folder of what is extended stands first.
    """

    definition: Definition
    folders: Sequence[Path]
    release_name: str
    release: Release
    arch: str
    architecture: Architecture
    device: str
    subproject: Subproject

    @cached_property
    def layers(self) -> list[Path]:
        """The folders whose parts are laid over each other; the last ones win."""
        return tree.layers(
            self.folders, series=self.release.series, arch=self.arch, device=self.device
        )

    @cached_property
    def packages(self) -> list[str]:
        """The packages to install, sorted; dependencies come on top. Raises DataError."""
        device = self.definition.devices.get(self.device)
        wanted = {
            *self.definition.packages,
            *self.release.packages,
            *self.architecture.packages,
            *(device.packages if device else ()),
            *(name for path in self.files("package-lists").values() for name in self.listed(path)),
        }
        without = {*self.release.without_packages, *(device.without_packages if device else ())}
        return sorted(wanted - without)

    def listed(self, path: Path) -> list[str]:
        """Return the packages that a package list names for this selection."""
        facts = {
            "ARCHITECTURES": self.arch,
            "DISTRIBUTION": self.release.series,
            "DEVICE": self.device,
            "SUBPROJECT": self.subproject,
        }
        known: dict[str, Sequence[str]] = {
            # Those of a definition that is extended may be more than this one's.
            "ARCHITECTURES": sorted({*known_arches(), *OTHERS, *self.definition.architectures}),
            "SUBPROJECT": list(Subproject),
        }
        return read_list(path, facts=facts, known=known)

    @property
    def own_device(self) -> str:
        """The device, or nothing when it is the generic one of the architecture."""
        return "" if self.device == generic_device(self.arch) else self.device

    @property
    def target(self) -> str:
        """What published files call it: armhf, or armhf.raspi2 for a device."""
        return target_of(self.arch, self.own_device)

    @property
    def bootloader(self) -> str:
        """The boot loader of the device."""
        device = self.definition.devices.get(self.device)
        return (device and device.bootloader) or self.architecture.bootloader

    @property
    def has_device_tarball(self) -> bool:
        """Whether the kernel moves into a tarball of its own."""
        return self.subproject is Subproject.SYSTEM_IMAGE

    @property
    def facts(self) -> dict[str, str]:
        """What hooks are told in their environment."""
        return {
            "COREIMAGE_DEFINITION": self.definition.name,
            "COREIMAGE_TITLE": self.definition.title,
            "COREIMAGE_RELEASE": self.release_name,
            "COREIMAGE_SERIES": self.release.series,
            "COREIMAGE_ARCH": self.arch,
            "COREIMAGE_DEVICE": self.device,
            "COREIMAGE_SUBPROJECT": self.subproject,
        }

    def files(self, part: str) -> dict[str, Path]:
        """Return the files of a part such as hooks or includes.chroot by their name below it.

        A file of the definition takes the place of one with the same name in what it extends.
        """
        return tree.files(self.layers, part)

    def hooks(self, kind: str) -> dict[str, Path]:
        """Return the hooks of a kind, such as chroot, in the order they run."""
        return {
            name: path for name, path in self.files("hooks").items() if name.endswith(f".{kind}")
        }

    def preseeds(self) -> dict[str, Path]:
        """Return the files of debconf selections in the order in which they are set."""
        return self.files("preseed")

    def pins(self) -> ids.Pins | None:
        """Return the users and groups of the definition; None when it pins none."""
        found = {
            name: [
                layer / "ids" / name for layer in self.layers if (layer / "ids" / name).is_file()
            ]
            for name in ("passwd", "group")
        }
        return ids.read_pins(found["passwd"], found["group"])

    def digest(self) -> str:
        """Return the sha256 over everything the definition contributes."""
        state = hashlib.sha256(self.definition.model_dump_json().encode())
        choice = (self.release_name, self.arch, self.device, self.subproject)
        state.update("".join(f"\0{each}" for each in choice).encode())
        for name, path in self.contributions():
            if path.is_dir() and not path.is_symlink():
                state.update(f"\0{name}\0folder\0".encode())
                continue
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            executable = not path.is_symlink() and bool(path.stat().st_mode & 0o100)
            state.update(f"\0{name}\0{executable}\0{len(content)}\0".encode())
            state.update(content)
        return state.hexdigest()

    def contributions(self) -> Iterator[tuple[str, Path]]:
        """Yield the files beside definition.toml that count here, by part and name."""
        for part in tree.PARTS:
            if part != "ids":
                yield from ((f"{part}/{name}", path) for name, path in self.files(part).items())
        for layer in self.layers:  # all count, see ids
            yield from ((f"ids/{name}", path) for name, path in tree.files([layer], "ids").items())


def shipped_definitions() -> Path:
    """Return the folder of the definitions that come with coreimage."""
    installed = Path(__file__).parents[2] / "data/definitions"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "definitions"


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
    sources = read_sources(name, places)
    definition = validate(Definition, sources)
    if definition.name != name:
        raise DataError(
            f"{sources[-1].path}: 'name' is '{definition.name}', in a folder named '{name}'",
            hint="give both the same name",
        )
    # One that extends may have other releases than the one that it inherits as the default.
    if definition.default_release not in {each.series for each in definition.releases.values()}:
        refuse_unknown(sources[-1:], ("default_release",), list(definition.releases), "release")
    # One that extends may do without an architecture and keep the devices of what it extends.
    arches = [each for source in sources for each in source.document.get("architectures", {})]
    for device in definition.devices:
        refuse_unknown(sources, ("devices", device, "arch"), arches, "architecture")
        if device in _FILE_KINDS:
            where = [each for each in sources if "devices" in each.document][-1]
            raise DataError(
                f"{where.place(('devices', device))}: no device can be called '{device}'",
                hint="published files of an architecture have that word in their names",
            )
    return definition, [source.path.parent for source in sources]


def read_sources(name: str, places: Sequence[Path]) -> list[Source]:
    """Return the definition.toml of a definition after those of what it extends."""
    sources: list[Source] = []
    wanted: str | None = name
    names: list[str] = []
    while wanted is not None:
        if sources:
            _refuse_extends(sources[0], wanted, names, places)
        source = read_source(_find(wanted, places) / "definition.toml")
        sources.insert(0, source)
        names.append(wanted)
        extended = source.document.get("extends")
        wanted = extended if isinstance(extended, str) else None
    return sources


def _refuse_extends(
    source: Source, wanted: str, names: Sequence[str], places: Sequence[Path]
) -> None:
    """Raise DataError when what a source extends is not there, or is among `names` already."""
    known = definition_names(places)
    refuse_unknown([source], ("extends",), known, "definition")
    if wanted in names:
        way = names[names.index(wanted) :]
        last = f", which extends '{way[-1]}' in turn" if len(way) > 1 else " itself"
        raise DataError(
            f"{source.place(('extends',))}: 'extends' is '{wanted}'{last}",
            hint="the circle is " + ", ".join([*way, wanted]),
        )
    if len(names) >= _MAX_DEPTH:
        raise DataError(
            f"{source.place(('extends',))}: more than {_MAX_DEPTH} definitions extend each other",
            hint="extend one that is nearer to the first: " + ", ".join(names),
        )


def select(
    name: str,
    release: str | None,
    arch: str,
    places: Sequence[Path],
    device: str | None = None,
    *,
    subproject: Subproject | None = None,
) -> Selection:
    """Return one release and architecture of a definition; NotFoundError names the ones it has.

    Without a device it is the generic one of the architecture; without a subproject it is the
    definition's.
    """
    definition, folders = load(name, places)
    chosen = release or definition.default_release
    aliases = {each.series: number for number, each in definition.releases.items()}
    chosen = aliases.get(chosen, chosen)
    if chosen not in definition.releases:
        raise NotFoundError(
            f"definition '{name}' has no release '{chosen}'",
            hint="its releases are " + ", ".join(_shown(definition.releases)),
        )
    lacking = definition.releases[chosen].without_architectures
    if arch in lacking:
        raise NotFoundError(
            f"release '{chosen}' of definition '{name}' has no architecture '{arch}': "
            + lacking[arch],
            hint="its architectures are " + ", ".join(architectures(definition, chosen)),
        )
    if arch not in definition.architectures:
        raise NotFoundError(
            f"definition '{name}' has no architecture '{arch}'",
            hint="its architectures are " + ", ".join(definition.architectures),
        )
    for folder in folders:
        tree.check(folder, known=_variants(definition) if folder == folders[-1] else None)
    return Selection(
        definition=definition,
        folders=folders,
        release_name=chosen,
        release=definition.releases[chosen],
        arch=arch,
        architecture=definition.architectures[arch],
        device=_device(definition, device, arch),
        subproject=subproject or definition.subproject,
    )


def architectures(definition: Definition, release: str | None = None) -> list[str]:
    """Return the architectures of a release, by its number or series, by default the default one.

    Those of a release that there is not are all.
    """
    wanted = release or definition.default_release
    for number, each in definition.releases.items():
        if wanted in (number, each.series):
            return [
                arch for arch in definition.architectures if arch not in each.without_architectures
            ]
    return list(definition.architectures)


def generic_device(arch: str) -> str:
    """Return the name of the device that every machine of an architecture is."""
    return f"generic_{arch}"


def _variants(definition: Definition) -> dict[str, list[str]]:
    arches = list(definition.architectures)
    return {
        "series": [each.series for each in definition.releases.values()],
        "arch": arches,
        "device": [*map(generic_device, arches), *definition.devices],
    }


def _device(definition: Definition, device: str | None, arch: str) -> str:
    if device is None or device == generic_device(arch):
        return generic_device(arch)
    fitting = [name for name, each in definition.devices.items() if each.arch == arch]
    if device not in fitting:
        others = [
            f"{name} ({each.arch})"
            for name, each in definition.devices.items()
            if each.arch != arch
        ]
        raise NotFoundError(
            f"definition '{definition.name}' has no device '{device}' of architecture '{arch}'",
            hint="its devices are " + ", ".join([generic_device(arch), *fitting, *others]),
        )
    return device


def arch_of_device(name: str, device: str, places: Sequence[Path]) -> str | None:
    """Return the architecture of a device of a definition; None when it has no such device."""
    found = load(name, places)[0].devices.get(device)
    return found.arch if found else None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a definition.toml, for editors.

    What is required may come from an extended definition.
    """
    schema = Definition.model_json_schema()
    required = [each for each in schema.pop("required") if each != "name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "required": ["name"],
        "anyOf": [{"required": ["extends"]}, {"required": required}],
    }


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
