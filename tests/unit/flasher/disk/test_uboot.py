"""What U-Boot reads: lines that are variables, and a script in its wrapping."""

import struct
import zlib

import pytest

from coreimage.errors import DataError
from coreimage.flasher.disk.layout import Division, Table, ab_layout
from coreimage.flasher.disk.uboot import SYSTEM, uboot_script, uboot_system

LAYOUT = ab_layout(
    size=4_000_000_000, seed=b"seed", division=Division(table=Table.MBR, bios_grub=False)
)


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_each_line_is_a_variable_of_ours() -> None:
    found = variables(uboot_system(LAYOUT, arch="armhf", device_tree="board.dtb"))
    assert all(name.startswith("snappy_") for name in found)
    assert (found["snappy_ab"], found["snappy_mode"]) == ("a", "regular")
    assert found["snappy_root_a"] == f"PARTUUID={LAYOUT.mbr_signature:08x}-02"
    assert found["snappy_fdtfile"] == "board.dtb"
    assert "panic=5" in found["snappy_arguments"].split()
    assert "bootz " in found["snappy_start"]
    assert "booti " in variables(uboot_system(LAYOUT, arch="arm64"))["snappy_start"]


def test_arguments_that_are_script_are_refused() -> None:
    with pytest.raises(DataError, match="kernel argument"):
        uboot_system(LAYOUT, arch="armhf", arguments=["a;reset"])


def test_the_script_is_an_image_that_u_boot_accepts() -> None:
    image = uboot_script()
    fields = struct.unpack(">IIIIIIIBBBB32s", image[:64])
    header = image[:4] + bytes(4) + image[8:64]
    assert fields[0] == 0x27051956
    assert fields[1] == zlib.crc32(header)
    assert (fields[3], fields[6]) == (len(image) - 64, zlib.crc32(image[64:]))
    size, end = struct.unpack_from(">II", image, 64)
    assert (size, end) == (len(image) - 72, 0)
    assert SYSTEM.encode() in image[72:]
