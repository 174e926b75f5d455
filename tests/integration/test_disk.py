"""The disk: partition tables that others read, and a boot loader that chooses the right slot.

The machine is QEMU without acceleration; the kernel is one of our own that prints its command line
on the serial port and resets, so that every boot takes a second or two.
"""

import json
import signal
import struct
import sys
from pathlib import Path
from uuid import UUID

import pytest

from coreimage.errors import CoreImageError, DataError, RightsError
from coreimage.flasher.disk import grub
from coreimage.flasher.disk.gpt import gpt
from coreimage.flasher.disk.grub import (
    GRUB_DIRECTORY,
    UEFI_PATHS,
    BiosGrub,
    bios_images,
    grub_config,
    grub_uefi,
    grubenv,
    placed,
    slot_directory,
)
from coreimage.flasher.disk.layout import MINIMUM_SIZE, Layout, ab_layout
from coreimage.flasher.disk.loader import bios_pieces, make_loader, with_loader
from coreimage.flasher.disk.plan import plan_layout, table_pieces
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.oem.package import load_oem
from coreimage.lib.run import PIPE, run, start
from tests.support.spaces import write_boot_disk

MIB = 1 << 20
LAYOUT = ab_layout(size=MINIMUM_SIZE, seed=b"test")
BOOT_PARTITION = LAYOUT.partition("system-boot")


def blank(path: Path, layout: Layout) -> Path:
    with path.open("xb") as file:
        file.truncate(layout.size)
        for offset, data in gpt(layout).items():
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize("size", [MINIMUM_SIZE, 8_000_000_000, 32 << 30, 3 << 40])
def test_partitioning_tools_find_a_table_without_faults(tmp_path: Path, size: int) -> None:
    layout = ab_layout(size=size, seed=b"seed")
    disk = blank(tmp_path / "disk", layout)

    assert b"No problems found" in run(["sgdisk", "--verify", disk]).stdout
    assert b"No errors detected" in run(["sfdisk", "--verify", disk]).stdout
    table = json.loads(run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    assert (table["label"], UUID(table["id"])) == ("gpt", layout.disk_guid)
    assert [
        (each["name"], UUID(each["type"]), UUID(each["uuid"]), each["start"], each["size"])
        for each in table["partitions"]
    ] == [
        (each.name, each.type_guid, each.guid, each.start // 512, each.size // 512)
        for each in layout.partitions
    ]


def test_a_tool_recovers_the_table_from_the_backup(tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", LAYOUT)
    with disk.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))

    assert b"writable" in run(["sgdisk", "--print", disk], check=False).stdout


def test_grub_tools_accept_environment_and_script(tmp_path: Path) -> None:
    (tmp_path / "grubenv").write_bytes(grubenv({"snappy_ab": "b", "odd": "a\\b c"}))
    (tmp_path / "grub.cfg").write_text(grub_config(arguments=["quiet", "x=y,z"]))

    listed = run(["grub-editenv", tmp_path / "grubenv", "list"]).stdout
    assert listed == b"snappy_ab=b\nodd=a\\b c\n"
    run(["grub-script-check", tmp_path / "grub.cfg"])


def test_missing_modules_are_named_with_their_packages(tmp_path: Path) -> None:
    with pytest.raises(RightsError, match="i386-pc") as caught:
        bios_images(boot_partition=2, scratch=tmp_path, modules=[tmp_path])
    assert "grub-pc-bin" in caught.value.hint
    with pytest.raises(RightsError, match="x86_64-efi") as caught:
        grub_uefi("amd64", scratch=tmp_path, modules=[tmp_path])
    assert "grub-efi-amd64-bin" in caught.value.hint


# Prints the command line, then resets the machine through the keyboard controller.
_CODE = bytes.fromhex(
    "8b9e28020000"  # mov ebx, [esi + 0x228]    boot_params.hdr.cmd_line_ptr
    "8a03"  # next: mov al, [ebx]
    "84c0"  # test al, al
    "7413"  # jz end
    "88c1"  # mov cl, al
    "66bafd03"  # mov dx, 0x3fd
    "ec"  # wait: in al, dx
    "a820"  # test al, 0x20
    "74fb"  # jz wait
    "88c8"  # mov al, cl
    "b2f8"  # mov dl, 0xf8
    "ee"  # out dx, al
    "43"  # inc ebx
    "ebe7"  # jmp next
    "b0fe"  # end: mov al, 0xfe
    "e664"  # out 0x64, al
    "f4"  # hlt
    "ebfd"  # jmp -1
)


def echo_kernel() -> bytes:
    """Return a bzImage. Source: Documentation/arch/x86/boot.rst of Linux."""
    setup = bytearray(1024)
    setup[0x1F1] = 1  # setup sectors
    struct.pack_into("<I", setup, 0x1F4, 512 // 16)  # size of the code
    setup[0x1FE:0x202] = b"\x55\xaa\xeb\x66"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020C)  # protocol version
    setup[0x211] = 1  # loaded high
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<I", setup, 0x22C, 0x37FFFFFF)  # highest address of the initrd
    struct.pack_into("<I", setup, 0x230, 0x1000)  # alignment
    struct.pack_into("<I", setup, 0x238, 2047)  # longest command line
    struct.pack_into("<Q", setup, 0x258, 0x100000)  # preferred address
    struct.pack_into("<I", setup, 0x260, 0x1000)  # memory that it needs
    return bytes(setup) + _CODE.ljust(512, b"\0")


def make_disk(directory: Path, *, slots: str = "ab", tag: str = "", **variables: str) -> Path:
    """Make a disk with our kernel in `slots`; `tag` is a kernel argument that tells disks apart."""
    files: dict[str, bytes | Path] = {
        UEFI_PATHS["amd64"]: grub_uefi("amd64", scratch=directory),
        f"{GRUB_DIRECTORY}/grub.cfg": grub_config(arguments=[tag] if tag else []).encode(),
        f"{GRUB_DIRECTORY}/grubenv": grubenv(variables),
    }
    for slot in slots:
        files[f"{slot_directory(slot)}/vmlinuz"] = echo_kernel()
        files[f"{slot_directory(slot)}/initrd.img"] = b"initrd"
    output = directory / "disk.img"
    images = bios_images(boot_partition=2, scratch=directory)
    boot = placed(images, LAYOUT.partition("grub").start)
    pieces = [*table_pieces(LAYOUT), *bios_pieces(boot, LAYOUT)]
    write_boot_disk(output, LAYOUT, files=files, pieces=pieces, scratch=directory)
    return output


def boot(
    *disks: Path, firmware: list[str | Path] | None = None, read_only: bool = False
) -> dict[str, str]:
    """Start a machine from the last disk and return what the kernel was told, empty without one.

    The machine ends at its first reset.
    """
    access = "on" if read_only else "off"
    argv: list[str | Path] = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35"]
    argv += ["-m", "256", "-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot"]
    argv += firmware or []
    for number, disk in enumerate(disks):
        argv += ["-drive", f"if=none,id=d{number},file={disk},format=raw,readonly={access}"]
        argv += ["-device", f"virtio-blk-pci,drive=d{number},bootindex={len(disks) - number}"]
    said = run(argv, timeout=120).stdout.decode(errors="replace")
    line = said.rpartition("BOOT_IMAGE=")[2] if "BOOT_IMAGE=" in said else ""
    return dict(word.partition("=")[::2] for word in line.split()[1:])


def environment(disk: Path) -> dict[str, str]:
    drive = f"{disk}@@{BOOT_PARTITION.start}"
    block = run(["mtype", "-i", drive, f"::/{GRUB_DIRECTORY}/grubenv"]).stdout
    assert len(block) == 1024
    lines = [line for line in block.decode().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_first_boot_takes_slot_a(tmp_path: Path) -> None:
    disk = make_disk(tmp_path)

    told = boot(disk)

    assert told["root"] == "PARTLABEL=system-a"
    assert (told["snappy_ab"], told["ab.trial"], told["panic"]) == ("a", "0", "5")
    assert {"ro", "systemd.gpt_auto"} <= told.keys()


@pytest.mark.parametrize(("slot", "other"), [("a", "b"), ("b", "a")])
def test_a_try_that_nobody_confirms_falls_back(tmp_path: Path, slot: str, other: str) -> None:
    disk = make_disk(tmp_path, snappy_ab=slot, snappy_mode="try", snappy_trial_boot="0")

    first = boot(disk)
    assert (first["snappy_ab"], first["ab.trial"]) == (slot, "1")
    assert environment(disk) == {
        "snappy_ab": slot,
        "snappy_mode": "try",
        "snappy_trial_boot": "1",
    }
    second = boot(disk)
    assert (second["snappy_ab"], second["ab.trial"]) == (other, "0")
    assert second["root"] == f"PARTLABEL=system-{other}"
    assert environment(disk) == {
        "snappy_ab": other,
        "snappy_mode": "regular",
        "snappy_trial_boot": "0",
    }
    third = boot(disk)
    assert (third["snappy_ab"], third["ab.trial"]) == (other, "0")


def test_a_slot_in_regular_use_is_started_again_and_again(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, snappy_ab="b", snappy_mode="regular", snappy_trial_boot="0")
    before = environment(disk)

    assert boot(disk)["snappy_ab"] == "b"
    assert boot(disk)["snappy_ab"] == "b"
    assert environment(disk) == before


def test_without_a_stamp_no_try_is_made(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, snappy_ab="b", snappy_mode="try", snappy_trial_boot="0")

    told = boot(disk, read_only=True)

    assert (told["snappy_ab"], told["ab.trial"]) == ("a", "0")


def test_a_try_without_a_kernel_resets_and_falls_back(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, slots="a", snappy_ab="b", snappy_mode="try", snappy_trial_boot="0")

    assert boot(disk) == {}
    assert boot(disk)["snappy_ab"] == "a"
    assert environment(disk)["snappy_mode"] == "regular"


def test_a_regular_slot_without_a_kernel_gives_way_for_one_boot(tmp_path: Path) -> None:
    disk = make_disk(
        tmp_path, slots="b", snappy_ab="a", snappy_mode="regular", snappy_trial_boot="0"
    )

    told = boot(disk)

    assert (told["snappy_ab"], told["root"], told["ab.trial"]) == ("b", "PARTLABEL=system-b", "0")
    assert environment(disk)["snappy_ab"] == "a"


def test_uefi_starts_the_same_slot(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, snappy_ab="b", snappy_mode="try", snappy_trial_boot="1")

    assert boot(disk, firmware=uefi(tmp_path))["snappy_ab"] == "a"
    assert environment(disk)["snappy_mode"] == "regular"


def uefi(directory: Path) -> list[str | Path]:
    variables = directory / "variables.fd"
    variables.write_bytes(Path("/usr/share/OVMF/OVMF_VARS_4M.fd").read_bytes())
    code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
    ]


@pytest.mark.parametrize("with_uefi", [False, True], ids=["bios", "uefi"])
def test_of_two_disks_in_a_machine_the_one_that_was_started_counts(
    tmp_path: Path, *, with_uefi: bool
) -> None:
    disks = []
    for tag in ("one", "two"):
        (tmp_path / tag).mkdir()
        disks.append(make_disk(tmp_path / tag, tag=f"disk={tag}"))
    firmware = uefi(tmp_path) if with_uefi else None

    assert boot(*disks, firmware=firmware)["disk"] == "two"
    assert boot(*reversed(disks), firmware=firmware)["disk"] == "one"


def test_the_loader_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()

    assert grub_uefi("amd64", scratch=one) == grub_uefi("amd64", scratch=two)

    def bios(scratch: Path, offset: int, partition: int = 2) -> BiosGrub:
        return placed(bios_images(boot_partition=partition, scratch=scratch), offset)

    assert bios(one, 4 * MIB) == bios(two, 4 * MIB)
    assert bios(one, 8 * MIB) != bios(two, 4 * MIB)
    assert bios(one, 4 * MIB, 3) != bios(two, 4 * MIB)


def test_a_package_may_bring_its_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_oem(shipped_folder() / "generic-amd64")
    layout = plan_layout(plain, size=4 << 30, seed=b"")
    expected = make_loader(plain, layout, scratch=tmp_path)
    package = with_loader(plain, scratch=tmp_path)
    assert package.files.keys() > plain.files.keys()

    def missing(*_: object, **__: object) -> bytes:
        raise AssertionError("this machine's GRUB is asked for")

    monkeypatch.setattr(grub, "_mkimage", missing)
    assert make_loader(package, layout, scratch=tmp_path) == expected
    with pytest.raises(CoreImageError, match="unknown form"):
        placed(BiosGrub(boot_sector=b"", core=b""), 4 * MIB)


def test_only_grub_is_brought(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="starts by u-boot"):
        with_loader(load_oem(shipped_folder() / "raspi2"), scratch=tmp_path)


_KILLED = """
import sys, time
from pathlib import Path
from coreimage.flasher.disk.newdisk import new_disk
with new_disk(Path(sys.argv[1]), size=4096) as disk:
    disk.write(b"half", 0)
    print("writing", flush=True)
    time.sleep(600)
"""


def test_killed_while_writing_nothing_is_left(tmp_path: Path) -> None:
    output = tmp_path / "disk.img"
    with start([sys.executable, "-c", _KILLED, output], stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
