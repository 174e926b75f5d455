"""Image sets whose makers are killed, interrupted, or at work at the same time."""

import os
import sys
from datetime import timedelta

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import (
    BusyError,
    NotFoundError,
)
from coreimage.farm import executor, folder, queue
from coreimage.farm.voice import Voice
from coreimage.imageset import Order, When, make_set
from coreimage.lib import run
from coreimage.lib.files import lock
from coreimage.lib.progress import Silent
from coreimage.model.build import BuildStatus, Subproject
from coreimage.pipeline.publishing import publish_finished
from tests.integration.image_sets import (  # noqa: F401  fixtures are found by their names
    TODAY,
    WRITES,
    Builder,
    Hearer,
    noon,
    published,
    space_fixture,
    tarballs,
    trigger,
)

KILLED_TRIGGER = f"""
import os, sys, threading, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from coreimage import imageset
from coreimage.config import load_workspace
from coreimage.farm import queue
from coreimage.lib.progress import Silent

space = load_workspace(Path(sys.argv[1]))

def command(request, output, extra):
    if request.arch == "arm64":
        return ["sleep", "600"]
    return [sys.executable, "-c", {WRITES!r}, str(output), "amd64 one"]

def die():
    store = queue.open_store(space)
    while not (store.find(results=["success"]) and store.find(statuses=["running"])):
        time.sleep(0.05)
    os.kill(os.getpid(), 9)

threading.Thread(target=die).start()
imageset.make_set(
    space,
    imageset.Order(project="ubuntu-core", arches=["amd64", "arm64"]),
    when=imageset.When.ALWAYS, host="amd64", progress=Silent(), command=command,
    clock=lambda: datetime(2015, 5, 11, 12, 0, tzinfo=UTC),
)
"""


def kill_a_trigger(space: Workspace) -> None:
    """Leave a set whose first build succeeded, and whose second ran when its maker was killed."""
    argv = [sys.executable, "-c", KILLED_TRIGGER, str(space.root)]
    assert run.run(argv, check=False, timeout=60).status == -9
    with lock(folder.folder_of(space, 2).lock, purpose="test", wait=30):
        pass  # its guard has let go: all of the build's processes have ended
    builds = queue.list_builds(space)
    assert [each.status for each in builds] == [BuildStatus.PENDING, BuildStatus.COMPLETED]


def test_a_set_whose_maker_was_killed_is_taken_up_again(space: Workspace) -> None:
    kill_a_trigger(space)
    builder = Builder()
    outcome = trigger(space, builder)

    assert outcome.version == TODAY
    assert [each.version for each in outcome.published] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")
    (resumed, _) = queue.list_builds(space)
    assert [each.message for each in resumed.attempts] == ["the builder was killed", ""]


@pytest.mark.parametrize(
    "change", ["other arches", "other device", "other subproject", "other day", "no builds"]
)
def test_what_is_left_of_another_set_is_aborted(space: Workspace, change: str) -> None:
    kill_a_trigger(space)
    arches = {"other arches": ["arm64"], "other device": ["amd64+box", "arm64"]}
    outcome = make_set(
        space,
        Order(
            project="ubuntu-core",
            arches=arches.get(change, ["amd64", "arm64"]),
            subproject=Subproject.NONE if change == "other subproject" else None,
        ),
        when=When.NEVER if change == "no builds" else When.ALWAYS,
        host="amd64",
        progress=Silent(),
        command=Builder(text="two"),
        clock=lambda: noon() + timedelta(days=change == "other day"),
    )

    assert queue.get(space, 2).status is BuildStatus.ABORTED
    assert published(space) == tarballs(amd64="one")
    assert len(outcome.published) == (1 if change == "no builds" else 2)


def test_a_runner_takes_up_what_a_killed_trigger_left(space: Workspace) -> None:
    kill_a_trigger(space)
    runner = executor.run_queue(
        space,
        arches=["arm64"],
        parallel=1,
        command=Builder(),
        voice_of=lambda _: Voice(progress=Silent()),
        until_idle=True,
    )
    assert [(each.id, each.succeeded) for each in runner] == [(2, True)]
    assert [each.version for each in publish_finished(space, progress=Silent())] == [TODAY]
    assert published(space) == tarballs(amd64="one", arm64="one")


# Each waits until the other one runs: built one after the other, they would wait for ever.
MEETS = """
import pathlib, sys, time
here = pathlib.Path(sys.argv[1]).parent
(here / "met").touch()
while not all((here.parent / name / "met").exists() for name in "12"):
    time.sleep(0.05)
"""


def test_architectures_are_built_at_the_same_time(space: Workspace) -> None:
    heard = Hearer()
    outcome = make_set(
        space,
        Order(project="ubuntu-core", arches=["amd64", "arm64"]),
        when=When.ALWAYS,
        host="amd64",
        progress=heard,
        command=Builder(dict.fromkeys(["amd64", "arm64"], "print('== unpack')\n" + MEETS + WRITES)),
        clock=noon,
    )

    assert outcome.complaint() is None
    assert {"amd64: unpack", "arm64: unpack"} <= set(heard.stages)


def test_never_more_at_once_than_configured(space: Workspace) -> None:
    (space.root / "coreimage.toml").write_text("[farm]\nparallel = 1\n")
    alone = """
import pathlib, sys
here = pathlib.Path(sys.argv[1]).parent
running = [path for path in here.parent.glob("*/artifacts.partial")]
assert len(running) == 1, running
"""
    builder = Builder(dict.fromkeys(["amd64", "arm64"], alone + WRITES))
    assert trigger(load_workspace(space.root), builder).complaint() is None


def test_an_interrupted_set_leaves_nothing_waiting(space: Workspace) -> None:
    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_set(
            space,
            Order(project="ubuntu-core", arches=["amd64", "arm64"]),
            when=When.ALWAYS,
            host="amd64",
            progress=Silent(),
            command=interrupted,
        )
    assert {each.status for each in queue.list_builds(space)} == {BuildStatus.ABORTED}


def test_one_set_at_a_time(space: Workspace) -> None:
    place = space.state / "locks/imageset-ubuntu-core-vivid-daily-preinstalled.lock"
    builder = Builder()
    with (
        lock(place, purpose="image set ubuntu-core vivid daily-preinstalled"),
        pytest.raises(BusyError, match=rf"by process {os.getpid()} since .*image set ubuntu-core"),
    ):
        trigger(space, builder)
    assert builder.asked == []
    assert queue.list_builds(space) == []


def test_an_unknown_arch_is_refused_before_anything_is_asked_for(space: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no architecture 'sparc'"):
        trigger(space, Builder(), arches=["amd64", "sparc"])
    assert queue.list_builds(space) == []
