"""What a disk becomes: block maps, other formats, compressed files, cards."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError, UsageError
from coreimage.flasher.flash import flash
from coreimage.flasher.local import LocalWish
from coreimage.flasher.media.card import write_card
from coreimage.flasher.media.formats import Format, as_raw, bmap_path, form_of
from coreimage.flasher.media.ranges import Range, required_ranges
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions, Medium
from coreimage.flasher.plan import FlashPlan, planned
from coreimage.flasher.remote.connect import Place
from coreimage.lib.progress import Silent
from coreimage.lib.run import run
from tests.integration.channel_tree import NOW
from tests.integration.test_flash_local import build
from tests.support.disks import digest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("media")
    build(folder / "build")
    make(folder, "plain.img", bmap=True)
    yield folder
    shutil.rmtree(folder)


def make(home: Path, name: str, *, bmap: bool = False, oem: str = "generic-amd64") -> FlashPlan:
    options = FlashOptions(
        release="",
        channel="edge",
        output=home / name,
        oem=oem,
        oem_folders=[shipped_folder()],
        local=LocalWish(rootfs=str(home / "build")),
        medium=Medium(form=form_of(home / name, None), bmap=bmap),
    )
    place = Place(
        servers=[], archive_master=home / "none", cache=home / "cache", scratch=home / "scratch"
    )
    with planned(options, place, progress=Silent(), now=NOW) as job:
        flash(job, progress=Silent())
        return job.plan


def test_bmaptool_accepts_the_map_and_writes_the_same_disk(home: Path, tmp_path: Path) -> None:
    disk = home / "plain.img"
    target = tmp_path / "card.img"
    run(["bmaptool", "copy", "--bmap", bmap_path(disk), disk, target])
    assert digest(target) == digest(disk)
    with disk.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"!")
    try:
        damaged = run(["bmaptool", "copy", disk, tmp_path / "x.img"], check=False)
        assert damaged.status != 0
    finally:
        with disk.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"\0")


@pytest.mark.parametrize(
    "name",
    [
        "x.qcow2",
        "x.vmdk",
        pytest.param("x.vhdx", marks=pytest.mark.long),
        "x.img.zst",
        pytest.param("x.img.xz", marks=pytest.mark.long),
    ],
)
def test_every_form_holds_the_same_disk(home: Path, tmp_path: Path, name: str) -> None:
    make(home, name)
    with as_raw(home / name, scratch=tmp_path) as raw:
        assert digest(raw) == digest(home / "plain.img")
    if not name.endswith((".zst", ".xz")):
        run(["qemu-img", "compare", home / name, home / "plain.img"])
    assert (home / name).stat().st_blocks * 512 < 100 << 20
    with pytest.raises(CoreImageError, match="not overwritten"):
        make(home, name)
    assert not list(home.glob(".scratch-*"))
    (home / name).unlink()


@pytest.mark.long
def test_compressed_images_are_reproducible_and_have_a_map(home: Path) -> None:
    make(home, "one.img.zst", bmap=True)
    make(home, "two.img.zst")
    assert (home / "one.img.zst").read_bytes() == (home / "two.img.zst").read_bytes()
    assert (home / "one.img.bmap").read_bytes() == (home / "plain.img.bmap").read_bytes()


def test_what_must_be_written_makes_a_disk_of_any_card(home: Path, tmp_path: Path) -> None:
    """On a card there is what was there before: no file system may see any of it."""
    disk, target = home / "plain.img", tmp_path / "card"
    plan = make(home, "again.img")
    ranges = required_ranges(disk, plan.layout, filled=["system-boot", "system-a", "writable"])
    fill(target, plan.layout.size, ranges)
    write_card(disk, target, ranges, exclusive=False, progress=Silent())
    run(["sgdisk", "--verify", target])
    for name in ("system-a", "writable"):
        run(["e2fsck", "-fn", f"{target}?offset={plan.layout.partition(name).start}"])
    boot = plan.layout.partition("system-boot")
    with target.open("rb") as file, (tmp_path / "boot.img").open("wb") as image:
        file.seek(boot.start)
        image.write(file.read(boot.size))
    run(["fsck.fat", "-n", tmp_path / "boot.img"])
    # What is required is little more than what the image holds.
    required = sum(each.end - each.start for each in ranges)
    assert required < 160 << 20


def fill(target: Path, size: int, ranges: list[Range]) -> None:
    """Make a card that was used: not one of the bytes around what is written is zero."""
    noise = os.urandom(1 << 20)
    with target.open("wb") as file:
        file.truncate(size)
        for each in ranges:
            for start in (max(0, each.start - len(noise)), each.end - len(noise), each.end):
                file.seek(max(0, start))
                file.write(noise[: max(0, size - max(0, start))])


def test_names_say_the_form_and_contradictions_are_refused() -> None:
    assert form_of(Path("x.img"), None).plain
    assert form_of(Path("x.qcow2"), None).format is Format.QCOW2
    assert form_of(Path("x.disk"), Format.VHDX).format is Format.VHDX
    assert form_of(Path("x.img.xz"), Format.RAW).compression == "xz"
    with pytest.raises(UsageError, match="compressed qcow2"):
        form_of(Path("x.img.xz"), Format.QCOW2)
    assert bmap_path(Path("x.img.zst")) == bmap_path(Path("x.img")) == Path("x.img.bmap")


def test_the_command_refuses_what_is_no_card(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv: list[str | Path] = [sys.executable, "-m", "coreimage", "flash", "core"]
    argv += ["--rootfs", home / "build"]
    refused = run([*argv, "--write", tmp_path / "file"], cwd=tmp_path, check=False)
    assert refused.status == 65
    assert b"not a block device" in refused.stderr
    both = run([*argv, "--write", "/dev/x", "-o", "x.img"], cwd=tmp_path, check=False)
    assert both.status == 2
