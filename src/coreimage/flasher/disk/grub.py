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

UEFI_PATH = "EFI/BOOT/BOOTX64.EFI"
"""Where UEFI firmware looks for a loader on removable media. Source: UEFI 2.10, 3.5.1.1."""

BOOT_LABEL = "system-boot"
_MODULES = Path("/usr/lib/grub")
_PACKAGES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin"}
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
DEFAULT_ARGUMENTS = (
    "ro",
    "panic=5",
    "console=tty0",
    "console=ttyS0,115200",
    "systemd.gpt_auto=0",
)
"""What every kernel is told. With panic= a slot that cannot start reboots into the other one."""


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


def grub_bios(*, core_offset: int, scratch: Path, modules: Path = _MODULES) -> BiosGrub:
    """Return GRUB for BIOS whose core image will lie at byte `core_offset` of the disk.

    `scratch` is a directory of the caller. Raises RightsError when GRUB's modules are missing.
    Source of the offsets: boot.h and diskboot.h, "include/grub/i386/pc/" of GRUB.
    """
    sector = core_offset // _SECTOR
    # The prefix is a partition of the disk that the BIOS started, whichever number that has.
    core = _mkimage(
        "i386-pc", ["biosdisk"], prefix=f"(,gpt2)/{GRUB_DIRECTORY}", scratch=scratch, root=modules
    )
    boot = bytearray((modules / "i386-pc/boot.img").read_bytes()[:440])
    boot[0x5C:0x64] = struct.pack("<Q", sector)
    boot[0x64] = 0xFF  # the drive that the BIOS started
    boot[0x66:0x68] = b"\x90\x90"  # no work-around for BIOSes that name the wrong drive
    return BiosGrub(boot_sector=bytes(boot), core=_placed_core(core, sector))


def grub_uefi(*, scratch: Path, modules: Path = _MODULES) -> bytes:
    """Return GRUB for 64-bit UEFI, to be put at UEFI_PATH; raises RightsError as `grub_bios`."""
    prefix = f"/{GRUB_DIRECTORY}"
    return _mkimage("x86_64-efi", [], prefix=prefix, scratch=scratch, root=modules)


def _mkimage(platform: str, extra: list[str], *, prefix: str, scratch: Path, root: Path) -> bytes:
    directory = root / platform
    if not (directory / "modinfo.sh").is_file():
        raise RightsError(
            f"GRUB for '{platform}' is not installed: there is no '{directory}'",
            hint=f"install the packages {_PACKAGES[platform]} and grub-common",
        )
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
    placed = bytearray(core.ljust(-(-len(core) // _SECTOR) * _SECTOR, b"\0"))
    if struct.unpack_from("<H", placed, 508)[0] != len(placed) // _SECTOR - 1:
        raise CoreImageError(
            "GRUB's core image has a block list of an unknown form",
            hint="report this as a bug, with the version of grub-common",
        )
    struct.pack_into("<Q", placed, 500, sector + 1)
    return bytes(placed)


def grub_config(*, arguments: Sequence[str] = ()) -> str:
    """Return grub.cfg: it chooses the slot, falls back when a try failed, and starts the kernel.

    `arguments` are added to the kernel's DEFAULT_ARGUMENTS. Raises DataError for arguments that
    GRUB's script language would not pass on as they are.
    """
    for argument in arguments:
        if not _PLAIN.match(argument):
            raise DataError(f"kernel argument {argument!r} has characters that GRUB would change")
    return _GRUB_CONFIG.format(
        arguments=" ".join((*DEFAULT_ARGUMENTS, *arguments)), directory=GRUB_DIRECTORY
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
