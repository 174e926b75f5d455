"""Where many files come to lie that are soon removed again: in memory, when there is plenty.

Making, replacing and removing the 20,000 files of a tree costs a disk's file system, and its
journal, several times what it costs a tmpfs.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108  what is made in it is private, and checked to be
# All that is left over may not be taken: others, and the programs that run meanwhile, need some.
_SHARE = 2
_NAMED_BY_USER = ("TMPDIR", "TEMP", "TMP")


def temporary_place(needed: int, *, usual: Path | None = None) -> Path:
    """Return the directory for temporary files of `needed` bytes.

    It is TMPDIR when that is set; else a tmpfs that allows programs, when half of the memory that
    is left would do; else `usual`, or the usual directory, on a disk on most machines.
    """
    named = any(os.environ.get(name) for name in _NAMED_BY_USER)
    if not named and _may_run_programs(_MEMORY, needed) and needed * _SHARE <= available_memory():
        return _MEMORY
    return Path(tempfile.gettempdir()) if named or usual is None else usual


def temporary_places() -> list[Path]:
    """Return all that `temporary_place` may choose from: what was killed has left things there."""
    usual = Path(tempfile.gettempdir())
    return [usual, _MEMORY] if _MEMORY.is_dir() and usual != _MEMORY else [usual]


def _may_run_programs(place: Path, needed: int) -> bool:
    """Tell whether we may write into a place, whether it has room, and programs run from there."""
    try:
        state = os.statvfs(place)
    except OSError:
        return False
    free = state.f_bavail * state.f_frsize
    return free >= needed and not state.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK)


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes of memory are left for us, by the kernel and by our control groups.

    Source: proc(5), "Memory Interface Files" of the kernel's cgroup-v2 documentation, and for
    version 1 its cgroup-v1/memory documentation. Where nothing can be read, none is left.
    """
    try:
        information = (proc / "meminfo").read_text()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in information.splitlines() if ":" in line)
    left = int(fields.get("MemAvailable", "0").split()[0]) * 1024
    return max(0, min([left, *_left_by_groups(proc, cgroups)]))


def _left_by_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            base, limit, usage = cgroups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base = cgroups / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        place = base / name.lstrip("/")
        # In a container the path may be that of the host.
        for group in (place, *place.parents):
            if not group.is_relative_to(base):
                break
            most, used = (_number(group / each) for each in (limit, usage))
            if most is not None and used is not None:
                yield most - used


def _number(path: Path) -> int | None:
    """Return the number in a file; None when there is none, as in "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
