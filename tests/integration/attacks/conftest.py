"""Attacks on the flash tool, one by one: refused with the reason, and what is honest works after.

Here is what they take: a tree that is served, a thief with its keys, and a client. The letters and
numbers in the names of tests are those of our list of attacks.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.systemimage.operations import channels
from tests.integration import channel_tree, liar
from tests.integration.channel_tree import NOW
from tests.support.attacks import OTHER, Client, Thief, served, small_masters


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_masters(monkeypatch)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two channels; what was served at its first image is kept beside it."""
    home = tmp_path_factory.mktemp("attacks")
    with pytest.MonkeyPatch.context() as patch:
        small_masters(patch)
        workspace = channel_tree.make_workspace(home / "workspace")
    channels.create_channel(workspace, OTHER, now=NOW)
    channel_tree.publish(workspace, 1)
    channel_tree.publish(workspace, 1, channel=OTHER)
    served(workspace, home / "first")
    channel_tree.publish(workspace, 2, rootfs={"system/etc/hostname": b"second\n"})
    return home


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    return load_workspace(
        Path(shutil.copytree(made / "workspace", tmp_path / "workspace", symlinks=True))
    )


@pytest.fixture
def first(made: Path, tmp_path: Path) -> Path:
    """What was served when there was one image."""
    return Path(shutil.copytree(made / "first", tmp_path / "first"))


@pytest.fixture
def server(workspace: Workspace, tmp_path: Path) -> Iterator[liar.Liar]:
    with liar.serving(served(workspace, tmp_path / "www")) as found:
        yield found


@pytest.fixture
def thief(workspace: Workspace, server: liar.Liar, tmp_path: Path) -> Thief:
    del server
    return Thief(workspace, tmp_path / "www")


@pytest.fixture
def client(workspace: Workspace, tmp_path: Path) -> Client:
    pinned = tmp_path / "pinned.tar.xz"
    shutil.copy(workspace.archive_master, pinned)
    return Client(tmp_path / "client", pinned)
