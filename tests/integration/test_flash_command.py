"""The commands as people run them: what they print, what they leave, how they end."""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib import run
from coreimage.lib.progress import Silent
from coreimage.systemimage import upkeep
from coreimage.systemimage.tree import layout
from tests.integration import channel_tree, liar

UDF = "from coreimage.cli.device_flash import main; main()"
COREIMAGE = "from coreimage.cli.main import main; main()"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = channel_tree.make_workspace(tmp_path_factory.mktemp("server") / "workspace")
    for version in (56, 57):
        channel_tree.publish(made, version)
    # Commands go by the clock of the machine.
    upkeep.keep_up(made, progress=Silent(), now=datetime.now(UTC))
    return made


def command(program: str, *words: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", program, *words]


def started(program: str, *words: str | Path, cwd: Path) -> run.Completed:
    return run.run(command(program, *words), cwd=cwd, check=False, env={"COLUMNS": "100"})


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_in(scratch: Path) -> list[Path]:
    """Files below the scratch folders; an empty one, of somebody killed, may stay for a minute."""
    return [path for path in scratch.rglob("*") if not path.is_dir()]


def test_the_line_of_the_page_makes_an_image(workspace: Workspace) -> None:
    folder = workspace.root.parent  # commands find the folder `workspace` below it
    words = ("core", "13", "--channel", "edge", "--output", "x86.img")
    ended = started(UDF, *words, cwd=folder)
    assert ended.status == 0, ended.stderr.decode()
    lines = ended.stdout.decode().splitlines()
    assert lines[:6] == [
        "New image complete",
        "Summary:",
        " Output: x86.img",
        " Architecture: amd64",
        " Channel: edge",
        " Version: 57",
    ]
    assert re.fullmatch(r"Launch by running: (kvm|qemu-system-x86_64) -m 768 x86\.img", lines[6])
    said = ended.stderr.decode()
    places = [
        said.index(text)
        for text in (
            "Determining oem configuration",
            "Fetching information from server...",
            "Downloading and setting up...",
            "Installing generic-amd64",
        )
    ]
    assert places == sorted(places)
    assert "nobody" in said
    again = started(UDF, *words, cwd=folder)
    assert again.status == 1
    assert b"x86.img" in again.stderr
    (folder / "x86.img").unlink()


@pytest.mark.parametrize(
    "words",
    [
        ("--revision", "-1", "core", "13", "--channel", "edge", "--dry-run", "--json"),
        ("core", "13", "--channel", "edge", "--revision", "-1", "--dry-run", "--json"),
        ("core", "13", "--channel", "edge", "--revision=56", "--dry-run", "--json"),
    ],
)
def test_a_revision_may_stand_before_or_behind(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ended = started(UDF, *words, "--workspace", workspace.root, cwd=tmp_path)
    assert json.loads(ended.stdout)["version"] == 56
    assert left(tmp_path) == []


def test_without_a_workspace_server_and_trust_are_named(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ("flash", "core", "13", "--channel", "edge", "--download-only")
    alone = started(COREIMAGE, *words, cwd=tmp_path)
    assert alone.status == 66
    assert b"--archive-master" in alone.stderr
    tree = ("--server", workspace.channel_tree.as_uri())
    no_trust = started(COREIMAGE, *words, *tree, cwd=tmp_path)
    assert no_trust.status == 66
    ended = started(
        COREIMAGE, *words, *tree, "--archive-master", workspace.archive_master, cwd=tmp_path
    )
    assert ended.status == 0, ended.stderr.decode()
    assert ended.stdout.startswith(b"Verified 3 files")
    assert left(tmp_path) == []


def test_a_server_that_is_named_comes_before_that_of_the_environment(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(workspace.channel_tree)
    monkeypatch.setenv("COREIMAGE_ARCHIVE_MASTER", str(workspace.archive_master))
    monkeypatch.setenv("COREIMAGE_SERVER", here)
    query = ("query", "--list-channels")
    assert started(UDF, *query, cwd=tmp_path).status == 0
    monkeypatch.setenv("COREIMAGE_SERVER", "/nowhere")
    assert started(UDF, *query, cwd=tmp_path).status == 66
    assert started(UDF, "--server", here, *query, cwd=tmp_path).status == 0
    assert started(UDF, *query, "--server", "/nowhere", "--mirror", here, cwd=tmp_path).status == 66


def test_developer_mode_makes_a_key_pair_beside_the_image(
    workspace: Workspace, tmp_path: Path
) -> None:
    words = ("core", "13", "-o", "dev.img", "--developer-mode", "--workspace", workspace.root)
    failed = started(UDF, *words, "--channel", "nowhere", cwd=tmp_path)
    assert failed.status == 66
    assert left(tmp_path) == []
    ended = started(UDF, *words, "--channel", "edge", cwd=tmp_path)
    assert ended.status == 0, ended.stderr.decode()
    assert left(tmp_path) == ["dev.img", "dev.img.ssh-key", "dev.img.ssh-key.pub"]
    assert (tmp_path / "dev.img.ssh-key").stat().st_mode & 0o777 == 0o600
    shown = run.run(["ssh-keygen", "-lf", "dev.img.ssh-key.pub"], cwd=tmp_path).stdout.decode()
    assert f" SSH key: {shown.split()[1]} core@dev.img" in ended.stdout.decode()
    assert "ssh -i dev.img.ssh-key -p 8022 core@localhost" in ended.stdout.decode()
    (tmp_path / "dev.img").unlink()
    again = started(UDF, *words, "--channel", "edge", cwd=tmp_path)
    assert again.status == 1
    assert b"dev.img.ssh-key" in again.stderr
    assert "dev.img" not in left(tmp_path)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("core", "13", "--size", "3"), 2, "size"),
        (("core", "vivid"), 66, "release 'vivid'"),
        (("core", "13", "--channel", "nowhere"), 66, "debian-core/13/edge"),
        (("core", "13", "--channel", "edge", "--oem", "beagle"), 66, "'generic-amd64'"),
        (("core", "13", "--channel", "edge", "--revision", "9"), 66, "56, 57"),
        (("core", "13", "--ssh-key", "/etc/hostname"), 65, "/etc/hostname:1"),
        (("core", "13", "--ssh-key", "missing.pub"), 66, "missing.pub"),
        (("core", "13", "--channel", "edge", "-o", "no/x.img"), 1, "no directory 'no'"),
        (("core", "13", "--server", "/nowhere"), 66, "/nowhere"),
        (("core", "13", "--server", "ftp://mirror.example"), 2, "ftp://mirror.example"),
        (("query",), 2, "--list-channels"),
        (("query", "--list-images"), 2, "--channel"),
        (("query", "--list-images", "--channel", "x"), 66, "no channel 'x'"),
    ],
)
def test_mistakes_have_their_exit_code_and_name_the_thing(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    ended = started(UDF, *words, "--workspace", workspace.root, cwd=tmp_path)
    assert ended.status == status, ended.stderr.decode()
    assert says in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    assert left(tmp_path) == []


def test_queries_are_answered(workspace: Workspace, tmp_path: Path) -> None:
    def asked(*words: str) -> str:
        ended = started(UDF, "query", *words, "--workspace", str(workspace.root), cwd=tmp_path)
        assert ended.status == 0, ended.stderr.decode()
        return ended.stdout.decode()

    assert asked("--list-channels") == f"{channel_tree.CHANNEL}\n"
    listed = asked("--list-images", "--channel", channel_tree.CHANNEL)
    assert listed == "56: description='test'\n57: description='test'\n"
    shown = asked("--show-image", "--channel", channel_tree.CHANNEL, "--revision", "-1", "--json")
    assert json.loads(shown)["version"] == 56


@contextmanager
def running(workspace: Workspace, folder: Path) -> Iterator[run.Process[bytes]]:
    words = ("core", "13", "--channel", "edge", "-o", "x.img", "--developer-mode")
    argv = command(UDF, *words, "--workspace", workspace.root)
    with run.start(argv, cwd=folder, stderr=run.PIPE) as process:
        yield process


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGKILL", "SIGINT"])
@pytest.mark.parametrize("moment", ["Fetching", "checking", "unpacking", "Installing"])
def test_g3_killed_at_any_moment_nothing_is_left(
    workspace: Workspace, tmp_path: Path, signal_name: str, moment: str
) -> None:
    number = signal.Signals[signal_name]
    with running(workspace, tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment.encode() in line:
                os.kill(process.pid, number)
                break
        said = process.stderr.read().decode()
    # setpriv passed itself on: the process is ours, and its end says who ended it.
    assert process.returncode == (-9 if signal_name == "SIGKILL" else 128 + number), said
    assert "Traceback" not in said
    assert left(tmp_path) == []
    scratch = workspace.cache / "flash"
    if signal_name != "SIGKILL":
        assert left_in(scratch) == []
    with running(workspace, tmp_path) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 0, said
    assert left_in(scratch) == []
    assert left(tmp_path) == ["x.img", "x.img.ssh-key", "x.img.ssh-key.pub"]


def test_interrupted_while_a_server_stalls_and_resumed_by_the_next_run(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends at once, leaves no image and no process, and loses nothing of what had come."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stalled = threading.Event()

    def stall(handler: liar.Handler, content: bytes) -> None:
        handler.head(200, {"Content-Length": str(len(content)), "ETag": '"one"'})
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        stalled.set()
        handler.released.wait()

    images = layout.read_index(workspace, channel_tree.CHANNEL, channel_tree.DEVICE)
    pool = images.full(None).files[0]
    with liar.serving(workspace.channel_tree) as server:
        server.lies[pool.path] = stall
        argv = command(UDF, "core", "13", "--channel", "edge", "-o", "x.img")
        argv += ["--server", server.url, "--workspace", workspace.root]
        with run.start(argv, cwd=tmp_path, stderr=run.PIPE) as process:
            assert stalled.wait(60)
            time.sleep(1)  # until it has come
            os.kill(process.pid, signal.SIGTERM)
            said = process.stderr.read().decode() if process.stderr else ""
        assert process.returncode == 128 + signal.SIGTERM, said
        assert "Traceback" not in said
        part = workspace.cache / f"downloads/{pool.checksum}.part"
        assert part.stat().st_size == pool.size // 2
        assert left(tmp_path) == []
        assert left_in(workspace.cache / "flash") == []
        server.lies.clear()
        server.requests.clear()
        again = started(UDF, *argv[3:], cwd=tmp_path)
        assert again.status == 0, again.stderr.decode()
        assert (pool.path, f"bytes={pool.size // 2}-") in server.requests
    assert left(tmp_path) == ["x.img"]


@pytest.mark.parametrize("size", ["40k", "400k", "3m"])
def test_a_disk_that_is_full_at_some_step_is_left_empty(
    workspace: Workspace, tmp_path: Path, size: str
) -> None:
    """Downloads, file systems and the disk itself: where there is no space, nothing stays."""
    small = tmp_path / "small"
    small.mkdir()
    shell = (
        'mount -t tmpfs -o "size=$1" none "$2" && cd "$2" && shift 2 && "$@"; status=$?; '
        'echo "left:" $(find . -type f ! -path "./home/.cache/*"); exit $status'
    )
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    words = ["core", "13", "--channel", "edge", "-o", "x.img"]
    trust: list[str | Path] = ["--archive-master", workspace.archive_master]
    with liar.serving(workspace.channel_tree) as server:
        ended = run.run(
            [
                *namespace,
                *(size, small),
                *command(UDF, *words, "--server", server.url, *trust),
            ],
            check=False,
            env={"HOME": f"{small}/home", "XDG_STATE_HOME": str(tmp_path), "no_proxy": "127.0.0.1"},
        )
    said = ended.stderr.decode()
    assert ended.status == 74, said
    assert "space" in said
    assert "Traceback" not in said
    assert ended.stdout.decode().endswith("left:\n")
