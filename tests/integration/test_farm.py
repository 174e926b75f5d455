"""Builds with real processes that do not want to end, runners that are killed, and several of them.

Runners are processes of their own; small programs stand in for the rootfs command.
"""

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.farm import queue
from coreimage.farm.folder import BuildFolder, folder_of
from coreimage.farm.log import follow, read_log
from coreimage.lib import run
from coreimage.lib.files import lock
from coreimage.model.build import Build, BuildResult, BuildStatus
from tests.support.processes import Watch

# A runner whose builds are this program.
RUNNER = """
import sys
from coreimage.cli.main import main
from coreimage.farm import executor
script = sys.argv.pop()
executor.rootfs_argv = lambda request, output, extra=(): [
    sys.executable, "-c", script, str(output), request.project]
main()
"""
WRITES = """
import pathlib, sys
pathlib.Path(sys.argv[1], "livecd.core.manifest").write_text("dash 1")
print("made by", sys.argv[2])
"""
# Ignores SIGTERM, as do its child, its grandchild in another process group, and one in another
# session whose parent is gone. Says who they are.
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1], "livecd.core.rootfs.tar.gz").write_text("half")
def stay(*leave):
    for each in leave:
        each()
    print("process", os.getpid(), flush=True)
    time.sleep(600)
    os._exit(0)
if os.fork() == 0:
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            stay()
        stay(os.setpgrp)
    stay()
stay()
"""


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    (tmp_path / "coreimage.toml").write_text("[farm]\nretry_delay = 0\nabort_grace = 1\n")
    return load_workspace(tmp_path)


def ask(space: Workspace) -> Build:
    (build,) = queue.request(space, project="core", release="13", series="trixie", arches=["amd64"])
    return build


@contextmanager
def runner(space: Workspace, script: str, *words: str) -> Iterator[run.Process[bytes]]:
    argv = [sys.executable, "-c", RUNNER, "build", "run", *words]
    options = ["--workspace", str(space.root), script]
    with run.start([*argv, *options], stdout=run.PIPE, stderr=run.DEVNULL) as process:
        try:
            yield process
        finally:
            run.terminate(process)


def stubborn(folder: BuildFolder) -> list[Watch]:
    """Return the four processes of a stubborn build, when they are there."""
    said = b""
    for chunk in follow(folder, interval=0.05):
        said += chunk
        if said.count(b"\n") == 4:
            break
    return [Watch(line.split()[1]) for line in said.splitlines()]


def wait_until_free(folder: BuildFolder) -> None:
    with lock(folder.lock, purpose="test", wait=60):
        pass


def test_abort_leaves_no_process_and_no_file(space: Workspace) -> None:
    build = ask(space)
    folder = folder_of(space, build.id)
    with runner(space, STUBBORN) as process:
        watches = stubborn(folder)
        aborted = queue.abort(space, build.id)
        assert all(each.is_gone(0) for each in watches)
        assert process.poll() is None

    assert aborted.status is BuildStatus.ABORTED
    assert [each.result for each in aborted.attempts] == [None]
    names = {path.name for path in folder.root.iterdir()}
    assert names == {"build.json", "lock", "buildlog_unknown_trixie_amd64_core_BUILDING.txt.gz"}


def test_a_runner_that_is_killed_leaves_no_process_and_the_next_takes_over(
    space: Workspace,
) -> None:
    build = ask(space)
    folder = folder_of(space, build.id)
    with runner(space, STUBBORN) as process:
        watches = stubborn(folder)
        process.kill()
        process.wait()
        assert all(each.is_gone() for each in watches)
    wait_until_free(folder)
    assert folder.read().status is BuildStatus.RUNNING
    with runner(space, WRITES, "--until-idle") as process:
        assert process.wait(60) == 0

    done = queue.get(space, build.id)
    assert done.result is BuildResult.SUCCESS
    assert [(each.number, each.result) for each in done.attempts] == [
        (1, BuildResult.ERROR),
        (2, BuildResult.SUCCESS),
    ]
    assert [path.name for path in folder.artifacts.iterdir()] == ["livecd.core.manifest"]
    assert not folder.partial.exists()
    assert b"== Attempt 2, by " in b"".join(read_log(folder))


def test_a_runner_that_is_stopped_puts_its_builds_back(space: Workspace) -> None:
    builds = [ask(space), ask(space)]
    with runner(space, STUBBORN) as process:
        watches = [each for build in builds for each in stubborn(folder_of(space, build.id))]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert all(each.is_gone(0) for each in watches)

    for each in queue.list_builds(space):
        assert each.status is BuildStatus.PENDING
        assert each.retries == 0
        assert [attempt.message for attempt in each.attempts] == ["its runner was stopped"]
        assert not folder_of(space, each.id).partial.exists()


def test_of_several_runners_each_build_has_one(space: Workspace) -> None:
    builds = [ask(space) for _ in range(12)]
    with ExitStack() as stack:
        runners = [
            stack.enter_context(runner(space, WRITES, "--until-idle", "--parallel", "2"))
            for _ in range(3)
        ]
        said = [each.stdout.read().decode() for each in runners if each.stdout]
        assert [each.wait(60) for each in runners] == [0, 0, 0]

    told = Counter(int(line.split("\t")[0]) for text in said for line in text.splitlines())
    assert told == Counter(build.id for build in builds)
    assert {(each.attempt, each.result) for each in queue.list_builds(space)} == {
        (1, BuildResult.SUCCESS)
    }


def test_what_the_machine_failed_is_tried_again_on_record(space: Workspace) -> None:
    build = ask(space)
    flaky = """
import pathlib, sys
marker = pathlib.Path(sys.argv[1]).parent / "tried"
if not marker.exists():
    marker.touch()
    print("coreimage: error: mirror.example cannot be reached")
    sys.exit(69)
"""
    with runner(space, flaky + WRITES, "--until-idle") as process:
        assert process.wait(60) == 0

    done = json.loads(folder_of(space, build.id).record.read_text())
    assert done["result"] == "success"
    assert [(each["result"], each["exit_code"], each["message"]) for each in done["attempts"]] == [
        ("error", 69, "mirror.example cannot be reached"),
        ("success", 0, ""),
    ]
