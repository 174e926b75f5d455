"""U-Boot itself, on QEMU's board, with our scripts: which slot starts, and with which arguments.

The kernel is one of our own: it prints the device tree, which holds its command line, and turns
the machine off.
"""

import re
import struct
from pathlib import Path

from coreimage.flasher.disk.layout import Division, Table, ab_layout
from coreimage.flasher.disk.plan import table_pieces
from coreimage.flasher.disk.uboot import STAMP, SYSTEM, uboot_script, uboot_system
from coreimage.lib.run import run
from tests.support.spaces import write_boot_disk

LAYOUT = ab_layout(
    size=4_000_000_000, seed=b"test", division=Division(table=Table.MBR, bios_grub=False)
)
BOOT = LAYOUT.partition("system-boot")
_CODE = (
    0xE1A04002,  # mov r4, r2            the device tree
    0xE5945004,  # ldr r5, [r4, #4]      its size, big-endian
    0xE6BF5F35,  # rev r5, r5
    0xE0845005,  # add r5, r4, r5
    0xE3A06409,  # mov r6, #0x09000000   the serial port
    0xE4D40001,  # next: ldrb r0, [r4], #1
    0xE5860000,  # str r0, [r6]
    0xE1540005,  # cmp r4, r5
    0x1AFFFFFB,  # bne next
    0xE3000008,  # movw r0, #0x0008      SYSTEM_OFF of PSCI
    0xE3480400,  # movt r0, #0x8400
    0xE1400070,  # hvc #0
)


def kernel() -> bytes:
    """Return a zImage. Source: Documentation/arch/arm/booting.rst of Linux."""
    code = struct.pack(f"<{len(_CODE)}I", *_CODE)
    # A branch over the header, whose magic number, start and end lie at 0x24.
    head = struct.pack("<I", 0xEA00000A).ljust(0x24, b"\0")
    return head + struct.pack("<III", 0x016F2818, 0, 0x30 + len(code)) + code


def make_disk(folder: Path, *, slots: str = "ab", mode: str = "regular", slot: str = "a") -> Path:
    text = uboot_system(LAYOUT, arch="armhf")
    text = text.replace("snappy_mode=regular", f"snappy_mode={mode}", 1)
    text = text.replace("snappy_ab=a", f"snappy_ab={slot}", 1)
    files: dict[str, bytes | Path] = {SYSTEM: text.encode(), "boot.scr": uboot_script()}
    for each in slots:
        files |= {f"{each}/vmlinuz": kernel(), f"{each}/initrd.img": b"initrd"}
    disk = folder / "disk.img"
    write_boot_disk(disk, LAYOUT, files=files, pieces=table_pieces(LAYOUT), scratch=folder)
    return disk


def boot(disk: Path) -> tuple[dict[str, str], str]:
    """Start the board; return what the kernel was told, empty without one, and what was said."""
    argv: list[str | Path] = ["qemu-system-arm", "-accel", "tcg", "-machine", "virt", "-m", "256"]
    argv += ["-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot"]
    argv += ["-bios", "/usr/lib/u-boot/qemu_arm/u-boot.bin"]
    argv += ["-drive", f"if=none,id=disk,file={disk},format=raw"]
    argv += ["-device", "virtio-blk-device,drive=disk"]
    said = run(argv, timeout=120).stdout.decode(errors="replace")
    told = re.findall(r"root=\S+ snappy_ab=[ -~]*", said.partition("Starting kernel")[2])
    return dict(word.partition("=")[::2] for word in (told[-1].split() if told else ())), said


def stamp(disk: Path) -> bool:
    listing = run(["mdir", "-b", "-i", f"{disk}@@{BOOT.start}", "::/"]).stdout
    return STAMP.encode() in listing


def test_the_first_boot_takes_slot_a(tmp_path: Path) -> None:
    told, _ = boot(make_disk(tmp_path))
    assert told["root"] == LAYOUT.root("a")
    assert (told["snappy_ab"], told["ab.trial"], told["panic"]) == ("a", "0", "5")


def test_a_try_that_nobody_confirms_falls_back(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, mode="try", slot="b")
    first, said = boot(disk)
    assert "Trying system-b" in said
    assert (first["snappy_ab"], first["ab.trial"]) == ("b", "1")
    assert first["root"] == LAYOUT.root("b")
    assert stamp(disk)
    for _ in range(2):  # until the running system has cleaned up
        again, said = boot(disk)
        assert "Nobody confirmed system-b" in said
        assert (again["snappy_ab"], again["ab.trial"]) == ("a", "0")


def test_a_slot_without_a_kernel_gives_way(tmp_path: Path) -> None:
    (tmp_path / "regular").mkdir()
    (tmp_path / "try").mkdir()
    told, _ = boot(make_disk(tmp_path / "regular", slots="b"))
    assert told["snappy_ab"] == "b"
    disk = make_disk(tmp_path / "try", slots="a", mode="try", slot="b")
    told, said = boot(disk)
    assert told == {}
    assert "resetting" in said
    assert boot(disk)[0]["snappy_ab"] == "a"
