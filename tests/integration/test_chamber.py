"""Programs in a chamber: how they end, and that nothing of them is left."""

import os
import time
from pathlib import Path

import pytest

from coreimage.lib import run
from coreimage.rootfs.tree.chamber import Chamber, started
from tests.support.trees import small_tree

DEADLINE = 30.0


@pytest.fixture
def chamber(tmp_path: Path) -> Chamber:
    return Chamber(tree=small_tree(tmp_path / "tree"), as_root=os.geteuid() == 0)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -9 $$", 137),
        ('die() { kill -TERM $$; }; (die "no config"); true', 143),
        ("(sleep 1000 &)", 0),
    ],
)
def test_how_a_program_ends(chamber: Chamber, script: str, status: int) -> None:
    for argv in (
        chamber.inside(["/bin/sh", "-c", script.replace("sleep", "/bin/sleep")]),
        chamber.beside(["sh", "-c", script]),
    ):
        with started(argv) as process:
            pass
        assert process.returncode == status


def test_a_program_has_our_standard_input(chamber: Chamber) -> None:
    for argv in (chamber.inside(["/bin/cat"]), chamber.beside(["cat"])):
        assert run.run(argv, data=b"words\n").stdout == b"words\n"


def test_all_ends_with_the_chamber(chamber: Chamber, tmp_path: Path) -> None:
    script = 'trap "" TERM; (while sleep 0.1; do echo >> "$1/alive"; done) & wait'
    argv = chamber.beside(["sh", "-c", script, "sh", str(tmp_path)])
    alive = tmp_path / "alive"
    with pytest.raises(InterruptedError):
        leave_early(argv, alive)
    alive.unlink()
    time.sleep(0.5)
    assert not alive.exists()


def leave_early(argv: list[str], alive: Path) -> None:
    with started(argv):
        deadline = time.monotonic() + DEADLINE
        while not alive.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise InterruptedError
