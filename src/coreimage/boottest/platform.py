"""Platforms: which QEMU and which firmware run the disks of an architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreimage.errors import NotFoundError, RightsError


class Firmware(StrEnum):
    """What starts the disk's boot loader."""

    BIOS = "bios"
    UEFI = "uefi"
    UBOOT = "u-boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashFiles:
    """A UEFI firmware: its code and the template of its variables."""

    code: Path
    variables: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A QEMU and its machine; `cpu` is what it takes without KVM, empty for its own choice.

    `flash` lists UEFI firmwares, `uboot` those of the kind that `-bios` takes. `package` has QEMU.
    """

    program: str
    machine: str
    cpu: str = ""
    bios: bool = False
    flash: Sequence[FlashFiles] = ()
    flash_package: str = ""
    uboot: Path | None = None
    package: str

    @property
    def firmwares(self) -> tuple[Firmware, ...]:
        """The firmwares that the machine may have, the usual one first."""
        have = {
            Firmware.BIOS: self.bios,
            Firmware.UEFI: bool(self.flash),
            Firmware.UBOOT: self.uboot is not None,
        }
        return tuple(each for each, there in have.items() if there)


def _flash(*pairs: tuple[str, str]) -> tuple[FlashFiles, ...]:
    return tuple(FlashFiles(code=Path(code), variables=Path(rest)) for code, rest in pairs)


# Debian and Ubuntu; Fedora; Arch.
FLASH_FILES = _flash(
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)
_IA32 = _flash(
    ("/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF32_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf-ia32/OVMF_CODE.fd", "/usr/share/edk2/ovmf-ia32/OVMF_VARS.fd"),
)
_ARM64 = _flash(
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    (
        "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "/usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
)
PLATFORMS: Mapping[str, Platform] = {
    "amd64": Platform(
        program="qemu-system-x86_64",
        machine="q35,graphics=off",
        bios=True,
        flash=FLASH_FILES,
        flash_package="ovmf",
        package="qemu-system-x86",
    ),
    "i386": Platform(
        program="qemu-system-i386",
        machine="q35,graphics=off",
        bios=True,
        flash=_IA32,
        flash_package="ovmf-ia32",
        package="qemu-system-x86",
    ),
    "arm64": Platform(
        program="qemu-system-aarch64",
        machine="virt",
        cpu="cortex-a57",
        flash=_ARM64,
        flash_package="qemu-efi-aarch64",
        uboot=Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin"),
        package="qemu-system-arm",
    ),
    "armhf": Platform(
        program="qemu-system-arm",
        machine="virt",
        cpu="cortex-a15",
        uboot=Path("/usr/lib/u-boot/qemu_arm/u-boot.bin"),
        package="qemu-system-arm",
    ),
}


def platform_of(arch: str) -> Platform:
    """Return the platform of an architecture; NotFoundError names the ones that we know."""
    if arch not in PLATFORMS:
        raise NotFoundError(
            f"we know no machine of architecture '{arch}'", hint=f"we know {', '.join(PLATFORMS)}"
        )
    return PLATFORMS[arch]


def find_flash(platform: Platform) -> FlashFiles:
    """Return the UEFI firmware of this machine for a platform; RightsError when there is none."""
    for files in platform.flash:
        if files.code.is_file() and files.variables.is_file():
            return files
    raise RightsError(
        f"there is no UEFI firmware for {platform.program} on this machine",
        hint=f"install the package '{platform.flash_package}'"
        + (", or boot with --firmware bios" if platform.bios else ""),
    )


def find_uboot(platform: Platform) -> Path:
    """Return the U-Boot of this machine for a platform; RightsError when there is none."""
    if platform.uboot is None or not platform.uboot.is_file():
        raise RightsError(
            f"there is no U-Boot for {platform.program} on this machine",
            hint="install the package 'u-boot-qemu'",
        )
    return platform.uboot
