"""Killed in any stage and run again: nothing half-done is visible, nothing is left behind."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.system.conftest import Road

pytestmark = pytest.mark.system

# A line of progress that begins each stage, and how far into it the signal comes, in seconds.
STAGES = [
    ("Looking for changes", 1.0),
    ("Building the root filesystem", 9.0),
    ("Publishing", 0.05),
    ("Importing", 1.5),
    ("Downloading and setting up", 1.0),
    ("Installing", 0.8),
]


def kill_in_stage(road: Road, title: str, delay: float, number: signal.Signals) -> int:
    """Run the pipeline, signal it in a stage, and return its return code."""
    words = ["pipeline", "run", "debian-core", "--release", "13", "--output", road.disk]
    with road.product.started(*words, "--force", "--workspace", road.workspace) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if title in line.decode():
                break
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        time.sleep(delay)
        process.send_signal(number)
        status = process.wait(60)
        rest.join()
    return status


def processes_in(folder: Path) -> list[str]:
    """Return the processes that work in a folder or were told of it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        if int(place.name) == os.getpid():
            continue
        try:
            told = (place / "cmdline").read_bytes()
            work = str((place / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in told or work.startswith(str(folder)):
            found.append(told.decode(errors="replace"))
    return found


def scratch_in(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(".scratch-*")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
@pytest.mark.parametrize(("title", "delay"), STAGES, ids=[title.split()[0] for title, _ in STAGES])
def test_killed_and_run_again(copy: Road, title: str, delay: float, number: signal.Signals) -> None:
    room = Path(tempfile.gettempdir(), f"coreimage-{os.geteuid()}")

    status = kill_in_stage(copy, title, delay, number)

    if number is signal.SIGTERM:
        assert status == 128 + number
    assert not copy.disk.exists()
    deadline = time.monotonic() + 30
    while processes_in(copy.workspace) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(copy.workspace) == []
    if number is signal.SIGTERM:
        assert scratch_in(copy.workspace, copy.disk.parent) == []
        assert not room.exists() or scratch_in(room) == []

    words = ["pipeline", "run", "debian-core", "--release", "13", "--output", copy.disk]
    copy.product.run(*words, "--workspace", copy.workspace)

    assert copy.disk.stat().st_size == 4_000_000_000
    assert scratch_in(copy.workspace, copy.disk.parent) == []
    assert run.run(["sgdisk", "--verify", copy.disk]).status == 0
