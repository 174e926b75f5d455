"""Readers that never stop while everything is edited: no bad pair, and nothing is missing.

They follow the whole chain with plain gpgv and sha256sum, on disk through one opened directory and
over HTTP.
"""

import http.client
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib import run
from tests.integration.test_serve import serving
from tests.support.plain import PlainClient
from tests.support.publications import (
    SERIES,
    device_members,
    publish,
    rootfs_members,
    tarball,
)

EDGE = "ubuntu-core/edge"
IMPORT = ("image", "import", EDGE, "generic_amd64", "--series", SERIES, "--product", "core")
AGENT = "Ubuntu System Image Upgrade Client: device=generic_amd64;channel=edge;build=0"


def edit(workspace: Workspace, *words: str) -> None:
    run.run([sys.executable, "-m", "coreimage", *words, "--workspace", workspace.root])


def publish_one(workspace: Workspace, number: int) -> None:
    publish(
        workspace,
        f"201505{number + 10}",
        rootfs=tarball(rootfs_members(text=f"{number}")),
        device=tarball(device_members(f"{number}")),
    )
    edit(workspace, *IMPORT)


def edits(workspace: Workspace, number: int) -> None:
    """Change everything that can be changed, once around."""
    publish_one(workspace, number)
    edit(workspace, "channel", "alias", "ubuntu-core/next", EDGE)
    edit(workspace, "image", "copy", EDGE, "ubuntu-core/stable", "--percentage", "50")
    edit(workspace, "channel", "rename", "ubuntu-core/next", f"ubuntu-core/next{number}")
    edit(workspace, "keyring", "rotate", "image-signing")
    edit(workspace, "image", "resign")
    edit(workspace, "image", "expire", EDGE, "--keep", "1")
    edit(workspace, "image", "gc")


class Reader:
    """Somebody who reads the whole tree again and again, in a thread."""

    def __init__(self, look: Callable[[Path], None], folder: Path) -> None:
        self._look, self._folder = look, folder
        self._done = threading.Event()
        self.looks = 0
        self.bad: list[str] = []

    def _read(self) -> None:
        while not self._done.is_set():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            try:
                self._look(self._folder)
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self.bad.append(f"{type(error).__name__}: {error}")
            self.looks += 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()


def on_disk(workspace: Workspace, folder: Path) -> None:
    """Read through the directory that `state` leads to now: one state, whatever happens."""
    state = folder / "state"
    descriptor = os.open(workspace.channel_tree / "state", os.O_RDONLY | os.O_DIRECTORY)
    try:
        shutil.copytree(f"/proc/self/fd/{descriptor}", state)
    finally:
        os.close(descriptor)
    fixed = ("/channels.json", "/gpg/")
    client = PlainClient(
        fetch=lambda path: (state if path.startswith(fixed) else workspace.channel_tree) / path[1:],
        pinned=workspace.archive_master,
        folder=folder,
    )
    client.look()


def over_http(workspace: Workspace, host: str, port: int, folder: Path) -> None:
    """Fetch one file after the other, each in a connection of its own, as devices do."""

    def fetch(path: str) -> Path:
        found = folder / "fetched" / path[1:]
        if not found.exists():
            with closing(http.client.HTTPConnection(host, port, timeout=60)) as connection:
                connection.request("GET", path, headers={"User-Agent": AGENT})
                answer = connection.getresponse()
                assert answer.status == 200, f"{path}: {answer.status}"
                found.parent.mkdir(parents=True, exist_ok=True)
                found.write_bytes(answer.read())
        return found

    PlainClient(fetch=fetch, pinned=workspace.archive_master, folder=folder).look()


def hammer(workspace: Workspace, tmp_path: Path, *, rounds: int) -> None:
    for channel in (EDGE, "ubuntu-core/stable"):
        edit(workspace, "channel", "create", channel)
    publish_one(workspace, 0)
    with serving(workspace.root) as (_, host, port):
        readers = [
            Reader(lambda folder: on_disk(workspace, folder), tmp_path / "disk"),
            Reader(lambda folder: over_http(workspace, host, port, folder), tmp_path / "http"),
        ]
        with readers[0].reading(), readers[1].reading():
            for number in range(1, rounds + 1):
                edits(workspace, number)
    assert [reader.bad for reader in readers] == [[], []]
    assert all(reader.looks > 1 for reader in readers)


def test_g4_o8_readers_that_never_stop_see_good_pairs_and_all_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    hammer(workspace, tmp_path, rounds=1)


@pytest.mark.long
def test_g4_o8_readers_that_never_stop_for_a_long_time(
    workspace: Workspace, tmp_path: Path
) -> None:
    hammer(workspace, tmp_path, rounds=20)
