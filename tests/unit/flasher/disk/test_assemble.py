"""Assembly: sparse, whole or absent, and nothing overwritten."""

import os
import stat
from pathlib import Path
from uuid import UUID

import pytest

from coreimage.errors import CoreImageError, DataError
from coreimage.flasher.disk import assemble as module
from coreimage.flasher.disk.assemble import assemble
from coreimage.flasher.disk.layout import BIOS_BOOT, LINUX_DATA, Layout, Partition
from coreimage.flasher.disk.plan import Piece, table_pieces
from coreimage.lib.progress import Silent

MIB = 1 << 20
LAYOUT = Layout(
    size=64 * MIB,
    disk_guid=UUID(int=1),
    partitions=[
        Partition(name="grub", type_guid=BIOS_BOOT, guid=UUID(int=2), start=MIB, size=MIB),
        Partition(name="a", type_guid=LINUX_DATA, guid=UUID(int=3), start=2 * MIB, size=8 * MIB),
        Partition(name="b", type_guid=LINUX_DATA, guid=UUID(int=4), start=10 * MIB, size=50 * MIB),
    ],
)
CODE = Piece(name="code", offset=0, data=b"B" * 440)
BOOT = [*table_pieces(LAYOUT), CODE, Piece(name="core", offset=MIB, data=b"C" * 1024)]


def image(path: Path, size: int, pieces: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
    return path


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def build(output: Path, images: dict[str, Path], pieces: list[Piece] = BOOT) -> None:
    assemble(LAYOUT, images=images, pieces=pieces, output=output, progress=Silent())


def test_everything_lies_where_the_table_says(tmp_path: Path) -> None:
    pieces = {0: b"start", 3 * MIB + 17: b"middle", 8 * MIB - 3: b"end"}
    one = image(tmp_path / "one", 8 * MIB, pieces)
    two = image(tmp_path / "two", 12345, {12340: b"short"})

    build(tmp_path / "disk", {"a": one, "b": two})

    disk = (tmp_path / "disk").read_bytes()
    assert len(disk) == LAYOUT.size
    assert disk[2 * MIB : 10 * MIB] == one.read_bytes()
    assert disk[10 * MIB : 10 * MIB + 12345] == two.read_bytes()
    assert disk[:440] == b"B" * 440
    assert disk[440 : 34 * 512] == table_pieces(LAYOUT)[0].data[440:]
    assert disk[MIB : MIB + 1025] == b"C" * 1024 + b"\0"


def test_zeros_become_holes(tmp_path: Path) -> None:
    full = image(tmp_path / "full", 50 * MIB, {0: bytes(50 * MIB), 20 * MIB: b"x" * 65536})

    build(tmp_path / "disk", {"b": full})

    assert (tmp_path / "disk").stat().st_blocks * 512 < MIB
    assert (tmp_path / "disk").read_bytes()[10 * MIB : 60 * MIB] == full.read_bytes()


def test_without_a_boot_loader_the_boot_sector_is_empty(tmp_path: Path) -> None:
    build(tmp_path / "disk", {}, pieces=table_pieces(LAYOUT))

    assert (tmp_path / "disk").read_bytes()[:440] == bytes(440)


def test_the_mode_is_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        build(tmp_path / "disk", {})
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "disk").stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_an_existing_output_is_never_touched(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "disk"
    if kind == "file":
        output.write_bytes(b"precious")
    elif kind == "symlink":
        output.symlink_to("nowhere")
    else:
        output.mkdir()
    before = output.lstat()

    with pytest.raises(CoreImageError, match="exists and is not overwritten"):
        build(output, {})

    assert output.lstat().st_ino == before.st_ino
    assert names(tmp_path) == ["disk"]


def test_an_output_that_appears_meanwhile_is_not_touched(tmp_path: Path) -> None:
    output = tmp_path / "disk"

    def write_while_another_finishes() -> None:
        with module._unnamed(output):
            output.write_bytes(b"precious")

    with pytest.raises(CoreImageError, match="exists and is not overwritten"):
        write_while_another_finishes()

    assert output.read_bytes() == b"precious"
    assert names(tmp_path) == ["disk"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def fail() -> None:
        with module._unnamed(tmp_path / "out/disk") as descriptor:
            os.write(descriptor, b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert names(tmp_path / "out") == []


def test_nothing_has_a_name_while_it_is_written(tmp_path: Path) -> None:
    with module._unnamed(tmp_path / "disk") as descriptor:
        os.write(descriptor, b"half")
        during = names(tmp_path)

    assert during == []
    assert (tmp_path / "disk").read_bytes() == b"half"


def test_where_files_need_a_name_the_result_is_the_same(tmp_path: Path) -> None:
    with module._in_scratch(tmp_path / "disk") as descriptor:
        os.write(descriptor, b"whole")
        assert not (tmp_path / "disk").exists()

    assert (tmp_path / "disk").read_bytes() == b"whole"
    assert names(tmp_path) == ["disk"]


def test_a_relative_output_is_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    build(Path("disk"), {})

    assert (tmp_path / "disk").stat().st_size == LAYOUT.size


def test_an_output_directory_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoreImageError, match="no directory"):
        build(tmp_path / "absent/disk", {})


def test_images_must_fit_their_partitions(tmp_path: Path) -> None:
    large = image(tmp_path / "large", 8 * MIB + 1, {})

    with pytest.raises(DataError, match="'a' has 8388609 bytes"):
        build(tmp_path / "disk", {"a": large})


def test_an_image_without_a_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no partition 'c'"):
        build(tmp_path / "disk", {"c": image(tmp_path / "c", 1, {})})
