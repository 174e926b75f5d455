"""An OEM package that was read and checked, from a folder or from an archive of it."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.flasher.oem.info import PackageInfo, parse
from coreimage.flasher.packagefile import package_stream
from coreimage.flasher.provision import HOME
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import files, tar

PACKAGE_YAML = "meta/package.yaml"
_MAX_SIZE = 64 << 20
_BOOTLOADERS = ("grub", "u-boot")
_LAYOUTS = ("system-AB",)


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
        """The device of a channel that its images are for, unless another one is named."""
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
            each.place: self.files[each.path].content
            for each in self.info.oem.hardware.boot_assets.files
        }

    def raw_files(self) -> list[tuple[str, int, bytes]]:
        """Return what goes to the disk itself: path in the package, offset in bytes, content."""
        return [
            (each.path, each.offset, self.files[each.path].content)
            for each in self.info.oem.hardware.boot_assets.raw_files
        ]

    def partition_contents(self) -> dict[str, bytes]:
        """Return what raw partitions begin with, by their names."""
        return {
            each.name: self.files[each.path].content
            for each in self.info.oem.hardware.boot_assets.raw_partitions
            if each.path
        }

    def install(self, staging: Staging) -> None:
        """Put the package into a tree at oem/<name>/<version>, with a link `current` to it.

        What it sets for the kernel's modules goes where the image looks for it.
        """
        home = f"oem/{self.info.name}"
        for path, file in sorted(self.files.items()):
            mode = 0o755 if file.executable else 0o644
            staging.put_file(f"{home}/{self.info.version}/{path}", file.content, mode=mode)
        staging.put_symlink(f"{home}/current", self.info.version)
        modprobe = self.info.config.ubuntu_core.modprobe
        if modprobe:
            text = "".join(f"{line}\n" for line in modprobe)
            staging.put_file(f"{HOME}/modprobe.conf", text.encode())


def load_oem(path: Path) -> OemPackage:
    """Read a package and check it; raises DataError that names file and key."""
    if path.is_dir():
        return _checked(dict(_read_folder(path)), str(path))
    with path.open("rb") as file:
        return read_oem(file, name=str(path))


def read_oem(file: BinaryIO, *, name: str) -> OemPackage:
    """Read an open archive as `load_oem` does; `name` is the archive's for people."""
    return _checked(dict(_read_archive(file, name)), name)


def _checked(members: Mapping[str, OemFile], name: str) -> OemPackage:
    if PACKAGE_YAML not in members:
        raise DataError(f"OEM package '{name}' has no {PACKAGE_YAML}")
    source = f"{name}: {PACKAGE_YAML}"
    package = OemPackage(info=parse(members[PACKAGE_YAML].content, source=source), files=members)
    hardware = package.info.oem.hardware
    for key, found, known in (
        ("bootloader", hardware.bootloader, _BOOTLOADERS),
        ("partition-layout", hardware.partition_layout, _LAYOUTS),
    ):
        if found not in known:
            names = " and ".join(f"'{each}'" for each in known)
            raise DataError(f"{source}: {key} '{found}' is not supported", hint=f"we know {names}")
    assets = hardware.boot_assets
    wanted = [each.path for each in assets.files]
    wanted += [each.path for each in assets.raw_files]
    wanted += [each.path for each in assets.raw_partitions if each.path]
    for path in wanted:
        if path not in members:
            raise DataError(f"{source}: the package has no file '{path}'")
    for each in assets.files:
        tar.safe_name(each.place, archive=source)
    for partition in assets.raw_partitions:
        if partition.path and len(members[partition.path].content) > partition.size:
            raise DataError(f"{source}: '{partition.path}' is larger than '{partition.name}'")
    return package


def _read_folder(root: Path) -> Iterator[tuple[str, OemFile]]:
    size = 0
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"OEM package '{root}': '{name}' is neither a file nor a folder")
        if path.is_dir():
            continue
        size += path.stat().st_size
        _check_size(size, str(root))
        executable = bool(path.stat().st_mode & 0o100)
        yield name, OemFile(content=path.read_bytes(), executable=executable)


def _read_archive(file: BinaryIO, name: str) -> Iterator[tuple[str, OemFile]]:
    size = 0
    with (
        package_stream(file, name=name) as stream,
        tar.reading(stream, archive=name) as archive,
    ):
        for member in tar.members(archive, archive=name):
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(
                    f"OEM package '{name}': '{member.name}' is neither a file nor a folder"
                )
            size += member.size
            _check_size(size, name)
            data = io.BytesIO()
            files.copy_stream(content, data)
            yield (
                member.name,
                OemFile(content=data.getvalue(), executable=bool(member.mode & 0o100)),
            )


def _check_size(size: int, name: str) -> None:
    if size > _MAX_SIZE:
        raise DataError(f"OEM package '{name}' is larger than {_MAX_SIZE >> 20} MiB")
