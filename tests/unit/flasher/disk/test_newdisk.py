"""New disks: sparse, whole or absent, and nothing overwritten."""

import os
import resource
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError
from coreimage.flasher.disk import newdisk as module
from coreimage.flasher.disk.newdisk import new_disk
from coreimage.lib import run

MIB = 1 << 20
SIZE = 64 * MIB


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def build(output: Path) -> None:
    with new_disk(output, size=SIZE):
        pass


def test_it_has_what_was_written_and_holes(tmp_path: Path) -> None:
    with new_disk(tmp_path / "disk", size=SIZE) as disk:
        disk.write(b"end", SIZE - 3)
        disk.write(b"start", 0)

    found = (tmp_path / "disk").read_bytes()
    assert found == b"start" + bytes(SIZE - 8) + b"end"
    assert (tmp_path / "disk").stat().st_blocks * 512 < MIB


def test_programs_find_it_before_it_has_a_name(tmp_path: Path) -> None:
    with new_disk(tmp_path / "disk", size=SIZE) as disk:
        run.run(["dd", f"of={disk.path}", "conv=notrunc", "seek=1"], data=b"dd")
        assert names(tmp_path) == []

    assert (tmp_path / "disk").read_bytes()[:515] == bytes(512) + b"dd\0"


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
        build(output)

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

    build(Path("disk"))

    assert (tmp_path / "disk").stat().st_size == SIZE


def test_an_output_directory_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoreImageError, match="no directory"):
        build(tmp_path / "absent/disk")


def test_a_size_that_no_file_can_have_there_is_refused(tmp_path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, usual[1]))
    try:
        with pytest.raises(CoreImageError, match=f"cannot have {SIZE} bytes") as raised:
            build(tmp_path / "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "--size" in raised.value.hint

    with (
        pytest.raises(CoreImageError, match="cannot have"),
        new_disk(tmp_path / "disk", size=10**21),
    ):
        pass
    assert names(tmp_path) == []
