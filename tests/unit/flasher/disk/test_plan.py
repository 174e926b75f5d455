"""From an OEM package to a disk: what its fields mean, and what cannot be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from coreimage.errors import DataError
from coreimage.flasher.disk.grub import BiosGrub
from coreimage.flasher.disk.layout import LINUX_DATA, Layout, Table
from coreimage.flasher.disk.loader import bios_pieces, slot_directory
from coreimage.flasher.disk.plan import plan_layout, raw_pieces, table_pieces
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.oem.package import OemPackage, load_oem

MIB = 1 << 20
SIZE = 4_000_000_000


def board(
    folder: Path,
    *,
    loader: str = "u-boot",
    arch: str = "armhf",
    **hardware: Any,
) -> OemPackage:
    if "assets" in hardware:
        hardware["boot-assets"] = hardware.pop("assets")
    document = {
        "name": "board",
        "version": "1",
        "oem": {"hardware": {"bootloader": loader, "architecture": arch, **hardware}},
    }
    (folder / "meta").mkdir()
    (folder / "meta/package.yaml").write_text(yaml.safe_dump(document))
    (folder / "loader").write_bytes(b"L" * 1000)
    return load_oem(folder)


def layout_of(oem: OemPackage, *, size: int = SIZE) -> Layout:
    return plan_layout(oem, size=size, seed=b"seed")


def raw(offset: object, path: str = "loader") -> dict[str, object]:
    return {"path": path, "offset": offset}


@pytest.mark.parametrize(
    ("name", "table", "partitions"),
    [
        ("generic-amd64", Table.GPT, ["grub", "system-boot"]),
        ("generic-i386", Table.GPT, ["grub", "system-boot"]),
        ("generic-arm64", Table.GPT, ["system-boot"]),
        ("raspi2", Table.MBR, ["system-boot"]),
    ],
)
def test_the_shipped_packages_divide_the_disk(
    name: str, table: Table, partitions: list[str]
) -> None:
    oem = load_oem(shipped_folder() / name)
    layout = layout_of(oem)
    assert oem.info.name == name
    assert layout.table is table
    found = [each.name for each in layout.partitions]
    assert found == [*partitions, "system-a", "system-b", "writable"]
    assert layout.partitions[0].start == 8192 * 512


def test_every_shipped_package_is_tried() -> None:
    assert {path.name for path in shipped_folder().iterdir()} == {
        "generic-amd64",
        "generic-i386",
        "generic-arm64",
        "raspi2",
    }


def test_the_kernel_is_told_the_partition_and_not_its_content(tmp_path: Path) -> None:
    layout = layout_of(board(tmp_path))
    assert layout.root("a") == f"PARTUUID={layout.mbr_signature:08x}-02"
    assert layout.root("b") == f"PARTUUID={layout.mbr_signature:08x}-03"
    gpt = layout_of(load_oem(shipped_folder() / "generic-amd64"))
    assert gpt.root("b") == "PARTLABEL=system-b"


def test_sizes_and_sectors_follow_the_package(tmp_path: Path) -> None:
    disk = {"table": "gpt", "sector-size": 4096, "system-size": "512M", "boot-size": "300M"}
    layout = layout_of(board(tmp_path, loader="grub", arch="amd64", disk=disk))
    assert layout.size == SIZE // 4096 * 4096
    sizes = {each.name: each.size // MIB for each in layout.partitions}
    # A BIOS does not start a disk of such sectors, so there is nothing for one.
    assert sizes == {"system-boot": 300, "system-a": 512, "system-b": 512, "writable": 2486}
    assert all(each.start % 4096 == 0 for each in layout.partitions)


def test_raw_partitions_come_first_and_keep_their_types(tmp_path: Path) -> None:
    kind = "dea0ba2c-cbdd-4805-b4f9-f428251c3e98"
    partitions = [
        {"name": "sbl1", "size": "1000K", "type": kind, "path": "loader"},
        {"name": "boot0", "size": "2M"},
    ]
    oem = board(tmp_path, disk={"table": "gpt"}, assets={"raw-partitions": partitions})
    first, second, third = layout_of(oem).partitions[:3]
    assert (first.name, str(first.type_guid), first.size) == ("sbl1", kind, 1000 << 10)
    assert (second.name, second.type_guid) == ("boot0", LINUX_DATA)
    assert (first.start // MIB, second.start // MIB, third.start // MIB) == (4, 5, 7)
    assert oem.partition_contents() == {"sbl1": b"L" * 1000}


@pytest.mark.parametrize(
    ("hardware", "says"),
    [
        ({"loader": "grub", "arch": "amd64", "disk": {"table": "mbr"}}, "GRUB needs"),
        ({"assets": {"raw-partitions": [{"name": "x", "size": "1M"}]}}, "room for 4"),
        (
            {"assets": {"raw-partitions": [{"name": "x", "size": "1M", "type": "0" * 32}]}},
            "none of a mbr",
        ),
        (
            {
                "disk": {"table": "gpt"},
                "assets": {"raw-partitions": [{"name": "x", "size": "1M", "type": "83"}]},
            },
            "none of a gpt",
        ),
        (
            {
                "disk": {"table": "gpt"},
                "assets": {"raw-partitions": [{"name": "writable", "size": "1M"}]},
            },
            "same name",
        ),
        ({"disk": {"system-size": "2G"}}, "no room"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, hardware: dict[str, Any], says: str) -> None:
    oem = board(tmp_path, **hardware)
    with pytest.raises(DataError, match=says):
        table_pieces(layout_of(oem))


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_raw_files_lie_where_nothing_else_does(tmp_path: Path, table: str) -> None:
    files = [raw("128K"), raw(393216)]
    oem = board(tmp_path, disk={"table": table}, assets={"raw-files": files})
    pieces = raw_pieces(oem, layout_of(oem), boot_code=False)
    assert [(each.offset, len(each.data)) for each in pieces] == [(128 << 10, 1000), (393216, 1000)]


@pytest.mark.parametrize(
    ("table", "offsets", "over"),
    [
        ("gpt", [8192], "the partition table"),
        ("gpt", [0], "the partition table"),
        ("mbr", [0], "the partition table"),
        ("gpt", [SIZE - 16384], "the second partition table"),
        ("mbr", [SIZE - 999], "behind the disk"),
        ("mbr", ["4M"], "partition 'system-boot'"),
        ("mbr", [(4 << 20) - 999], "partition 'system-boot'"),
        ("mbr", ["2G"], "partition 'system-b'"),
        ("mbr", [512, 1511], "raw file 'loader'"),
    ],
)
def test_raw_files_over_something_are_refused(
    tmp_path: Path, table: str, offsets: list[object], over: str
) -> None:
    assets = {"raw-files": [raw(offset) for offset in offsets]}
    oem = board(tmp_path, disk={"table": table}, assets=assets)
    with pytest.raises(DataError, match=over):
        raw_pieces(oem, layout_of(oem), boot_code=False)


def test_raw_files_may_lie_behind_an_mbr_and_in_raw_partitions(tmp_path: Path) -> None:
    partitions = [{"name": "spl", "size": "1M", "path": "loader"}]
    assets = {"raw-partitions": partitions, "raw-files": [raw((4 << 20) + 1000), raw("16K")]}
    oem = board(tmp_path, disk={"table": "gpt"}, assets=assets)
    with pytest.raises(DataError, match="the partition table"):  # 16 KiB and 33 sectors
        raw_pieces(oem, layout_of(oem), boot_code=False)
    (tmp_path / "x").mkdir()
    oem = board(tmp_path / "x", assets={"raw-files": [raw(512), raw("8K")]})
    assert len(raw_pieces(oem, layout_of(oem), boot_code=False)) == 2


def test_the_first_bytes_belong_to_the_boot_loader_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"S" * 440)
    oem = board(tmp_path, assets={"raw-files": [raw(0, "short")]})
    assert raw_pieces(oem, layout_of(oem), boot_code=False)[0].end == 440
    with pytest.raises(DataError, match="the partition table"):
        raw_pieces(oem, layout_of(oem), boot_code=True)


def test_grub_must_fit_its_partition() -> None:
    layout = layout_of(load_oem(shipped_folder() / "generic-amd64"))
    large = BiosGrub(boot_sector=bytes(440), core=bytes((4 << 20) + 1))
    with pytest.raises(DataError, match="GRUB has 4194305 bytes"):
        bios_pieces(large, layout)


def test_slots_lie_where_their_boot_loader_looks() -> None:
    assert slot_directory("grub", "a") == "EFI/ubuntu/grub/a"
    assert slot_directory("u-boot", "b") == "b"
    with pytest.raises(DataError, match="'lilo'"):
        slot_directory("lilo", "a")
