import os
from pathlib import Path

import pytest

from coreimage.lib import temporary

GIB = 1 << 30


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(temporary, "_MEMORY", place)
    monkeypatch.setattr(temporary, "available_memory", lambda: 4 * GIB)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    return place


def test_in_memory_when_half_of_it_would_do(memory: Path, tmp_path: Path) -> None:
    assert temporary.temporary_place(2 * GIB) == memory
    assert temporary.temporary_place(2 * GIB + 1) == tmp_path
    assert temporary.temporary_places() == [tmp_path, memory]


def test_what_the_user_names_is_used(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert memory.is_dir()
    assert temporary.temporary_place(1) == tmp_path


def test_not_where_programs_do_not_run_or_there_is_no_room(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(memory)

    class State:
        f_bavail, f_frsize, f_flag = found.f_bavail, found.f_frsize, os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda _: State)
    assert temporary.temporary_place(1) == tmp_path
    State.f_flag = 0
    assert temporary.temporary_place(1) == memory
    State.f_bavail = 0
    assert temporary.temporary_place(1) == tmp_path


def test_a_machine_without_such_a_place(memory: Path, tmp_path: Path) -> None:
    memory.rmdir()
    assert temporary.temporary_place(1) == tmp_path
    assert temporary.temporary_places() == [tmp_path]


def machine(tmp_path: Path, groups: str) -> tuple[Path, Path]:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 500 kB\n\n")
    (proc / "self/cgroup").write_text(groups)
    return proc, cgroups


def limit(group: Path, most: str, used: str, *, names: tuple[str, str]) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / names[0]).write_text(most)
    (group / names[1]).write_text(used)


def test_the_kernel_says_what_is_left(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "0::/\n")
    assert temporary.available_memory(proc, cgroups) == 500 << 10
    (proc / "self/cgroup").unlink()
    assert temporary.available_memory(proc, cgroups) == 500 << 10
    (proc / "meminfo").unlink()
    assert temporary.available_memory(proc, cgroups) == 0


def test_groups_may_leave_less(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "3:cpu:/a\n0::/user/session\n")
    names = ("memory.max", "memory.current")
    limit(cgroups / "user/session", "max\n", "1\n", names=names)
    limit(cgroups / "user", "300000\n", "100000\n", names=names)
    assert temporary.available_memory(proc, cgroups) == 200_000
    limit(cgroups, "90000\n", "100000\n", names=names)
    assert temporary.available_memory(proc, cgroups) == 0


def test_groups_of_the_first_version_too(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "3:cpu,memory:/docker/1\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limit(cgroups / "memory", "400000\n", "100000\n", names=names)
    assert temporary.available_memory(proc, cgroups) == 300_000
