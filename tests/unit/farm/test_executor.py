import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    BusyError,
    CommandError,
    CoreImageError,
    DataError,
    NotFoundError,
    RightsError,
    UnavailableError,
)
from coreimage.farm import queue
from coreimage.farm.executor import rootfs_argv, run_build
from coreimage.farm.folder import BuildFolder, folder_of
from coreimage.farm.log import follow, has_ended
from coreimage.lib import files, run
from coreimage.lib.progress import Silent
from coreimage.model.build import Build, BuildRequest, BuildState

# A supervisor in a process of its own: builds with the script that it is given.
SUPERVISOR = """
import sys
from pathlib import Path
from coreimage.cli.console import guarded
from coreimage.config import load_workspace
from coreimage.farm.executor import run_build
from coreimage.lib.progress import Silent

root, build_id, script = sys.argv[1:]
def work(**_):
    run_build(load_workspace(Path(root)), int(build_id), progress=Silent(),
              argv=[sys.executable, "-c", script])
sys.exit(guarded(work, "supervisor"))
"""
ENDLESS = """
import os, pathlib, time
pathlib.Path("{output}/livecd.core.rootfs.tar.gz").write_text("half")
print("begun", os.getpid(), flush=True)
time.sleep(600)
"""


class Recorder(Silent):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)


def ask(workspace: Workspace) -> tuple[Build, BuildFolder]:
    (build,) = queue.request(
        workspace, project="core", release="13", series="trixie", arches=["amd64"]
    )
    return build, folder_of(workspace, build.id)


def carry_out(workspace: Workspace, build: Build, script: str) -> Build:
    return run_build(workspace, build.id, argv=[sys.executable, "-c", script], progress=Silent())


def writes(folder: BuildFolder, *names: str) -> str:
    return "import pathlib\n" + "".join(
        f"pathlib.Path({str(folder.partial / name)!r}).write_text({name!r})\n" for name in names
    )


@contextmanager
def supervised(workspace: Workspace) -> Iterator[tuple[run.Process[bytes], BuildFolder, int]]:
    """Yield a supervisor whose child has begun and never ends, with the child's process id."""
    build, folder = ask(workspace)
    script = ENDLESS.format(output=folder.partial)
    argv = [sys.executable, "-c", SUPERVISOR, str(workspace.root), str(build.id), script]
    with run.start(argv, stderr=run.DEVNULL) as process:
        try:
            for chunk in follow(folder, interval=0.05):
                child = int(chunk.split()[1])
                break
            yield process, folder, child
        finally:
            run.terminate(process)


def wait_until_gone(process_id: int) -> None:
    """Return when a process has ended; it is nobody's child here, or a zombie of a test."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return
    with open(descriptor, closefd=True):  # noqa: PTH123  a descriptor, not a path
        import select

        assert select.select([descriptor], [], [], 30)[0], f"process {process_id} still lives"


def test_rootfs_argv_says_everything_as_arguments() -> None:
    request = BuildRequest(
        project="core", release="15.04", series="vivid", arch="armhf", version="20150511"
    )

    assert rootfs_argv(request, Path("/o"), ["--mirror", "http://archive.example"]) == [
        sys.executable,
        "-m",
        "coreimage",
        *["rootfs", "build", "core"],
        *["--release", "15.04"],
        *["--arch", "armhf"],
        *["--output", "/o"],
        *["--mirror", "http://archive.example"],
    ]


def test_a_build_leaves_artifacts_log_and_record(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    names = ("livecd.core.rootfs.tar.gz", "livecd.core.manifest")
    done = carry_out(workspace, build, writes(folder, *names) + "print('made it')")

    assert done.state is BuildState.SUCCEEDED
    assert done.artifacts == tuple(sorted(names))
    assert sorted(path.name for path in folder.artifacts.iterdir()) == sorted(names)
    assert not folder.partial.exists()
    assert folder.log.read_text() == "made it\n"
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert queue.get(workspace, build.id) == done
    assert json.loads(folder.record.read_text())["state"] == "Successfully built"
    assert not files.is_locked(folder.lock)


@pytest.mark.parametrize(
    ("record", "fingerprint"),
    [('{"fingerprint": "f00d"}', "f00d"), ('{"fingerprint": 7}', ""), ("[]", ""), ("{", "")],
)
def test_the_fingerprint_is_the_one_that_the_builder_recorded(
    workspace: Workspace, record: str, fingerprint: str
) -> None:
    build, folder = ask(workspace)
    path = folder.partial / "livecd.core.build.json"
    done = carry_out(workspace, build, f"open({str(path)!r}, 'w').write({record!r})")

    assert done.fingerprint == fingerprint


def test_the_child_knows_the_workspace(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    script = writes(folder, "a") + "import os; print(os.environ['COREIMAGE_WORKSPACE'])"
    carry_out(workspace, build, script)

    assert folder.log.read_text() == f"{workspace.root}\n"


def test_stages_and_lines_are_told_without_control_characters(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    said = r"print('== bootstrap\n   note\n\x1b[31mred\nold\rnew')"
    recorder, lines = Recorder(), list[str]()
    run_build(
        workspace,
        build.id,
        argv=[sys.executable, "-c", writes(folder, "a") + said],
        progress=recorder,
        echo=lines.append,
    )

    assert recorder.stages == ["bootstrap"]
    assert lines == ["   note", "[31mred", "new"]


@pytest.mark.parametrize(
    ("code", "error", "state"),
    [
        (1, CommandError, BuildState.FAILED),
        (2, CommandError, BuildState.FAILED),
        (65, DataError, BuildState.FAILED),
        (66, NotFoundError, BuildState.FAILED),
        (69, UnavailableError, BuildState.CHROOT_PROBLEM),
        (70, CommandError, BuildState.CHROOT_PROBLEM),
        (75, BusyError, BuildState.CHROOT_PROBLEM),
        (77, RightsError, BuildState.CHROOT_PROBLEM),
    ],
)
def test_exit_code_tells_who_is_to_blame(
    workspace: Workspace, code: int, error: type[CoreImageError], state: BuildState
) -> None:
    build, folder = ask(workspace)
    script = (
        f"{writes(folder, 'half')}\nfor n in range(30): print('line', n)\nraise SystemExit({code})"
    )
    with pytest.raises(error, match=f"build '1' failed, exit status {code}") as raised:
        carry_out(workspace, build, script)

    assert raised.value.exit_code == code
    assert raised.value.message.splitlines()[1:] == [f"  line {n}" for n in range(20, 30)]
    assert str(folder.log) in raised.value.hint
    failed = queue.get(workspace, build.id)
    assert failed.state is state
    assert failed.finished_at is not None
    assert failed.artifacts == ()
    assert folder.log.exists()
    assert not folder.partial.exists()
    assert not folder.artifacts.exists()


def test_message_is_what_the_child_complained_of(workspace: Workspace) -> None:
    build, _ = ask(workspace)
    complaint = "import sys\nprint('coreimage: error: no such hook', file=sys.stderr)\n"
    with pytest.raises(DataError):
        carry_out(workspace, build, complaint + "print('hint: x'); sys.exit(65)")

    assert queue.get(workspace, build.id).message == "no such hook"


def test_a_child_that_is_killed_is_the_builders_fault(workspace: Workspace) -> None:
    build, _ = ask(workspace)
    with pytest.raises(CommandError, match="killed by SIGKILL") as raised:
        carry_out(workspace, build, "import os; os.kill(os.getpid(), 9)")

    assert raised.value.exit_code == 137
    assert queue.get(workspace, build.id).state is BuildState.CHROOT_PROBLEM


def test_no_artifacts_is_a_failure(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    with pytest.raises(DataError, match="left no artifacts"):
        carry_out(workspace, build, "pass")

    assert queue.get(workspace, build.id).state is BuildState.FAILED
    assert not folder.artifacts.exists()


def test_a_program_that_cannot_be_started_is_recorded(workspace: Workspace) -> None:
    build, _ = ask(workspace)
    with pytest.raises(RightsError, match="no-such-program"):
        run_build(workspace, build.id, argv=["no-such-program"], progress=Silent())

    failed = queue.get(workspace, build.id)
    assert failed.state is BuildState.CHROOT_PROBLEM
    assert "no-such-program" in failed.message


def test_a_build_runs_once(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    carry_out(workspace, build, writes(folder, "a"))

    with pytest.raises(CoreImageError, match="is not waiting"):
        carry_out(workspace, build, writes(folder, "b"))
    assert [path.name for path in folder.artifacts.iterdir()] == ["a"]


def test_unknown_build_makes_no_directory(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError):
        run_build(workspace, 9, argv=["true"], progress=Silent())

    assert not folder_of(workspace, 9).root.exists()


def test_sigterm_ends_the_child_and_cancels(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, child):
        assert folder.read().state is BuildState.BUILDING
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        wait_until_gone(child)

    build = folder.read()
    assert build.state is BuildState.CANCELLED
    assert build.finished_at is not None
    assert not folder.partial.exists()
    assert folder.log.read_text().startswith("begun")


def test_sigkill_ends_the_child_and_is_noticed(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, child):
        process.kill()
        process.wait(30)
        wait_until_gone(child)

    assert folder.read().state is BuildState.BUILDING
    assert has_ended(folder)
    (build,) = queue.list_builds(workspace)
    assert build.state is BuildState.FAILED
    assert build.message == "the builder was killed"
    assert build.finished_at is not None
    assert folder.read() == build
    assert not folder.partial.exists()
    assert ask(workspace)[0].id == build.id + 1


def test_cancel_ends_a_running_build(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, child):
        build = queue.cancel(workspace, folder.read().id)
        assert build.state is BuildState.CANCELLED
        assert process.wait(30) == 128 + signal.SIGTERM
        wait_until_gone(child)

    assert queue.cancel(workspace, build.id) == build


def test_a_running_build_is_busy_and_left_alone(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, _):
        build = folder.read()
        with pytest.raises(BusyError, match=f"in use by process {process.pid}"):
            carry_out(workspace, build, "pass")
        assert queue.list_builds(workspace) == [build]
