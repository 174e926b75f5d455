"""Boot loaders: what each one puts on the boot partition and on the disk itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.flasher.disk import grub, uboot
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.disk.plan import Piece, plan_layout
from coreimage.flasher.oem.package import OemFile, OemPackage

# Where a package has a boot loader of its own.
_UEFI = "boot-loader/uefi.efi"
_BOOT, _CORE = "boot-loader/bios-boot.img", "boot-loader/bios-core.img"
# In bytes: on all disks the partitions have the same numbers.
_ANY_SIZE = 8 << 30
_FRESH = {"snappy_ab": "a", "snappy_mode": "regular", "snappy_trial_boot": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Files for the boot partition, by path there, and what a BIOS starts, if anything."""

    files: Mapping[str, bytes]
    bios: grub.BiosGrub | None = None


def bios_pieces(bios: grub.BiosGrub, layout: Layout) -> list[Piece]:
    """Return what a BIOS starts as pieces of a disk; raises DataError when it does not fit."""
    place = layout.partition("grub")
    if len(bios.core) > place.size:
        raise DataError(f"GRUB has {len(bios.core)} bytes, its partition only {place.size}")
    return [
        Piece(name="boot code", offset=0, data=bios.boot_sector[: grub.BOOT_CODE]),
        Piece(name="GRUB", offset=place.start, data=bios.core),
    ]


def make_loader(oem: OemPackage, layout: Layout, *, scratch: Path) -> Loader:
    """Return the boot loader of a board; the package's own files replace ours."""
    hardware = oem.info.oem.hardware
    makers = {"grub": _grub, "u-boot": _uboot}
    return makers[hardware.bootloader](oem, layout, scratch)


def slot_directory(bootloader: str, slot: str) -> str:
    """Return where a slot's kernel, initrd and hardware.yaml lie on the boot partition."""
    places: Mapping[str, Callable[[str], str]] = {
        "grub": grub.slot_directory,
        "u-boot": uboot.slot_directory,
    }
    if bootloader not in places:
        raise DataError(
            f"we know no bootloader '{bootloader}'", hint=f"we know {', '.join(places)}"
        )
    return places[bootloader](slot)


def _grub(oem: OemPackage, layout: Layout, scratch: Path) -> Loader:
    arch, own = oem.info.oem.hardware.architecture, oem.boot_files()
    files: dict[str, bytes] = {
        f"{grub.GRUB_DIRECTORY}/grub.cfg": grub.grub_config(arch=arch).encode(),
        f"{grub.GRUB_DIRECTORY}/grubenv": grub.grubenv(_FRESH),
    }
    uefi = grub.UEFI_PATHS.get(arch, "")
    if uefi not in own:
        packed = oem.files.get(_UEFI)
        files[uefi] = packed.content if packed else grub.grub_uefi(arch, scratch=scratch)
    if not layout.has("grub"):
        return Loader(files={**files, **own})
    images = _packed_bios(oem) or _bios_images(layout, scratch)
    bios = grub.placed(images, layout.partition("grub").start)
    return Loader(files={**files, **own}, bios=bios)


def _packed_bios(oem: OemPackage) -> grub.BiosGrub | None:
    boot, core = (oem.files.get(path) for path in (_BOOT, _CORE))
    return grub.BiosGrub(boot_sector=boot.content, core=core.content) if boot and core else None


def _bios_images(layout: Layout, scratch: Path) -> grub.BiosGrub:
    return grub.bios_images(boot_partition=layout.number(grub.BOOT_LABEL), scratch=scratch)


def with_loader(oem: OemPackage, *, scratch: Path) -> OemPackage:
    """Return a package that brings its boot loader: GRUB of this machine, for its own layout.

    Disks are then the same wherever they are made. Raises DataError for a package that starts by
    something else, RightsError when GRUB's modules are missing.
    """
    info = oem.info
    if info.oem.hardware.bootloader != "grub":
        raise DataError(
            f"OEM package '{info.name}' starts by {info.oem.hardware.bootloader}",
            hint="give that boot loader as a boot asset of the package",
        )
    arch = info.oem.hardware.architecture
    layout = plan_layout(oem, size=_ANY_SIZE, seed=b"")
    files = {_UEFI: grub.grub_uefi(arch, scratch=scratch)}
    if layout.has("grub"):
        images = _bios_images(layout, scratch)
        files |= {_BOOT: images.boot_sector, _CORE: images.core}
    packed = {path: OemFile(content=data, executable=False) for path, data in files.items()}
    return OemPackage(info=info, files={**oem.files, **packed})


def _uboot(oem: OemPackage, layout: Layout, scratch: Path) -> Loader:
    del scratch
    hardware = oem.info.oem.hardware
    system = uboot.uboot_system(
        layout, arch=hardware.architecture, device_tree=hardware.device_tree
    )
    files = {uboot.SYSTEM: system.encode(), uboot.SCRIPT: uboot.uboot_script()}
    return Loader(files={**files, **oem.boot_files()})
