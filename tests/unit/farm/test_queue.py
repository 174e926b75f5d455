import json

import pytest

from coreimage.config import FarmSettings, Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.farm import queue
from coreimage.farm.folder import folder_of
from coreimage.model.build import Build, BuildResult, BuildStatus


def ask(workspace: Workspace) -> Build:
    (build,) = queue.request(
        workspace, project="core", release="13", series="trixie", arches=["amd64"]
    )
    return build


def claim(workspace: Workspace, build: Build) -> None:
    queue.open_store(workspace).claim(build.id, worker="me:1", now=queue.now_utc())


def test_request_writes_the_record(workspace: Workspace) -> None:
    build = ask(workspace)

    assert folder_of(workspace, build.id).read() == build
    assert json.loads((workspace.builds / "1/build.json").read_text())["status"] == "pending"


def test_ids_are_not_used_again_when_the_database_is_lost(workspace: Workspace) -> None:
    ask(workspace)
    ask(workspace)
    for path in workspace.state.iterdir():
        path.unlink()

    assert ask(workspace).id == 3


def test_abort_of_a_waiting_build(workspace: Workspace) -> None:
    build = ask(workspace)
    cancelled = queue.abort(workspace, build.id)

    assert cancelled.status is BuildStatus.ABORTED
    assert cancelled.message == "cancelled before it began"
    assert folder_of(workspace, build.id).read() == cancelled


def test_abort_of_an_ended_build_says_how_it_ended(workspace: Workspace) -> None:
    build = ask(workspace)
    claim(workspace, build)
    store = queue.open_store(workspace)
    ended = queue.end_of(store.get(1), now=queue.now_utc(), result=BuildResult.FAILURE)
    store.complete(1, ended)

    with pytest.raises(CoreImageError, match="build '1' has ended already: Failed to build"):
        queue.abort(workspace, build.id)


def test_abort_of_an_unknown_build(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="there is no build '5'"):
        queue.abort(workspace, 5)


def test_lost_builds_are_noticed_by_request_and_by_get(workspace: Workspace) -> None:
    first = ask(workspace)
    claim(workspace, first)
    second = ask(workspace)
    assert folder_of(workspace, first.id).read().message == "the builder was killed"

    claim(workspace, second)
    assert queue.get(workspace, second.id).status is BuildStatus.PENDING


def test_a_lost_build_that_was_to_be_aborted_is(workspace: Workspace) -> None:
    build = ask(workspace)
    claim(workspace, build)
    queue.ask_abort(workspace, build.id)

    assert queue.get(workspace, build.id).status is BuildStatus.ABORTED
    assert queue.abort(workspace, build.id).attempts[0].result is None


def test_each_retry_waits_longer() -> None:
    settings = FarmSettings(retry_delay=10)
    waits = [queue.delay(settings, retries).total_seconds() for retries in range(4)]

    assert waits == [10, 20, 40, 80]


def test_a_retry_by_hand_has_all_its_retries_again(workspace: Workspace) -> None:
    build = ask(workspace)
    for _ in range(3):
        claim(workspace, build)
        queue.get(workspace, build.id)
    assert queue.get(workspace, build.id).label == "Chroot problem"

    again = queue.retry(workspace, build.id)
    assert (again.status, again.result, again.retries) == (BuildStatus.PENDING, None, 0)
    assert len(again.attempts) == 3
    claim(workspace, again)
    assert queue.get(workspace, build.id).attempt == 4
