"""Killed in any stage and run again: nothing half-done is visible, nothing is left behind."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.support.product import Product
from tests.system.conftest import Road

pytestmark = pytest.mark.system

# A line of progress that begins each stage, how far into it the signal comes, in seconds, and
# whether every test run kills it there too.
STAGES = [
    ("Looking for changes", 1.0, ()),
    ("Building the root filesystem", 9.0, (signal.SIGKILL,)),
    ("Publishing", 0.05, ()),
    ("Importing", 1.5, (signal.SIGKILL,)),
    ("Downloading and setting up", 1.0, ()),
    ("Installing", 0.8, (signal.SIGTERM,)),
]
CASES = [
    pytest.param(
        title,
        delay,
        number,
        id=f"{title.split()[0]}-{number.name}",
        marks=() if number in always else pytest.mark.long,
    )
    for title, delay, always in STAGES
    for number in (signal.SIGTERM, signal.SIGKILL)
]


@pytest.fixture
def room(ground: Path) -> Iterator[Path]:
    """A folder for temporary files in which the ids of a user namespace may work too."""
    folder = Path(tempfile.mkdtemp(dir=ground))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def kill_in_stage(
    product: Product, words: list[object], title: str, delay: float, number: signal.Signals
) -> int:
    """Run a command, signal it in a stage, and return its return code."""
    with product.started(*words) as process:
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


@pytest.mark.parametrize(("title", "delay", "number"), CASES)
def test_killed_and_run_again(
    copy: Road, room: Path, title: str, delay: float, number: signal.Signals
) -> None:
    product = Product(folder=copy.product.folder, environment={"TMPDIR": str(room)})
    words: list[object] = ["pipeline", "run", "debian-core", "--output", copy.disk]
    force = ["--force"] if title.startswith("Building") else []
    # Only the build is done: all that comes after it is to do, by a server that nobody has seen.
    shutil.rmtree(copy.workspace / "www")
    shutil.rmtree(copy.workspace / "state/trust")

    status = kill_in_stage(product, [*words, *force], title, delay, number)

    if number is signal.SIGTERM:
        assert status == 128 + number
    assert not copy.disk.exists()
    deadline = time.monotonic() + 30
    while processes_in(copy.workspace) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(copy.workspace) == []
    if number is signal.SIGTERM:
        assert scratch_in(copy.workspace, copy.disk.parent, room) == []

    product.run(*words)

    assert copy.disk.stat().st_size == 4_000_000_000
    assert scratch_in(copy.workspace, copy.disk.parent) == []
    assert run.run(["sgdisk", "--verify", copy.disk]).status == 0
