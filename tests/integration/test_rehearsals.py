"""Commands that write, told to say what they would do: they say it, and the workspace stays."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coreimage.cli.main import app
from coreimage.config import Workspace
from coreimage.systemimage.operations import channels
from tests.support.publications import SERIES, device_members, publish, rootfs_members, tarball
from tests.support.trees import snapshot

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
SOURCE = ("--series", SERIES, "--product", "core")


def published(workspace: Workspace) -> dict[str, str]:
    """Return all that a rehearsal must leave alone: what is cached is not of that kind."""
    found = snapshot(workspace.root)
    return {name: each for name, each in found.items() if not name.startswith("cache")}


@pytest.fixture
def ready(workspace: Workspace, now: datetime) -> Workspace:
    publish(workspace, "20150511")
    channels.create_channel(workspace, CHANNEL, now=now)
    return workspace


@pytest.fixture
def say(ready: Workspace) -> Callable[..., Any]:
    """Return how a command is run, with the JSON that it prints."""

    def run(*words: str) -> Any:
        ended = CliRunner().invoke(app, [*words, "--workspace", str(ready.root), "--json"])
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)

    return run


def test_an_import(ready: Workspace, say: Callable[..., Any]) -> None:
    words = ("image", "import", CHANNEL, DEVICE, *SOURCE)
    before = published(ready)
    plan = say(*words, "--dry-run")
    assert published(ready) == before
    assert plan == {
        "version": 1,
        "changed": True,
        "publication": f"ubuntu-core/{SERIES}/daily-preinstalled/20150511",
        "made": ["rootfs=20150511", "device=20150511"],
        "reused": [],
        "bases": [],
        "dry_run": True,
    }
    assert say(*words)["version"] == 1
    assert say(*words, "--dry-run")["changed"] is False
    for verb in ("remove", "create"):
        assert say("channel", verb, CHANNEL)["changed"] == [CHANNEL]
    assert say(*words, "--dry-run")["version"] == say(*words)["version"] == 2
    publish(
        ready,
        "20150512",
        rootfs=tarball(rootfs_members(text="two")),
        device=tarball(device_members()),
    )
    (ready.root / "coreimage.toml").write_text(
        f'[channels."{CHANNEL}"]\nproject = "ubuntu-core"\nrelease = "15.04"\n'
        f'deltabase = ["{CHANNEL}"]\n[server]\nhost = "images.example"\nhttps_port = "disabled"\n'
    )
    plan = say(*words, "--dry-run")
    assert (plan["version"], plan["made"], plan["reused"]) == (
        3,
        ["rootfs=20150512"],
        ["device=20150512"],
    )
    assert plan["bases"] == [2]


def test_a_mirror(ready: Workspace, say: Callable[..., Any], tmp_path: Path) -> None:
    say("image", "import", CHANNEL, DEVICE, *SOURCE)
    target = tmp_path / "mirror"
    words = ("channel", "mirror", str(ready.channel_tree), str(target))
    plan = say(*words, "--dry-run")
    assert (plan["dry_run"], plan["changed"], plan["fetched"]) == (True, True, 3)
    assert not target.exists()
    assert say(*words)["dry_run"] is False
    before = snapshot(target)
    assert say(*words, "--dry-run")["changed"] is False
    assert snapshot(target) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("channel", "create", "new"), {"changed": ["new"], "dry_run": True}),
        (("channel", "hide", CHANNEL), {"changed": [CHANNEL], "dry_run": True}),
        (("keyring", "rotate", "image-signing"), {"published": False}),
        (("keyring", "publish", "blacklist"), {"published": False}),
    ],
)
def test_channels_and_keys(
    ready: Workspace, say: Callable[..., Any], words: tuple[str, ...], expected: dict[str, Any]
) -> None:
    before = published(ready)
    said = say(*words, "--dry-run")
    assert {key: said[key] for key in expected} == expected
    assert published(ready) == before


def test_keys_that_are_missing(ready: Workspace, say: Callable[..., Any]) -> None:
    assert say("keyring", "generate", "--dry-run")["published"] == []
    shutil.rmtree(ready.channel_tree)
    shutil.rmtree(ready.gpg_home / "device-signing")
    before = published(ready)
    levels = ["archive-master", "image-master", "image-signing", "device-signing", "blacklist"]
    assert say("keyring", "generate", "--dry-run")["published"] == levels
    assert published(ready) == before
    arguments = ["keyring", "generate", "--dry-run", "--workspace", str(ready.root)]
    assert "would make: the key of device-signing" in CliRunner().invoke(app, arguments).stdout
