"""OEM packages: what a maker says about a board, and the files that go with it.

A package is a folder, or a tar archive of it, with `meta/package.yaml`. Source of the format: the
OEM packages of Ubuntu Core 15.04.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import coreimage
from coreimage.config import nearest_key
from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import compress, files, tar

DEFAULT_OEM = "generic-amd64"
_PACKAGE_YAML = "meta/package.yaml"
_MAX_SIZE = 64 << 20
_SUFFIXES = ("", ".tar.gz", ".tar.xz", ".tar.zst")
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class BootFile(_Strict):
    """A file of the package that goes to the boot partition, at `target`."""

    path: str
    target: str


class BootAssets(_Strict):
    """What is needed to start a board."""

    files: list[BootFile] = []


class HardwareInfo(_Strict):
    """What kind of machine it is and how its disk is laid out."""

    bootloader: str
    partition_layout: str = "system-AB"
    architecture: _Name
    platform: str = ""
    dtb: str = ""
    boot_assets: BootAssets = BootAssets()


class SoftwareInfo(_Strict):
    """Names of packages that come with it; kept for programs on the device."""

    built_in: list[str] = []
    preinstalled: list[str] = []


class StoreInfo(_Strict):
    """Which store it belongs to; kept for programs on the device."""

    id: str = ""


class OemSection(_Strict):
    """The section `oem` of package.yaml."""

    hardware: HardwareInfo
    software: SoftwareInfo = SoftwareInfo()
    store: StoreInfo = StoreInfo()


class PackageInfo(_Strict):
    """The whole of package.yaml."""

    name: _Name
    version: _Version
    type: Literal["oem"] = "oem"
    vendor: str = ""
    description: str = ""
    oem: OemSection
    config: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OemFile:
    """One file of a package."""

    content: bytes
    executable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OemPackage:
    """A package that was read and checked; `files` by path inside it."""

    info: PackageInfo
    files: Mapping[str, OemFile]

    @property
    def device(self) -> str:
        """The device of a channel that its images are for."""
        return f"generic_{self.info.oem.hardware.architecture}"

    @property
    def digest(self) -> str:
        """A sha256 over all names and contents, the same for a folder and for its archive."""
        total = hashlib.sha256()
        for path, file in sorted(self.files.items()):
            content = hashlib.sha256(file.content).hexdigest()
            total.update(f"{path}\0{file.executable:d}\0{content}\n".encode())
        return total.hexdigest()

    def boot_files(self) -> dict[str, bytes]:
        """Return what goes to the boot partition, by its path there."""
        return {
            each.target: self.files[each.path].content
            for each in self.info.oem.hardware.boot_assets.files
        }

    def install(self, staging: Staging) -> None:
        """Put the package into a tree at oem/<name>/<version>, with a link `current` to it."""
        home = f"oem/{self.info.name}"
        for path, file in sorted(self.files.items()):
            mode = 0o755 if file.executable else 0o644
            staging.put_file(f"{home}/{self.info.version}/{path}", file.content, mode=mode)
        staging.put_symlink(f"{home}/current", self.info.version)


def find_oem(name: str, *, folders: Sequence[Path]) -> Path:
    """Return the path of a package: a path as it is, else the first of that name in `folders`.

    Raises NotFoundError that names the ones there are.
    """
    if "/" in name or name.endswith(_SUFFIXES[1:]):
        if Path(name).exists():
            return Path(name)
        raise NotFoundError(f"there is no OEM package '{name}'")
    for folder in folders:
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.exists():
                return path
    known = sorted({_package_name(path) for folder in folders for path in _entries(folder)})
    raise NotFoundError(
        f"there is no OEM package '{name}'",
        hint="the OEM packages are " + ", ".join(f"'{each}'" for each in known)
        if known
        else "give the path of a folder with meta/package.yaml, or of a tar.gz of it",
    )


def shipped_folder() -> Path:
    """Return where our own packages lie: inside the installed package, or beside the sources."""
    home = Path(coreimage.__file__).parent
    installed = home / "data/oem"
    return installed if installed.is_dir() else home.parents[1] / "oem"


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def _package_name(path: Path) -> str:
    for suffix in _SUFFIXES[1:]:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def load_oem(path: Path) -> OemPackage:
    """Read a package and check it; raises DataError that names file and key."""
    members = dict(_read_folder(path) if path.is_dir() else _read_archive(path))
    if _PACKAGE_YAML not in members:
        raise DataError(f"OEM package '{path}' has no {_PACKAGE_YAML}")
    source = f"{path}: {_PACKAGE_YAML}"
    package = OemPackage(info=parse(members[_PACKAGE_YAML].content, source=source), files=members)
    hardware = package.info.oem.hardware
    for key, found, known in (
        ("bootloader", hardware.bootloader, "grub"),
        ("partition-layout", hardware.partition_layout, "system-AB"),
    ):
        if found != known:
            raise DataError(f"{source}: {key} '{found}' is not supported, only '{known}' is")
    for each in hardware.boot_assets.files:
        if each.path not in members:
            raise DataError(f"{source}: the package has no file '{each.path}'")
        tar.safe_name(each.target, archive=source)
    return package


def parse(text: bytes, *, source: str) -> PackageInfo:
    """Parse package.yaml; raises DataError that names the key and the nearest valid one."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{source}: not YAML: {error}") from error
    try:
        return PackageInfo.model_validate(document)
    except ValidationError as error:
        # A key that is not known comes first: it is often the one that is missing, misspelt.
        complaints = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        first = complaints[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        hints = {
            "extra_forbidden": nearest_key(PackageInfo, first["loc"]),
            "string_type": "write it in quotes",
        }
        raise DataError(
            f"{source}: '{where}': {first['msg'].lower()}", hint=hints.get(first["type"], "")
        ) from error


def _read_folder(root: Path) -> Iterator[tuple[str, OemFile]]:
    size = 0
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"OEM package '{root}': '{name}' is neither a file nor a folder")
        if path.is_dir():
            continue
        size += path.stat().st_size
        _check_size(size, root)
        executable = bool(path.stat().st_mode & 0o100)
        yield name, OemFile(content=path.read_bytes(), executable=executable)


def _read_archive(path: Path) -> Iterator[tuple[str, OemFile]]:
    size = 0
    with (
        compress.opened(path) as stream,
        tar.reading(stream, archive=path.name) as archive,
    ):
        for member in tar.members(archive, archive=path.name):
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(
                    f"OEM package '{path}': '{member.name}' is neither a file nor a folder"
                )
            size += member.size
            _check_size(size, path)
            data = io.BytesIO()
            files.copy_stream(content, data)
            yield (
                member.name,
                OemFile(content=data.getvalue(), executable=bool(member.mode & 0o100)),
            )


def _check_size(size: int, path: Path) -> None:
    if size > _MAX_SIZE:
        raise DataError(f"OEM package '{path}' is larger than {_MAX_SIZE >> 20} MiB")
