"""Devices: whether disks of other architectures than amd64 can be made and booted here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from coreimage.boottest.machine import find_firmware
from coreimage.boottest.platform import Firmware, Platform, platform_of
from coreimage.checks.check import Check, Status
from coreimage.errors import RightsError
from coreimage.flasher.disk.grub import MODULES, platform_directory
from coreimage.lib import run

# Whose OEM packages are shipped: what GRUB has to be there for, and how QEMU's machine starts.
_ARCHES: Mapping[str, tuple[Sequence[str], Firmware]] = {
    "arm64": (("arm64-efi",), Firmware.UEFI),
    "armhf": ((), Firmware.UBOOT),
    "i386": (("i386-pc", "i386-efi"), Firmware.BIOS),
}


def check_devices() -> list[Check]:
    """Return what is there for each architecture: nobody needs one, so none is missing."""
    checks = []
    for arch, (grub, firmware) in _ARCHES.items():
        checks += [check_disks(arch, grub)] if grub else []
        checks.append(check_boots(arch, platform_of(arch), firmware))
    return checks


def check_disks(arch: str, platforms: Sequence[str], *, modules: Sequence[Path] = MODULES) -> Check:
    """Return whether GRUB is there for the disks of an architecture."""
    name = f"disks of {arch}"
    try:
        found = [str(platform_directory(platform, modules)) for platform in platforms]
    except RightsError as error:
        return _optional(name, error)
    return Check(name=name, status=Status.OK, found=", ".join(found))


def check_boots(arch: str, platform: Platform, firmware: Firmware) -> Check:
    """Return whether QEMU and the firmware are there that such disks are started by."""
    name = f"boots of {arch}"
    path = run.find_program(platform.program)
    if path is None:
        mend = f"install the package {platform.package}"
        missing = f"'{platform.program}' is not installed"
        return Check(name=name, status=Status.OPTIONAL, found=missing, mend=mend)
    try:
        files = find_firmware(arch, firmware)
    except RightsError as error:
        return _optional(name, error)
    started_by = files.uboot or (files.flash.code if files.flash else "its own BIOS")
    return Check(name=name, status=Status.OK, found=f"{path} with {started_by}")


def _optional(name: str, error: RightsError) -> Check:
    return Check(name=name, status=Status.OPTIONAL, found=error.message, mend=error.hint)
