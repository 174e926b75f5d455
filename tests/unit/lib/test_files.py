import hashlib
import io
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.errors import BusyError, DataError, NoSpaceError
from coreimage.lib import files, run

LOCKS = """
import pathlib, sys, time
from coreimage.lib import files
with files.lock(pathlib.Path(sys.argv[1]), purpose="a test"):
    print("begun", flush=True)
    time.sleep(600)
"""
SCRATCHES = """
import pathlib, sys, time
from coreimage.lib import files
with files.scratch_directory(pathlib.Path(sys.argv[1])) as scratch:
    if sys.argv[2] == "full":
        (scratch / "file").touch()
    print(scratch, flush=True)
    time.sleep(600)
"""


def test_a_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("ä\r\nb".encode())
    assert files.read_text(path) == "ä\r\nb"
    path.write_bytes(b"a\nb\n\xfc\nc\xfc")
    with pytest.raises(DataError, match="/x:3: byte 0xfc is not UTF-8") as caught:
        files.read_text(path)
    assert caught.value.hint


@contextmanager
def child(script: str, *words: str | Path) -> Iterator[tuple[run.Process[bytes], str]]:
    """Yield a process that has printed its first line, and the line; it is killed at the end."""
    argv = [sys.executable, "-c", script, *words]
    with run.start(argv, stdout=run.PIPE) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, "ä\n", mode=mode)
    assert path.read_bytes() == "ä\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert names(tmp_path) == ["file"]


def test_a_file_is_replaced_and_a_link_is_too(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_text("other")
    path.symlink_to(other)
    files.write_atomically(path, b"new")
    assert not path.is_symlink()
    assert (path.read_bytes(), other.read_text()) == (b"new", "other")


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomically(place, b"x")
    with pytest.raises(TypeError):
        files.write_atomically(tmp_path / "file", 7)  # type: ignore[arg-type]
    with pytest.raises(IsADirectoryError):
        files.link_atomically(place, "target")
    assert names(tmp_path) == ["place"]


def test_readers_see_the_old_content_or_the_new(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    contents = [bytes([number]) * 100_000 for number in range(2)]
    files.write_atomically(path, contents[0])
    files.link_atomically(link, "file")
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(link.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        files.write_atomically(path, contents[number % 2])
        files.link_atomically(link, "file")
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert seen


def test_a_scratch_directory_is_ours_alone_and_goes(tmp_path: Path) -> None:
    parent = tmp_path / "deep/parent"
    with files.scratch_directory(parent) as scratch:
        assert scratch.parent == parent
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        (scratch / "file").touch()
    assert names(parent) == []


def test_a_scratch_directory_that_got_its_name_stays(tmp_path: Path) -> None:
    with files.scratch_directory(tmp_path) as scratch:
        (scratch / "file").touch()
        scratch.rename(tmp_path / "final")
    assert names(tmp_path) == ["final"]
    files.sweep(tmp_path)
    assert names(tmp_path / "final") == ["file"]


@pytest.mark.parametrize("kind", ["full", "empty"])
def test_scratch_of_a_killed_process_is_swept_but_not_of_one_at_work(
    tmp_path: Path, kind: str
) -> None:
    with child(SCRATCHES, tmp_path, kind) as (process, line):
        scratch = Path(line)
        with files.scratch_directory(tmp_path):
            assert scratch.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert scratch.is_dir()
        with files.scratch_directory(tmp_path):
            assert not scratch.exists()


def test_scratch_is_made_while_others_sweep(tmp_path: Path) -> None:
    """A directory may be swept between its making and its locking: its owner makes another."""
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            files.sweep(tmp_path)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for each in sweepers:
        each.start()
    try:
        for number in range(300):
            with files.scratch_directory(tmp_path) as scratch:
                (scratch / "file").write_text(str(number))
                assert (scratch / "file").read_text() == str(number)
    finally:
        done.set()
        for each in sweepers:
            each.join()


def test_sweeping_takes_old_files_and_links_and_follows_none(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "inner").mkdir(parents=True)
    old = time.time() - 7200
    for name in ("new", "old"):
        (tmp_path / f".scratch-{name}-file").touch()
        (tmp_path / f".scratch-{name}-link").symlink_to(other)
    for name in ("file", "link"):
        os.utime(tmp_path / f".scratch-old-{name}", (old, old), follow_symlinks=False)
    files.sweep(tmp_path)
    assert names(tmp_path) == [".scratch-new-file", ".scratch-new-link", "other"]
    assert names(other) == ["inner"]


def test_sweeping_prepares_what_it_removes(tmp_path: Path) -> None:
    (tmp_path / ".scratch-0").mkdir()
    prepared: list[Path] = []
    with files.scratch_directory(tmp_path) as busy:
        (tmp_path / ".scratch-1").mkdir()
        files.sweep(tmp_path, prepare=prepared.append)
        assert prepared == [tmp_path / ".scratch-1"]
        assert names(tmp_path) == [busy.name]


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "locks/pipeline.lock"
    assert not files.is_locked(path)
    with child(LOCKS, path) as (process, line):
        assert line == "begun"
        assert files.is_locked(path)
        with pytest.raises(BusyError) as caught, files.lock(path, purpose="another"):
            pass
        expected = rf"'pipeline' is in use by process {process.pid} since \d{{4}}-.*Z \(a test\)"
        assert caught.match(expected)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not files.is_locked(path)
    with files.lock(path, purpose="another"):
        assert json.loads(path.read_text())["purpose"] == "another"
        assert files.is_locked(path)
    assert not files.is_locked(path)
    assert path.read_text() == ""


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child(LOCKS, path) as (process, _):
        timer = threading.Timer(0.5, process.kill)
        timer.start()
        with files.lock(path, purpose="patience", wait=60):
            pass
        timer.join()


def test_a_lock_file_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.lock(path, purpose="x"):
        for text in ("", "[]", "null", '{"pid": 1}', "\0"):
            path.write_text(text)
            with (
                pytest.raises(BusyError, match=r"'lock' is in use$"),
                files.lock(path, purpose="y"),
            ):
                pass


def test_looking_at_a_lock_makes_nobody_fail(tmp_path: Path) -> None:
    path, done = tmp_path / "lock", threading.Event()
    path.touch()

    def look() -> None:
        while not done.is_set():
            files.is_locked(path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            with files.lock(path, purpose="work"):
                pass
    finally:
        done.set()
        looker.join()


def test_space_is_required_where_there_is_something_already(tmp_path: Path) -> None:
    files.require_space(tmp_path / "not/yet", 1, purpose="a disk")
    with pytest.raises(NoSpaceError, match=f"no space for a disk in '{tmp_path}'"):
        files.require_space(tmp_path / "not/yet", 1 << 62, purpose="a disk")


def test_readers_count_and_hash(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    reader = files.HashingReader(io.BytesIO(data))
    target = io.BytesIO()
    assert files.copy_stream(reader, target) == reader.size == len(data)
    assert target.getvalue() == data
    path = tmp_path / "file"
    path.write_bytes(data)
    assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_a_tree_is_synced_whatever_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    files.fsync_tree(tmp_path)
