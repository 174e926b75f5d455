import threading
from collections.abc import Callable

import pytest

from coreimage.config import Workspace
from coreimage.errors import NotFoundError
from coreimage.farm import queue
from coreimage.farm.folder import PURPOSE, BuildFolder, folder_of
from coreimage.farm.log import follow, last_lines, printable, read_log
from coreimage.farm.store import Store
from coreimage.lib import files
from coreimage.model.build import Build, BuildResult


def waiting(workspace: Workspace) -> tuple[Build, BuildFolder]:
    (build,) = queue.request(
        workspace, project="core", release="13", series="trixie", arches=["amd64"]
    )
    return build, folder_of(workspace, build.id)


def end(store: Store, build: Build) -> None:
    running = store.get(build.id)
    ended = queue.end_of(running, now=queue.now_utc(), result=BuildResult.SUCCESS)
    store.complete(build.id, ended)


def while_following(folder: BuildFolder, work: Callable[[Callable[[bytes], None]], None]) -> bytes:
    """Return what `follow` yields while `work` goes on, which can wait for what was seen."""
    seen, changed = bytearray(), threading.Condition()

    def wait_for(text: bytes) -> None:
        with changed:
            assert changed.wait_for(lambda: text in seen, 30), f"{text!r} was never yielded"

    def read() -> None:
        for chunk in follow(folder, interval=0.01):
            with changed:
                seen.extend(chunk)
                changed.notify_all()

    reader = threading.Thread(target=read)
    reader.start()
    work(wait_for)
    reader.join(30)
    assert not reader.is_alive()
    return bytes(seen)


def test_follow_from_before_the_beginning_to_the_end(workspace: Workspace) -> None:
    build, folder = waiting(workspace)
    store = queue.open_store(workspace)

    def work(wait_for: Callable[[bytes], None]) -> None:
        with files.lock(folder.lock, purpose=PURPOSE, wait=5):
            store.claim(build.id, worker="me:1", now=queue.now_utc())
            with folder.log.open("ab", buffering=0) as log:
                log.write(b"one\n")
                wait_for(b"one\n")
                log.write(b"half a li")
                wait_for(b"half a li")
                log.write(b"ne\nlast\n")
            folder.partial.mkdir()
            folder.partial.rename(folder.artifacts)
            end(store, build)

    assert while_following(folder, work) == b"one\nhalf a line\nlast\n"


def test_follow_of_an_ended_build_yields_all_and_returns(workspace: Workspace) -> None:
    build, folder = waiting(workspace)
    store = queue.open_store(workspace)
    store.claim(build.id, worker="me:1", now=queue.now_utc())
    folder.log.write_bytes(b"x" * (files.CHUNK + 1))
    end(store, build)

    assert b"".join(follow(folder, interval=60)) == b"x" * (files.CHUNK + 1)


def test_follow_returns_when_the_builder_died(workspace: Workspace) -> None:
    build, folder = waiting(workspace)
    queue.open_store(workspace).claim(build.id, worker="me:1", now=queue.now_utc())
    folder.log.write_text("so far\n")

    assert list(follow(folder, interval=60)) == [b"so far\n"]


def test_a_build_that_has_not_begun_has_no_log(workspace: Workspace) -> None:
    _, folder = waiting(workspace)

    with pytest.raises(NotFoundError, match="build '1' has no log yet"):
        list(read_log(folder))
    assert last_lines(folder, 10) == []


def test_last_lines_of_a_long_log(workspace: Workspace) -> None:
    _, folder = waiting(workspace)
    folder.log.write_text("".join(f"line {number}\n" for number in range(100_000)))

    assert last_lines(folder, 2) == ["line 99998", "line 99999"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ("\x1b]0;title\x07text\n", "]0;titletext"),
        ("10 %\r20 %\r\n", "20 %"),
        ("a\tb\x00\u202e", "a\tb"),
        ("größe", "größe"),
    ],
)
def test_printable(line: str, shown: str) -> None:
    assert printable(line) == shown
