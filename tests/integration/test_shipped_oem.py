"""A disk of every shipped OEM package, and what readers that are not ours say of it."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dissect.extfs import ExtFS
from dissect.fat import FATFS
from dissect.volume import disk as dissect_disk

from coreimage.boottest.disk import DiskFacts, look_at
from coreimage.config import Workspace
from coreimage.flasher.flash import flash
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import FlashPlan, planned
from coreimage.flasher.remote.connect import Place
from coreimage.lib.progress import Silent
from coreimage.lib.run import run
from coreimage.systemimage.operations import channels
from tests.integration import channel_tree
from tests.integration.channel_tree import NOW

UBOOT = (
    b"kernel: assets/vmlinuz\ninitrd: assets/initrd.img\nbootloader: u-boot\ndtbs: assets/dtbs\n"
)
TREES = {"assets/dtbs/bcm2836-rpi-2-b.dtb": b"tree", "assets/dtbs/overlays/x.dtbo": b"overlay"}
LARGE = """\
name: large-sectors
version: "1"
oem:
  hardware:
    bootloader: grub
    architecture: amd64
    boot-assets:
      raw-partitions: [{name: firmware, size: 2M, path: blob}]
      raw-files: [{path: blob, offset: 1M}]
    disk: {sector-size: 4096, system-size: 512M}
"""
PACKAGES = ("generic-amd64", "generic-i386", "generic-arm64", "raspi2", "large-sectors")
FAT_TIME = 1_767_225_600


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, tuple[Path, FlashPlan]]]:
    home = tmp_path_factory.mktemp("oem")
    workspace = channel_tree.make_workspace(home / "workspace")
    channels.create_channel(workspace, "debian-core/13/boards", now=NOW)
    for arch in ("amd64", "i386", "arm64"):
        channel_tree.publish(
            workspace, 1, channel="debian-core/13/boards", device=f"generic_{arch}"
        )
    files = {**channel_tree.DEVICE_FILES, **TREES, "hardware.yaml": UBOOT}
    channel_tree.publish(
        workspace, 1, channel="debian-core/13/boards", device="generic_armhf", device_files=files
    )
    (home / "large-sectors/meta").mkdir(parents=True)
    (home / "large-sectors/meta/package.yaml").write_text(LARGE)
    (home / "large-sectors/blob").write_bytes(b"firmware")
    yield {name: make(workspace, home, name) for name in PACKAGES}
    shutil.rmtree(home)


def make(workspace: Workspace, home: Path, name: str) -> tuple[Path, FlashPlan]:
    options = FlashOptions(
        release="13",
        channel="boards",
        output=home / f"{name}.img",
        oem=name,
        oem_folders=[home, shipped_folder()],
    )
    place = Place(
        servers=[str(workspace.channel_tree)],
        archive_master=workspace.archive_master,
        cache=home / "cache",
        scratch=home / "scratch",
    )
    with planned(options, place, progress=Silent(), now=NOW) as job:
        flash(job, progress=Silent())
        return options.output, job.plan


def slice_of(disk: Path, plan: FlashPlan, name: str, target: Path) -> Path:
    """Copy a partition into a file of its own; what is zero becomes a hole."""
    part = plan.layout.partition(name)
    run(
        [
            *("dd", f"if={disk}", f"of={target}", "bs=1M", "conv=sparse"),
            *(f"skip={part.start >> 20}", f"count={part.size >> 20}"),
        ]
    )
    os.truncate(target, part.size)
    return target


@pytest.mark.parametrize("name", PACKAGES)
def test_partitioning_tools_agree_about_the_table(
    made: Mapping[str, tuple[Path, FlashPlan]], name: str
) -> None:
    disk, plan = made[name]
    layout, sector = plan.layout, plan.layout.sector_size
    columns = ["--list", "--output", "Start,Sectors", "--sector-size", str(sector)]
    told = run(["fdisk", *columns, disk]).stdout.decode().split("\n\n")[-1]
    numbers = [line.split() for line in told.splitlines() if line.strip()[:1].isdecimal()]
    assert [(int(start) * sector, int(size) * sector) for start, size in numbers] == [
        (each.start, each.size) for each in layout.partitions
    ]
    if sector == 512:  # sfdisk and sgdisk take every file for one of 512
        table = json.loads(run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
        assert (table["label"] == "gpt") == (layout.table == "gpt")
        assert b"No errors detected" in run(["sfdisk", "--verify", disk]).stdout
    if layout.table == "gpt" and sector == 512:
        assert b"No problems found" in run(["sgdisk", "--verify", disk]).stdout
    with disk.open("rb") as file:
        other = dissect_disk.Disk(file, sector_size=sector)
        # This reader leaves out the last sector of what a GPT has.
        less = sector if layout.table == "gpt" else 0
        assert [(each.offset, each.size) for each in other.partitions] == [
            (each.start, each.size - less) for each in layout.partitions
        ]
        if layout.table == "gpt":
            names = [each.name for each in other.partitions]
            assert names == [each.name for each in layout.partitions]


@pytest.mark.parametrize("name", PACKAGES)
def test_file_systems_are_without_faults(
    made: Mapping[str, tuple[Path, FlashPlan]], name: str, tmp_path: Path
) -> None:
    disk, plan = made[name]
    for part in ("system-a", "writable"):
        run(["e2fsck", "-fn", f"{disk}?offset={plan.layout.partition(part).start}"])
    boot = slice_of(disk, plan, "system-boot", tmp_path / "boot.img")
    checked = run(["fsck.fat", "-n", "-v", boot]).stdout.decode()
    assert "FAT32" in checked or "32 bit" in checked or "Using 32-bit FAT" in checked, checked


def read_fat(disk: Path, plan: FlashPlan, path: str) -> bytes:
    with disk.open("rb") as file:
        found = dissect_disk.Disk(file, sector_size=plan.layout.sector_size)
        number = plan.layout.number("system-boot") - 1
        content: Any = FATFS(found.partitions[number].open()).get(path)
        return bytes(content.open().read())


def read_ext(disk: Path, plan: FlashPlan, part: str, path: str) -> bytes:
    with disk.open("rb") as file:
        found = dissect_disk.Disk(file, sector_size=plan.layout.sector_size)
        content: Any = ExtFS(found.partitions[plan.layout.number(part) - 1].open()).get(path)
        return bytes(content.open().read())


@pytest.mark.parametrize("name", PACKAGES)
def test_another_reader_finds_the_files(
    made: Mapping[str, tuple[Path, FlashPlan]], name: str
) -> None:
    disk, plan = made[name]
    home = "a" if name == "raspi2" else "EFI/ubuntu/grub/a"
    kernel = channel_tree.DEVICE_FILES["assets/vmlinuz"]
    assert read_fat(disk, plan, f"{home}/vmlinuz") == kernel
    assert read_ext(disk, plan, "system-a", "etc/hostname") == b"core\n"
    oem = read_ext(disk, plan, "writable", f"oem/{name}/{plan.oem.info.version}/meta/package.yaml")
    assert oem == plan.oem.files["meta/package.yaml"].content


def test_each_architecture_has_its_loader(made: Mapping[str, tuple[Path, FlashPlan]]) -> None:
    for name, loader, machine in (
        ("generic-amd64", "EFI/BOOT/BOOTX64.EFI", 0x8664),
        ("generic-i386", "EFI/BOOT/BOOTIA32.EFI", 0x14C),
        ("generic-arm64", "EFI/BOOT/BOOTAA64.EFI", 0xAA64),
    ):
        program = read_fat(*made[name], loader)
        header = int.from_bytes(program[0x3C:0x40], "little")
        assert program[header : header + 4] == b"PE\0\0"
        assert int.from_bytes(program[header + 4 : header + 6], "little") == machine
        with made[name][0].open("rb") as file:
            assert any(file.read(440)) == (name != "generic-arm64")


def test_the_u_boot_board_has_what_its_scripts_name(
    made: Mapping[str, tuple[Path, FlashPlan]],
) -> None:
    disk, plan = made["raspi2"]
    assert read_fat(disk, plan, "a/dtbs/bcm2836-rpi-2-b.dtb") == b"tree"
    assert read_fat(disk, plan, "a/dtbs/overlays/x.dtbo") == b"overlay"
    assert b"kernel=u-boot.bin" in read_fat(disk, plan, "config.txt")
    system = read_fat(disk, plan, "snappy-system.txt").decode()
    assert "snappy_fdtfile=bcm2836-rpi-2-b.dtb\n" in system
    identity = run(["sfdisk", "--disk-id", disk]).stdout.decode().strip()
    assert f"snappy_root_a=PARTUUID={identity.removeprefix('0x')}-02\n" in system


def test_raw_files_lie_on_the_disk_itself(made: Mapping[str, tuple[Path, FlashPlan]]) -> None:
    disk, plan = made["large-sectors"]
    with disk.open("rb") as file:
        assert os.pread(file.fileno(), 9, 1 << 20) == b"firmware\0"
        start = plan.layout.partition("firmware").start
        assert os.pread(file.fileno(), 9, start) == b"firmware\0"


def test_a_disk_tells_which_machine_runs_it(made: Mapping[str, tuple[Path, FlashPlan]]) -> None:
    expected = {
        "generic-amd64": DiskFacts(),
        "generic-i386": DiskFacts(arch="i386"),
        "generic-arm64": DiskFacts(arch="arm64"),
        "raspi2": DiskFacts(arch="armhf", uboot=True),
        "large-sectors": DiskFacts(sector_size=4096),
    }
    assert {name: look_at(disk) for name, (disk, _) in made.items()} == expected
