"""What a command costs, and tables of it."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COREIMAGE = [sys.executable, "-m", "coreimage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one command cost; `memory` in MiB is that of its largest single process."""

    stage: str
    wall: float
    cpu: float
    memory: float


def measure(stage: str, argv: Sequence[object], *, folder: Path) -> Cost:
    """Run a command with its output in a file and return what it cost."""
    words = [str(word) for word in argv]
    log = os.open(folder / f"{stage.replace(' ', '-')}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    begun = time.monotonic()
    child = os.posix_spawnp(
        words[0],
        words,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
    )
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - begun
    os.close(log)
    if status:
        sys.exit(f"{stage} failed, its output is in {folder}: {' '.join(words)}")
    print(f"  {stage}: {wall:.1f} s", file=sys.stderr, flush=True)
    return Cost(
        stage=stage,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss / 1024,
    )


def summary(runs: Sequence[Sequence[Cost]]) -> list[Cost]:
    """Return the median of each stage over the runs."""
    return [
        Cost(
            stage=costs[0].stage,
            wall=statistics.median(each.wall for each in costs),
            cpu=statistics.median(each.cpu for each in costs),
            memory=statistics.median(each.memory for each in costs),
        )
        for costs in zip(*runs, strict=True)
    ]


def print_table(head: str, costs: Sequence[Cost], *, runs: int) -> None:
    """Print medians as a table; `head` says what a row is."""
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, medians of {runs} run(s)\n")
    print(f"| {head} | wall, s | CPU, s | memory of the largest process, MiB |")
    print("|---|---:|---:|---:|")
    for each in costs:
        print(f"| {each.stage} | {each.wall:.1f} | {each.cpu:.1f} | {each.memory:.0f} |")
