"""package.yaml: the fields of an OEM package, and what is wrong with one that has others.

Source of the format: the OEM packages of Ubuntu Core 15.04. The section `disk`, sizes with units
and the content of raw partitions are ours.
"""

import re
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from coreimage.flasher.packageyaml import Strict, parse_yaml

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([0-9]+)([KMG])\Z")
_BYTE = re.compile(r"(?:0x)?([0-9a-fA-F]{2})\Z")
# Source: modprobe.d(5).
_MODPROBE = re.compile(r"(?:#|$|(?:alias|blacklist|install|options|remove|softdep)\s+\S)")
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~-]*$")]
_PartitionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,34}$")]


def _size(value: Any) -> int:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a number with its unit K, M or G, such as 64M")
    return int(match[1]) * _UNITS[match[2]]


def _offset(value: Any) -> int:
    if isinstance(value, str) and not value.isdecimal():
        return _size(value)
    number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else -1
    if number < 0:
        raise ValueError("expected bytes from the start of the disk, or a number with K, M or G")
    return number


def _type(value: Any) -> str:
    """Return a GUID or two hexadecimal digits, in lower case."""
    text = str(value)
    if match := _BYTE.match(text):
        return match[1].lower()
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("expected a GUID, or two hexadecimal digits for an MBR") from None


def _modprobe(value: Any) -> tuple[str, ...]:
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError("expected text, or a list of lines")
    for line in lines:
        if "\n" in line or not _MODPROBE.match(line.strip()):
            raise ValueError(f"'{line.strip()}' is no line of modprobe.d")
    return tuple(line.strip() for line in lines)


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Offset = Annotated[int, BeforeValidator(_offset)]
PartitionType = Annotated[str, BeforeValidator(_type)]


class BootFile(Strict):
    """A file for the boot partition, at `target`, also called `dst`; else under its own name."""

    path: str
    target: str = ""
    dst: str = ""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if self.target and self.dst:
            raise ValueError("'target' and 'dst' are two names of the same: give one")
        return self

    @property
    def place(self) -> str:
        """Where it goes on the boot partition."""
        return self.target or self.dst or self.path.rpartition("/")[2]


class RawFile(Strict):
    """A file that is written to the disk itself, `offset` bytes from its start."""

    path: str
    offset: Offset


class RawPartition(Strict):
    """One more partition; `path`, if given, is the file that its content begins with."""

    name: _PartitionName
    size: Size
    type: PartitionType = ""
    path: str = ""


class BootAssets(Strict):
    """What is needed to start a board."""

    files: tuple[BootFile, ...] = Field(default=(), strict=False)
    raw_files: tuple[RawFile, ...] = Field(default=(), strict=False)
    raw_partitions: tuple[RawPartition, ...] = Field(default=(), strict=False)


class DiskInfo(Strict):
    """How the disk is divided, where that is not the bootloader's usual way."""

    table: Literal["gpt", "mbr"] | None = None
    sector_size: Literal[512, 4096] = 512
    boot_size: Size | None = None
    system_size: Size = 1 << 30


class HardwareInfo(Strict):
    """What kind of machine it is and how its disk is laid out."""

    bootloader: str
    partition_layout: str = "system-AB"
    architecture: _Name
    platform: str = ""
    dtb: str = ""
    boot_assets: BootAssets = BootAssets()
    disk: DiskInfo = DiskInfo()

    @property
    def device_tree(self) -> str:
        """The file of the board's device tree, or nothing."""
        return self.dtb or (f"{self.platform}.dtb" if self.platform else "")


class SoftwareInfo(Strict):
    """Names of packages that come with it; kept for programs on the device."""

    built_in: tuple[str, ...] = Field(default=(), strict=False)
    preinstalled: tuple[str, ...] = Field(default=(), strict=False)


class StoreInfo(Strict):
    """Which store it belongs to; kept for programs on the device."""

    id: str = ""


class OemSection(Strict):
    """The section `oem` of package.yaml."""

    hardware: HardwareInfo
    software: SoftwareInfo = SoftwareInfo()
    store: StoreInfo = StoreInfo()


class CoreConfig(Strict):
    """Settings of the system itself: lines for modprobe.d."""

    modprobe: Annotated[tuple[str, ...], BeforeValidator(_modprobe)] = ()


class ConfigSection(BaseModel):
    """Settings by package: `ubuntu-core` is the system, the others are kept for programs."""

    model_config = ConfigDict(extra="allow", frozen=True)

    ubuntu_core: CoreConfig = Field(default=CoreConfig(), alias="ubuntu-core")


class PackageInfo(Strict):
    """The whole of package.yaml."""

    name: _Name
    version: _Version
    type: Literal["oem"] = "oem"
    vendor: str = ""
    description: str = ""
    icon: str = ""
    oem: OemSection
    config: ConfigSection = ConfigSection()


def parse(text: bytes, *, source: str) -> PackageInfo:
    """Parse package.yaml; raises DataError that names the key and the nearest valid one."""
    return parse_yaml(PackageInfo, text, source=source)
