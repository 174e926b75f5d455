"""Booting: U-Boot, and the script that chooses slot a or b.

U-Boot itself and what its board's firmware wants come with the OEM package. Ours are two files of
the boot partition: `boot.scr`, which U-Boot looks for, and `snappy-system.txt`, variables and
scripts as lines that U-Boot imports. The running system changes `snappy_ab` and `snappy_mode`
there, and removes the stamp when it has come up.
"""

import struct
import zlib
from collections.abc import Sequence

from coreimage.flasher.disk.grub import check_arguments
from coreimage.flasher.disk.layout import Layout

SYSTEM = "snappy-system.txt"
SCRIPT = "boot.scr"
STAMP = "snappy-stamp.txt"

# With panic= a slot that cannot start reboots into the other one.
_ARGUMENTS = ("ro", "panic=5", "systemd.gpt_auto=0")
_CONSOLES = {"armhf": "ttyAMA0", "arm64": "ttyAMA0"}
_START = {"armhf": "bootz", "arm64": "booti"}
_SCRIPT = f"""\
setenv snappy_device ${{devtype}} ${{devnum}}:${{distro_bootpart}}
load ${{snappy_device}} ${{scriptaddr}} {SYSTEM}
env import -t ${{scriptaddr}} ${{filesize}}
run snappy_boot
"""
# Each line is a variable; U-Boot runs the ones that are scripts. A try boots the new slot once,
# with the stamp written before. When the stamp is still there at the next boot nobody confirmed:
# back to the other slot. Where no stamp can be written there would be no way back, so no try is
# made. A slot in regular use whose files are gone gives way to the other one for this boot only.
_SYSTEM = """\
snappy_ab=a
snappy_mode=regular
snappy_stamp={stamp}
snappy_root_a={root_a}
snappy_root_b={root_b}
snappy_fdtfile={device_tree}
snappy_arguments={arguments}
snappy_other=if test "${{snappy_ab}}" = "a"; then setenv snappy_ab b; else setenv snappy_ab a; fi; \
setenv snappy_mode regular; setenv snappy_trial 0
snappy_choose=setenv snappy_trial 0; if test "${{snappy_mode}}" = "try"; then \
if test -e ${{snappy_device}} ${{snappy_stamp}}; then \
echo Nobody confirmed system-${{snappy_ab}}; run snappy_other; \
else setenv snappy_trial 1; \
if fatwrite ${{snappy_device}} ${{kernel_addr_r}} ${{snappy_stamp}} 1; then \
echo Trying system-${{snappy_ab}} for the first time; else run snappy_other; fi; fi; fi
snappy_tree=if test -n "${{snappy_fdtfile}}"; then setenv snappy_tree_file ${{snappy_fdtfile}}; \
else setenv snappy_tree_file ${{fdtfile}}; fi; \
if test -n "${{snappy_tree_file}}" && \
load ${{snappy_device}} ${{fdt_addr_r}} ${{snappy_ab}}/dtbs/${{snappy_tree_file}}; \
then setenv snappy_fdt ${{fdt_addr_r}}; else setenv snappy_fdt ${{fdtcontroladdr}}; fi
snappy_start=echo Starting system-${{snappy_ab}} ...; \
if test "${{snappy_ab}}" = "a"; then setenv snappy_root ${{snappy_root_a}}; \
else setenv snappy_root ${{snappy_root_b}}; fi; \
setenv bootargs root=${{snappy_root}} snappy_ab=${{snappy_ab}} ab.trial=${{snappy_trial}} \
${{snappy_arguments}}; \
if load ${{snappy_device}} ${{kernel_addr_r}} ${{snappy_ab}}/vmlinuz; then run snappy_tree; \
if load ${{snappy_device}} ${{ramdisk_addr_r}} ${{snappy_ab}}/initrd.img; then \
{start} ${{kernel_addr_r}} ${{ramdisk_addr_r}}:${{filesize}} ${{snappy_fdt}}; fi; fi
snappy_boot=run snappy_choose; run snappy_start; \
if test "${{snappy_mode}}" != "try"; then run snappy_other; run snappy_start; fi; \
sleep 3; reset
"""
# Source: include/image.h of U-Boot, "legacy format image header": magic, checksum of the header,
# time, size, load address, entry point, checksum of the data, system, architecture, type,
# compression, name.
_HEADER = struct.Struct(">IIIIIIIBBBB32s")
_MAGIC = 0x27051956
_LINUX, _ARM, _SCRIPT_TYPE = 5, 2, 6


def uboot_system(
    layout: Layout, *, arch: str, device_tree: str = "", arguments: Sequence[str] = ()
) -> str:
    """Return snappy-system.txt: it chooses the slot, falls back when a try failed, and boots.

    `device_tree` is a file below `dtbs` of the slot; without one U-Boot's own choice is taken.
    Raises DataError for arguments that its scripts would not pass on as they are.
    """
    check_arguments(arguments)
    console = f"console={_CONSOLES.get(arch, 'ttyS0')},115200"
    return _SYSTEM.format(
        stamp=STAMP,
        root_a=layout.root("a"),
        root_b=layout.root("b"),
        device_tree=device_tree,
        arguments=" ".join((*_ARGUMENTS, "console=tty0", console, *arguments)),
        start=_START.get(arch, "bootz"),
    )


def uboot_script() -> bytes:
    """Return boot.scr, the script in the wrapping in which U-Boot takes it."""
    text = _SCRIPT.encode()
    # A script is a list of sizes that ends with 0, and then the texts.
    data = struct.pack(">II", len(text), 0) + text

    def header(checksum: int) -> bytes:
        return _HEADER.pack(
            *(_MAGIC, checksum, 0, len(data), 0, 0, zlib.crc32(data)),
            *(_LINUX, _ARM, _SCRIPT_TYPE, 0, b"coreimage"),
        )

    return header(zlib.crc32(header(0))) + data


def slot_directory(slot: str) -> str:
    """Return where kernel, initrd, device trees and hardware.yaml of a slot lie."""
    return slot
