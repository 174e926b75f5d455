"""The command image why, against a published channel."""

import json
import sys
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib import run
from tests.integration.channel_tree import CHANNEL, make_workspace, publish


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_workspace(tmp_path_factory.mktemp("why") / "w")
    for version in (1, 2):
        publish(workspace, version)
    return workspace


def why(place: Workspace, *words: str) -> run.Completed:
    root: Path = place.root
    argv = [sys.executable, "-m", "coreimage", "image", "why", "--channel", CHANNEL, *words]
    return run.run([*argv, "--workspace", root], check=False)


def test_the_way_and_why(place: Workspace) -> None:
    said = why(place, "--build", "1", "--device", "generic_amd64").stdout.decode()
    assert "build 1 goes to version 2 by full 2" in said
    assert "version 1 is not newer than build 1" in said
    fields = json.loads(why(place, "--build", "0", "--json", "--machine-id", "m").stdout)
    assert fields["chosen"]["images"] == [{"type": "full", "version": 2, "base": None}]
    assert [each["score"] for each in fields["candidates"]] == [0, 9001]
    old = json.loads(why(place, "--build", "0", "--client", "old", "--json").stdout)
    assert old["chosen"] == fields["chosen"]


def test_a_device_that_is_up_to_date_stays(place: Workspace) -> None:
    assert b"build 2 stays" in why(place, "--build", "2").stdout


def test_who_is_not_there_is_named(place: Workspace) -> None:
    found = why(place, "--build", "1", "--device", "rpi2")
    assert (found.status, b"its devices are 'generic_amd64'" in found.stderr) == (66, True)
    assert why(place, "--build", "-1").status == 2
