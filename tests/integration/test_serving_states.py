"""O8 over HTTP: whoever fetches channels.json and its signature gets both from one state."""

import http.client
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.lib import run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.channels import Channels
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.keys import keyrings
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import orphans
from tests.integration.test_serve import serving

UPGRADER = "Ubuntu System Image Upgrade Client: device=mako;channel=edge;build=7"
PAIR = ("/channels.json", "/channels.json.asc")


@dataclass(frozen=True, slots=True)
class Server:
    """A server on a port of this machine, and what a client without cookies asks it."""

    host: str
    port: int

    def ask(self, path: str, *, agent: str = UPGRADER, method: str = "GET") -> tuple[int, bytes]:
        """Return status and body, in a connection of its own."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as connection:
            connection.request(method, path, headers={"User-Agent": agent})
            answer = connection.getresponse()
            return int(answer.getheader("content-length", "0")), answer.read()


@pytest.fixture
def server(workspace: Workspace, now: datetime) -> Iterator[Server]:
    channels.create_channel(workspace, "edge", now=now)
    with serving(workspace.root) as (_, host, port):
        yield Server(host, port)


def is_pair(workspace: Workspace, found: dict[str, bytes], scratch: Path) -> bool:
    """Tell by gpgv itself whether a signature belongs to channels.json."""
    for name, content in found.items():
        (scratch / Path(name).name).write_bytes(content)
    ring = Signer(workspace.gpg_home).public_keyring(KeyringType.IMAGE_SIGNING)
    argv: list[str | Path] = [
        "gpgv",
        "--keyring",
        ring,
        scratch / "channels.json.asc",
        scratch / "channels.json",
    ]
    return run.run(argv, check=False).status == 0


@pytest.mark.parametrize("order", list(itertools.permutations(PAIR)))
@pytest.mark.parametrize("heads", [False, True])
def test_a_switch_between_two_requests_is_not_seen(
    workspace: Workspace,
    server: Server,
    now: datetime,
    tmp_path: Path,
    order: tuple[str, str],
    *,
    heads: bool,
) -> None:
    lengths = {path: server.ask(path, method="HEAD")[0] for path in order} if heads else {}
    found = {}
    for number, path in enumerate(order):
        if heads or number:
            channels.create_channel(workspace, f"new{number}", now=now)
        found[path] = server.ask(path)[1]
    assert is_pair(workspace, found, tmp_path)
    assert lengths in ({}, {path: len(content) for path, content in found.items()})
    assert set(Channels.from_json(found["/channels.json"]).channels) == {"edge"}
    # A client that begins anew has the new state.
    found = {path: server.ask(path)[1] for path in order}
    assert is_pair(workspace, found, tmp_path)
    assert "new1" in Channels.from_json(found["/channels.json"]).channels


def test_keyrings_come_from_the_state_of_channels_json(
    workspace: Workspace, server: Server, now: datetime
) -> None:
    document = Channels.from_json(server.ask("/channels.json")[1])
    before = {path.name: path.read_bytes() for path in (workspace.channel_tree / "gpg").iterdir()}
    later = now + timedelta(days=700)
    assert keyrings.generate(workspace, progress=Silent(), now=later)
    assert server.ask("/gpg/image-signing.tar.xz")[1] == before["image-signing.tar.xz"]
    assert server.ask("/gpg/image-signing.tar.xz.asc")[1] == before["image-signing.tar.xz.asc"]
    assert document.keyrings["image-signing"]
    renewed = (workspace.channel_tree / "gpg/image-signing.tar.xz").read_bytes()
    assert server.ask("/gpg/image-signing.tar.xz")[1] == renewed != before["image-signing.tar.xz"]


def test_a_state_that_was_collected_is_not_missed(
    workspace: Workspace, server: Server, now: datetime
) -> None:
    server.ask("/channels.json")
    channels.create_channel(workspace, "new", now=now)
    orphans.collect(workspace, now=now, grace=timedelta(0))
    signature = (workspace.channel_tree / "channels.json.asc").read_bytes()
    assert server.ask("/channels.json.asc")[1] == signature


def test_a_client_that_hammers_never_has_a_bad_pair(
    workspace: Workspace, server: Server, now: datetime, tmp_path: Path
) -> None:
    bad: list[int] = []
    read: list[int] = []
    done = threading.Event()

    def hammer(number: int) -> None:
        scratch = tmp_path / str(number)
        scratch.mkdir()
        while not done.is_set():
            found = {path: server.ask(path, agent=f"client {number}")[1] for path in PAIR}
            (read if is_pair(workspace, found, scratch) else bad).append(number)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(12):
        channels.create_channel(workspace, f"new{number}", now=now)
    done.set()
    for thread in threads:
        thread.join()
    assert not bad
    assert len(set(read)) == 3
