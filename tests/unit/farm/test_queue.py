import json
import os

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.farm import queue
from coreimage.farm.folder import PURPOSE, folder_of
from coreimage.model.build import Build, BuildState


def ask(workspace: Workspace) -> Build:
    (build,) = queue.request(
        workspace, project="core", release="13", series="trixie", arches=["amd64"]
    )
    return build


def claim(workspace: Workspace, build: Build) -> None:
    queue.open_store(workspace).claim(build.id, now=queue.now_utc())


def test_request_writes_the_record(workspace: Workspace) -> None:
    build = ask(workspace)

    assert folder_of(workspace, build.id).read() == build
    assert json.loads((workspace.builds / "1/build.json").read_text())["state"] == "Needs building"


def test_ids_are_not_used_again_when_the_database_is_lost(workspace: Workspace) -> None:
    ask(workspace)
    ask(workspace)
    for path in workspace.state.iterdir():
        path.unlink()

    assert ask(workspace).id == 3


def test_cancel_of_a_waiting_build(workspace: Workspace) -> None:
    build = ask(workspace)
    cancelled = queue.cancel(workspace, build.id)

    assert cancelled.state is BuildState.CANCELLED
    assert cancelled.message == "cancelled before it began"
    assert folder_of(workspace, build.id).read() == cancelled


def test_cancel_of_an_ended_build_says_how_it_ended(workspace: Workspace) -> None:
    build = ask(workspace)
    claim(workspace, build)

    with pytest.raises(CoreImageError, match="build '1' has ended already: Failed to build"):
        queue.cancel(workspace, build.id)


def test_cancel_of_an_unknown_build(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="there is no build '5'"):
        queue.cancel(workspace, 5)


@pytest.mark.parametrize("note", ["", "nonsense", "[]", '{"pid": 1}'])
def test_nobody_is_signalled_for_a_spoiled_note(workspace: Workspace, note: str) -> None:
    folder = folder_of(workspace, ask(workspace).id)
    folder.lock.write_text(note)

    assert queue._signal_holder(folder.lock) == 0


def test_nobody_is_signalled_who_does_not_hold_the_lock(workspace: Workspace) -> None:
    folder = folder_of(workspace, ask(workspace).id)
    # Were the check missing, this test would end here.
    folder.lock.write_text(json.dumps({"pid": os.getpid(), "purpose": PURPOSE, "since": ""}))

    assert queue._signal_holder(folder.lock) == 0


def test_lost_builds_are_noticed_by_request_and_by_get(workspace: Workspace) -> None:
    first = ask(workspace)
    claim(workspace, first)
    second = ask(workspace)
    assert folder_of(workspace, first.id).read().message == "the builder was killed"

    claim(workspace, second)
    assert queue.get(workspace, second.id).state is BuildState.FAILED
