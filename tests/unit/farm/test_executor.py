import json
import os
import queue as queues
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    BusyError,
    CommandError,
    CoreImageError,
    DataError,
    NoSpaceError,
    NotFoundError,
    RightsError,
    UnavailableError,
)
from coreimage.farm import queue
from coreimage.farm.executor import rootfs_argv, run_build
from coreimage.farm.folder import BuildFolder, folder_of
from coreimage.farm.log import follow, has_ended, read_log
from coreimage.lib import files, run
from coreimage.lib.progress import Silent
from coreimage.model.build import Build, BuildRequest, BuildResult, BuildStatus

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


def log_text(folder: BuildFolder) -> str:
    return b"".join(read_log(folder)).decode()


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
        *["--subproject", "none"],
        *["--output", "/o"],
        *["--mirror", "http://archive.example"],
    ]


def test_rootfs_argv_names_the_device() -> None:
    request = BuildRequest(
        project="core",
        release="15.04",
        series="vivid",
        arch="armhf",
        device="raspi2",
        version="20150511",
    )
    argv = rootfs_argv(request, Path("/o"))
    assert argv[argv.index("--arch") :][:4] == ["--arch", "armhf", "--device", "raspi2"]


def test_a_build_leaves_artifacts_log_and_record(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    names = ("livecd.core.rootfs.tar.gz", "livecd.core.manifest")
    done = carry_out(workspace, build, writes(folder, *names) + "print('made it')")

    assert done.result is BuildResult.SUCCESS
    assert done.artifacts == tuple(sorted(names))
    assert sorted(path.name for path in folder.artifacts.iterdir()) == sorted(names)
    assert not folder.partial.exists()
    assert log_text(folder) == "made it\n"
    assert not folder.log.exists()
    assert folder.packed_log == folder.root / "buildlog_unknown_trixie_amd64_core_BUILDING.txt.gz"
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert queue.get(workspace, build.id) == done
    assert json.loads(folder.record.read_text())["result"] == "success"
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

    assert log_text(folder) == f"{workspace.root}\n"


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
    ("code", "error", "result"),
    [
        (1, CommandError, BuildResult.FAILURE),
        (2, CommandError, BuildResult.FAILURE),
        (65, DataError, BuildResult.FAILURE),
        (66, NotFoundError, BuildResult.FAILURE),
        (69, UnavailableError, BuildResult.ERROR),
        (70, CommandError, BuildResult.ERROR),
        (74, NoSpaceError, BuildResult.ERROR),
        (75, BusyError, BuildResult.ERROR),
        (77, RightsError, BuildResult.ERROR),
    ],
)
def test_exit_code_tells_who_is_to_blame(
    workspace: Workspace, code: int, error: type[CoreImageError], result: BuildResult
) -> None:
    build, folder = ask(workspace)
    script = (
        f"{writes(folder, 'half')}\nfor n in range(30): print('line', n)\nraise SystemExit({code})"
    )
    with pytest.raises(error, match=f"build '1' failed, exit status {code}") as raised:
        carry_out(workspace, build, script)

    assert raised.value.exit_code == code
    assert raised.value.message.splitlines()[1:] == [f"  line {n}" for n in range(20, 30)]
    assert "coreimage build log 1" in raised.value.hint
    failed = queue.get(workspace, build.id)
    assert failed.result is result
    assert failed.finished_at is not None
    assert failed.artifacts == ()
    assert folder.packed_log is not None
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
    assert queue.get(workspace, build.id).result is BuildResult.ERROR


def test_no_artifacts_is_a_failure(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    with pytest.raises(DataError, match="left no artifacts"):
        carry_out(workspace, build, "pass")

    assert queue.get(workspace, build.id).result is BuildResult.FAILURE
    assert not folder.artifacts.exists()


def test_a_program_that_cannot_be_started_is_recorded(workspace: Workspace) -> None:
    build, _ = ask(workspace)
    with pytest.raises(RightsError, match="no-such-program"):
        run_build(workspace, build.id, argv=["no-such-program"], progress=Silent())

    failed = queue.get(workspace, build.id)
    assert failed.result is BuildResult.ERROR
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
        assert folder.read().status is BuildStatus.RUNNING
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        wait_until_gone(child)

    build = folder.read()
    assert build.status is BuildStatus.ABORTED
    assert build.finished_at is not None
    assert not folder.partial.exists()
    assert log_text(folder).startswith("begun")


def wait_until_free(folder: BuildFolder) -> None:
    """Return when nothing of a build lives any more: its guard holds the lock until then."""
    with files.lock(folder.lock, purpose="test", wait=30):
        pass


def test_sigkill_ends_the_child_and_the_build_begins_anew(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, child):
        process.kill()
        process.wait(30)
        wait_until_gone(child)
        wait_until_free(folder)

    assert folder.read().status is BuildStatus.RUNNING
    assert has_ended(folder)
    (build,) = queue.list_builds(workspace)
    assert build.status is BuildStatus.PENDING
    assert [each.message for each in build.attempts] == ["the builder was killed"]
    assert build.attempts[0].result is BuildResult.ERROR
    assert folder.read() == build
    assert not folder.partial.exists()

    done = carry_out(workspace, build, writes(folder, "a"))
    assert done.result is BuildResult.SUCCESS
    assert [each.number for each in done.attempts] == [1, 2]
    text = log_text(folder)
    assert text.startswith("begun")
    assert "\n== Attempt 2, by " in text


def test_a_builder_that_is_killed_again_and_again_is_given_up(workspace: Workspace) -> None:
    build, folder = ask(workspace)
    store = queue.open_store(workspace)
    for number in (1, 2, 3):
        store.claim(build.id, worker=f"me:{number}", now=queue.now_utc())
        folder.log.write_text("so far\n")
        ended = queue.get(workspace, build.id)

    assert ended.status is BuildStatus.COMPLETED
    assert ended.result is BuildResult.ERROR
    assert [each.worker for each in ended.attempts] == ["me:1", "me:2", "me:3"]
    assert folder.packed_log is not None


def test_cancel_ends_a_running_build(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, child):
        build = queue.abort(workspace, folder.read().id)
        assert build.status is BuildStatus.ABORTED
        assert process.wait(30) == 1
        wait_until_gone(child)

    assert queue.abort(workspace, build.id) == build


def test_a_build_that_another_process_has_is_waited_for(workspace: Workspace) -> None:
    with supervised(workspace) as (process, folder, _), ThreadPoolExecutor() as threads:
        build = folder.read()
        assert build.worker.endswith(f":{process.pid}")
        heard: queues.Queue[str] = queues.Queue()
        waiting = threads.submit(
            run_build,
            workspace,
            build.id,
            argv=["false"],
            progress=Silent(),
            echo=heard.put,
        )
        assert heard.get(timeout=30).startswith("begun")
        assert queue.list_builds(workspace) == [build]
        queue.abort(workspace, build.id)
        with pytest.raises(CoreImageError, match="build '1' was cancelled"):
            waiting.result(30)
