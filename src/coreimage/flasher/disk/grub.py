"""Booting: GRUB for BIOS and UEFI, and the script that chooses slot a or b.

GRUB's own tools make the pieces; nothing is installed on the machine that builds. The names of the
variables and files are those that devices know: snappy_ab, snappy_mode, snappy_trial_boot, in
EFI/ubuntu/grub of the boot partition.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError, DataError, RightsError
from coreimage.lib import run

GRUB_DIRECTORY = "EFI/ubuntu/grub"
"""Where grub.cfg, grubenv and the slots' kernels lie on the boot partition."""

UEFI_PATHS = {
    "amd64": "EFI/BOOT/BOOTX64.EFI",
    "i386": "EFI/BOOT/BOOTIA32.EFI",
    "arm64": "EFI/BOOT/BOOTAA64.EFI",
    "armhf": "EFI/BOOT/BOOTARM.EFI",
}
"""Where UEFI firmware looks for a loader on removable media. Source: UEFI 2.10, 3.5.1.1."""

BIOS_ARCHES = frozenset({"amd64", "i386"})
"""The architectures whose machines may have a BIOS."""

BOOT_LABEL = "system-boot"

BOOT_CODE = 440
"""How many bytes of the first sector are a boot loader's, in both kinds of partition table."""

# Those of other architectures than the machine's own have to be put somewhere by hand.
MODULES = (Path("/usr/lib/grub"), Path("/usr/local/lib/grub"))
_UEFI_PLATFORMS = {
    "amd64": "x86_64-efi",
    "i386": "i386-efi",
    "arm64": "arm64-efi",
    "armhf": "arm-efi",
}
_PACKAGES = {
    "i386-pc": "grub-pc-bin",
    "x86_64-efi": "grub-efi-amd64-bin",
    "i386-efi": "grub-efi-ia32-bin",
    "arm64-efi": "grub-efi-arm64-bin",
    "arm-efi": "grub-efi-arm-bin",
}
_FOREIGN = {"arm64-efi", "arm-efi"}
_COMMON = (
    *("part_gpt", "fat", "normal", "configfile", "search", "search_label", "loadenv", "test"),
    *("echo", "linux", "reboot", "serial", "terminal", "sleep", "true", "minicmd"),
)
# The partition that the loader itself came from wins over others of that label: disks of two
# devices may be in one machine.
_EARLY_CONFIG = f"""\
search --no-floppy --set=root --label {BOOT_LABEL} --hint=$root
set prefix=($root)/{GRUB_DIRECTORY}
configfile $prefix/grub.cfg
"""
_SECTOR = 512
_ENVIRONMENT_SIZE = 1024
_ENVIRONMENT_HEADER = "# GRUB Environment Block\n"
_SERIAL = {"arm64": "ttyAMA0", "armhf": "ttyAMA0"}


def default_arguments(arch: str) -> tuple[str, ...]:
    """Return what every kernel is told.

    With panic= a slot that cannot start reboots into the other one.
    """
    serial = _SERIAL.get(arch, "ttyS0")
    return (
        "ro",
        "panic=5",
        "console=tty0",
        f"console={serial},115200",
        "systemd.gpt_auto=0",
    )


_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@%~-]+\Z")
# A try boots the new slot once, with the stamp snappy_trial_boot written before. When the stamp
# is still there at the next boot nobody confirmed: back to the other slot, for good. Where no
# stamp can be written there would be no way back, so no try is made. A slot in regular use whose
# files are gone gives way to the other one for this boot only.
_GRUB_CONFIG = """\
if serial --unit=0 --speed=115200; then
    terminal_input console serial
    terminal_output console serial
fi

function other_slot {{
    if [ "$snappy_ab" = "a" ]; then
        set snappy_ab=b
    else
        set snappy_ab=a
    fi
    set snappy_mode=regular
    set snappy_trial_boot=0
}}

function boot_slot {{
    echo "Starting system-$snappy_ab ..."
    set slot=$prefix/$snappy_ab
    if linux $slot/vmlinuz root=PARTLABEL=system-$snappy_ab snappy_ab=$snappy_ab \
ab.trial=$snappy_trial_boot {arguments}; then
        if initrd $slot/initrd.img; then
            boot
        fi
    fi
}}

load_env
if [ "$snappy_ab" != "b" ]; then
    set snappy_ab=a
fi
if [ "$snappy_mode" != "try" ]; then
    set snappy_trial_boot=0
elif [ "$snappy_trial_boot" = "1" ]; then
    other_slot
    save_env snappy_ab snappy_mode snappy_trial_boot
else
    set snappy_trial_boot=1
    if save_env snappy_trial_boot; then
        echo "Trying system-$snappy_ab for the first time"
    else
        other_slot
    fi
fi

boot_slot
if [ "$snappy_mode" != "try" ]; then
    other_slot
    boot_slot
fi
sleep 3
reboot
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BiosGrub:
    """The code of the first sector, 440 bytes, and the core image of the bios_grub partition."""

    boot_sector: bytes
    core: bytes


def slot_directory(slot: str) -> str:
    """Return where kernel, initrd and hardware.yaml of slot a or b lie on the boot partition."""
    return f"{GRUB_DIRECTORY}/{slot}"


def bios_images(
    *, boot_partition: int, scratch: Path, modules: Sequence[Path] = MODULES
) -> BiosGrub:
    """Return GRUB for BIOS that does not know yet where on a disk it will lie.

    `boot_partition` is the number of the partition that holds its files. `scratch` is a directory
    of the caller. Raises RightsError when GRUB's modules are missing.
    """
    # The prefix is a partition of the disk that the BIOS started, whichever number that has.
    prefix = f"(,gpt{boot_partition})/{GRUB_DIRECTORY}"
    platform = platform_directory("i386-pc", modules)
    core = _mkimage(platform, ["biosdisk"], prefix=prefix, scratch=scratch)
    return BiosGrub(boot_sector=(platform / "boot.img").read_bytes()[:BOOT_CODE], core=core)


def placed(images: BiosGrub, core_offset: int) -> BiosGrub:
    """Return GRUB for BIOS whose core image will lie at byte `core_offset` of the disk.

    Raises CoreImageError for images that are not GRUB's. Source of the offsets: boot.h and
    diskboot.h, "include/grub/i386/pc/" of GRUB.
    """
    sector = core_offset // _SECTOR
    boot = bytearray(images.boot_sector.ljust(BOOT_CODE, b"\0"))
    boot[0x5C:0x64] = struct.pack("<Q", sector)
    boot[0x64] = 0xFF  # the drive that the BIOS started
    boot[0x66:0x68] = b"\x90\x90"  # no work-around for BIOSes that name the wrong drive
    return BiosGrub(boot_sector=bytes(boot), core=_placed_core(images.core, sector))


def grub_uefi(arch: str, *, scratch: Path, modules: Sequence[Path] = MODULES) -> bytes:
    """Return GRUB for UEFI, to be put at UEFI_PATHS[arch].

    Raises DataError for an architecture that has none, RightsError as `bios_images`.
    """
    if arch not in _UEFI_PLATFORMS:
        names = ", ".join(_UEFI_PLATFORMS)
        raise DataError(f"GRUB does not start '{arch}'", hint=f"it starts {names}")
    platform = platform_directory(_UEFI_PLATFORMS[arch], modules)
    return _mkimage(platform, [], prefix=f"/{GRUB_DIRECTORY}", scratch=scratch)


def platform_directory(platform: str, roots: Sequence[Path] = MODULES) -> Path:
    """Return where GRUB's modules for a platform are; RightsError says how to get them."""
    for root in roots:
        if (root / platform / "modinfo.sh").is_file():
            return root / platform
    package, places = _PACKAGES[platform], " or ".join(f"'{root}'" for root in roots)
    raise RightsError(
        f"GRUB for '{platform}' is not installed: it is not in {places}",
        hint=f"install the packages {package} and grub-common"
        if platform not in _FOREIGN
        else f"'tools/grub-modules {package}' puts the files of that package into /usr/local, or "
        "give the loader as a boot asset of the OEM package",
    )


def _mkimage(directory: Path, extra: list[str], *, prefix: str, scratch: Path) -> bytes:
    platform = directory.name
    config, image = scratch / "early.cfg", scratch / f"{platform}.img"
    config.write_text(_EARLY_CONFIG)
    argv: list[str | Path] = [
        "grub-mkimage",
        "-O",
        platform,
        "-d",
        directory,
        "-c",
        config,
        "-p",
        prefix,
    ]
    run.run([*argv, "-o", image, *_COMMON, *extra], env={"LC_ALL": "C"})
    return image.read_bytes()


def _placed_core(core: bytes, sector: int) -> bytes:
    """Return a core image that knows where its second sector lies.

    The first sector ends with a block list: start (8 bytes), length and segment (2 bytes each).
    """
    image = bytearray(core.ljust(-(-len(core) // _SECTOR) * _SECTOR, b"\0"))
    if not image or struct.unpack_from("<H", image, 508)[0] != len(image) // _SECTOR - 1:
        raise CoreImageError(
            "GRUB's core image has a block list of an unknown form",
            hint="report this as a bug, with the version of grub-common",
        )
    struct.pack_into("<Q", image, 500, sector + 1)
    return bytes(image)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise DataError for a kernel argument that a boot loader's script would change."""
    for argument in arguments:
        if not _PLAIN.match(argument):
            raise DataError(f"kernel argument {argument!r} has characters that scripts change")


def grub_config(*, arch: str = "amd64", arguments: Sequence[str] = ()) -> str:
    """Return grub.cfg: it chooses the slot, falls back when a try failed, and starts the kernel.

    `arguments` are added to the kernel's default ones. Raises DataError for arguments that
    GRUB's script language would not pass on as they are.
    """
    check_arguments(arguments)
    return _GRUB_CONFIG.format(
        arguments=" ".join((*default_arguments(arch), *arguments)), directory=GRUB_DIRECTORY
    )


def grubenv(values: Mapping[str, str]) -> bytes:
    """Return an environment block of 1024 bytes, as grub-editenv writes it.

    Raises DataError for names that are no variables and when the values do not fit.
    """
    lines = [_ENVIRONMENT_HEADER]
    for name, value in values.items():
        if not name.isidentifier() or not name.isascii():
            raise DataError(f"'{name}' cannot be a variable of GRUB")
        escaped = value.replace("\\", "\\\\").replace("\n", "\\\n")
        lines.append(f"{name}={escaped}\n")
    block = "".join(lines).encode()
    if len(block) > _ENVIRONMENT_SIZE:
        raise DataError(
            f"the variables need {len(block)} of the {_ENVIRONMENT_SIZE} bytes of grubenv"
        )
    return block.ljust(_ENVIRONMENT_SIZE, b"#")
