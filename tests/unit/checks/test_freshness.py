import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.checks.check import Status
from coreimage.checks.freshness import check_freshness, judge
from coreimage.config import Workspace
from coreimage.systemimage.operations import channels


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [
        (30, Status.OK, "30 days"),
        (8, Status.OK, "8 days"),
        (7, Status.WARNING, "7 days"),
        (0, Status.WARNING, "expired"),
        (-1, Status.WARNING, "clients refuse it"),
    ],
)
def test_a_quarter_of_its_life_is_the_border(
    now: datetime, days: int, status: Status, words: str
) -> None:
    expiry = now + timedelta(days=days)
    check = judge("x", expiry, life=timedelta(days=30), now=now, mend="renew it")
    assert check.status is status
    assert words in check.found
    assert bool(check.mend) == (status is Status.WARNING)


def test_e3_a_tree_is_watched_before_its_end(workspace: Workspace, now: datetime) -> None:
    channels.create_channel(workspace, "edge", now=now)
    fresh = {check.name: check.status for check in check_freshness(workspace.root, now=now)}
    assert fresh == {
        "channels.json": Status.OK,
        "keyring image-signing": Status.OK,
        "keyring device-signing": Status.OK,
        "key of image-signing": Status.OK,
    }
    late = check_freshness(workspace.root, now=now + timedelta(days=24))
    assert [check.status for check in late[:3]] == [Status.WARNING, Status.OK, Status.WARNING]
    assert "channel refresh" in late[0].mend


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ("", Status.WARNING, "is not here"),
        ("offline = true", Status.WARNING, "is not here"),
        ('home = "elsewhere"', Status.WARNING, "is not here"),
        ('home = "keys"', Status.OK, "in 'keys'"),
        ('command = ["sign", "it"]', Status.OK, "behind 'sign'"),
    ],
)
def test_where_the_key_is_that_signs_what_is_published(
    workspace: Workspace, now: datetime, settings: str, status: Status, words: str
) -> None:
    with (workspace.root / "coreimage.toml").open("a") as file:
        file.write(f"[signing.image-signing]\n{settings}\n")
    (workspace.root / "keys").mkdir()
    shutil.rmtree(workspace.gpg_home / "image-signing/private-keys-v1.d")
    check = check_freshness(workspace.root, now=now)[-1]
    assert (check.name, check.status) == ("key of image-signing", status)
    assert words in check.found
    assert bool(check.mend) == (status is Status.WARNING)


def test_a_machine_without_a_tree_is_not_told_of_one(tmp_path: Path, now: datetime) -> None:
    assert check_freshness(tmp_path, now=now) == []
    (tmp_path / "coreimage.toml").touch()
    assert check_freshness(tmp_path, now=now) == []


def test_a_tree_that_cannot_be_read_is_a_warning(workspace: Workspace, now: datetime) -> None:
    channels.create_channel(workspace, "edge", now=now)
    (workspace.channel_tree / "state/channels.json").write_text("{")
    (check,) = check_freshness(workspace.root, now=now)
    assert check.status is Status.WARNING
    assert "not JSON" in check.found
