"""Where trees are unpacked, and that nothing of them stays."""

import errno
from pathlib import Path

import pytest

from coreimage.errors import RightsError
from coreimage.flasher.tree.room import made_in_room
from coreimage.lib import temporary
from coreimage.lib.progress import Silent
from coreimage.lib.temporary import temporary_place


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A disk, and another place that is preferred to it."""
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    disk.mkdir()
    memory.mkdir()
    monkeypatch.setenv("TMPDIR", str(memory))
    monkeypatch.setattr("tempfile.tempdir", None)
    return disk, memory


def fill(room: Path) -> Path:
    assert list(room.iterdir()) == []
    (room / "file").write_text("x")
    return room / "file"


def test_it_is_where_temporary_files_go_and_is_removed(places: tuple[Path, Path]) -> None:
    disk, memory = places
    with made_in_room(fill, 1, scratch=disk, progress=Silent()) as file:
        assert file.is_relative_to(memory)
        assert file.read_text() == "x"
        assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [*memory.rglob("file"), *disk.iterdir()] == []


def test_where_memory_does_not_suffice_it_is_made_on_the_disk(places: tuple[Path, Path]) -> None:
    disk, memory = places

    def make(room: Path) -> Path:
        file = fill(room)
        if room.is_relative_to(memory):
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    with made_in_room(make, 1, scratch=disk, progress=Silent()) as file:
        assert file.is_relative_to(disk)
        assert list(memory.rglob("file")) == []
    assert list(disk.iterdir()) == []


def test_other_faults_are_not_tried_again(places: tuple[Path, Path]) -> None:
    disk, _ = places
    tries = []

    def make(room: Path) -> Path:
        tries.append(room)
        raise OSError(errno.EIO, "Input/output error")

    with (
        pytest.raises(OSError, match="Input/output"),
        made_in_room(make, 1, scratch=disk, progress=Silent()),
    ):
        pass
    assert len(tries) == 1


def test_what_killed_runs_left_is_removed(places: tuple[Path, Path]) -> None:
    disk, memory = places
    with made_in_room(fill, 1, scratch=disk, progress=Silent()) as file:
        parent = file.parent.parent
        left = parent / f"{file.parent.name[:-4]}dead"
        left.mkdir()
    with made_in_room(fill, 1, scratch=disk, progress=Silent()):
        assert not left.exists()
    assert list(parent.iterdir()) == []
    assert parent.is_relative_to(memory)


def test_a_place_of_somebody_else_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    disk, memory = places
    with made_in_room(fill, 1, scratch=disk, progress=Silent()) as file:
        parent = file.parent.parent
    parent.rmdir()
    parent.symlink_to(tmp_path)
    with (
        pytest.raises(RightsError, match="is not ours"),
        made_in_room(fill, 1, scratch=disk, progress=Silent()),
    ):
        pass
    assert memory.is_dir()


def test_without_a_wish_of_the_users_large_trees_stay_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    more = 2 * temporary.available_memory() + 1
    assert temporary_place(more, usual=tmp_path) == tmp_path
