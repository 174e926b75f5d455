"""I slow retrieval, J malicious mirrors, M files exchanged while they are used."""

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, TrustError, UnavailableError
from coreimage.flasher.remote.gather import gathered
from coreimage.lib.progress import Silent
from coreimage.systemimage.operations import channels
from tests.integration import liar
from tests.integration.channel_tree import NOW
from tests.support.attacks import EXPIRY, LIMITS, Client, Thief, refused, served

QUICK = replace(LIMITS, window=1.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.attacks.LIMITS", QUICK)


@pytest.fixture
def mirror(workspace: Workspace, tmp_path: Path) -> Iterator[liar.Liar]:
    """A second server of the same tree."""
    with liar.serving(served(workspace, tmp_path / "mirror")) as found:
        yield found


def pool_file(root: Path, kind: str = "ubuntu") -> str:
    """Return the path of the newest image's root file system or device part."""
    newest = max(root.glob(f"pool/{kind}-*.tar.xz"), key=lambda path: path.stat().st_mtime_ns)
    return f"/pool/{newest.name}"


@contextmanager
def mute() -> Iterator[str]:
    """Yield the address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


SLOW = [liar.trickling, liar.stalled, liar.silent, liar.trickling_head]


@pytest.mark.parametrize("lie", SLOW)
@pytest.mark.parametrize("what", ["channels", "payload"])
def test_o12_i1_i2_a_slow_server_ends_in_bounds_and_the_next_one_is_asked(
    server: liar.Liar,
    mirror: liar.Liar,
    thief: Thief,
    client: Client,
    lie: liar.Behaviour,
    what: str,
) -> None:
    server.lies["/channels.json" if what == "channels" else pool_file(thief.root)] = lie
    begun = time.monotonic()
    refused(client, server, "seconds", kind=UnavailableError)
    assert time.monotonic() - begun < 2 * QUICK.deadline
    assert client.fetch(server.url, mirrors=[mirror.url]) == 2


def test_i3_a_server_that_never_answers_a_greeting(
    mirror: liar.Liar,
    client: Client,
) -> None:
    with mute() as url:
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="seconds"):
            client.fetch(url)
        assert time.monotonic() - begun < 2 * QUICK.deadline
        assert client.fetch(url, mirrors=[mirror.url]) == 2


def garbage(handler: liar.Handler, content: bytes) -> None:
    liar.honest(handler, b"\x00garbage" * (len(content) // 8 + 1))


def missing(handler: liar.Handler, content: bytes) -> None:
    del content
    handler.send_error(404)


def going_round(handler: liar.Handler, content: bytes) -> None:
    liar.redirect(handler.path)(handler, content)


LIES = {
    "missing": missing,
    "garbage": garbage,
    "flipped": liar.flipped,
    "failing": liar.failing,
    "file": liar.redirect("file:///etc/passwd"),
    "other host": liar.redirect("http://127.0.0.1:1/"),
    "loop": going_round,
}


@pytest.mark.parametrize("name", LIES)
def test_j1_a_mirror_that_lies_is_passed_over(
    server: liar.Liar,
    mirror: liar.Liar,
    thief: Thief,
    client: Client,
    name: str,
) -> None:
    """Whatever it lies about, one file after the other: the honest one is used, in one run."""
    pool = pool_file(thief.root)
    for path in ("/channels.json", "/gpg/image-signing.tar.xz", thief.index_path(), pool):
        server.lies = {path: LIES[name]}
        with pytest.raises(CoreImageError) as raised:
            client.fetch(server.url)
        assert raised.value.exit_code in (65, 66, 69, 76)
        assert client.fetch(server.url, mirrors=[mirror.url]) == 2
        shutil.rmtree(client.cache)
    server.lies = {f"{pool}.asc": LIES[name]}
    assert client.fetch(server.url, mirrors=[mirror.url]) == 2


def test_j1_what_one_mirror_began_another_one_finishes(
    server: liar.Liar,
    mirror: liar.Liar,
    thief: Thief,
    client: Client,
) -> None:
    pool = pool_file(thief.root)
    size = (thief.root / pool[1:]).stat().st_size
    server.lies[pool] = liar.truncated
    assert client.fetch(server.url, mirrors=[mirror.url]) == 2
    assert (pool, f"bytes={size // 2}-") in mirror.requests


def test_j1_all_mirrors_lie(
    server: liar.Liar,
    mirror: liar.Liar,
    thief: Thief,
    client: Client,
) -> None:
    pool = pool_file(thief.root)
    server.lies[pool] = mirror.lies[pool] = liar.flipped
    refused(client, server, "is not what was signed", mirrors=[mirror.url])
    mirror.lies.clear()
    assert client.fetch(server.url, mirrors=[mirror.url]) == 2


def test_j2_a_mirror_cannot_hide_an_update_for_longer_than_its_state_is_good(
    server: liar.Liar,
    workspace: Workspace,
    thief: Thief,
    client: Client,
    first: Path,
) -> None:
    with liar.serving(first) as frozen:
        assert client.fetch(frozen.url, mirrors=[server.url]) == 1
        later = NOW + EXPIRY + timedelta(days=1)
        channels.refresh(workspace, now=later, force=True)
        shutil.rmtree(thief.root)
        served(workspace, thief.root)
        with pytest.raises(TrustError):
            client.fetch(frozen.url, now=later)
        assert client.fetch(frozen.url, mirrors=[server.url], now=later) == 2
        # What was seen once is not taken back, by whichever mirror.
        with pytest.raises(TrustError):
            client.fetch(frozen.url)


def test_m1_a_file_of_the_cache_is_exchanged_while_it_is_used(
    server: liar.Liar,
    client: Client,
) -> None:
    with client.planning(server.url) as job:
        assert job.server is not None
        with gathered(job.server.source, job.plan.image, job.server.chain, Silent()) as found:
            for payload in list(found):
                evil = client.cache / "evil"
                evil.write_bytes(b"evil")
                evil.replace(client.cache / payload.entry.checksum)
                digest = hashlib.sha256(payload.file.read()).hexdigest()
                assert digest == payload.entry.checksum
    # And the next run does not take what lies in the cache for what it is called.
    assert client.fetch(server.url) == 2


def test_m2_a_link_in_place_of_a_file_of_the_cache(
    server: liar.Liar,
    thief: Thief,
    client: Client,
    tmp_path: Path,
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("of somebody else")
    name = pool_file(thief.root).removeprefix("/pool/ubuntu-").removesuffix(".tar.xz")
    client.cache.mkdir(parents=True)
    (client.cache / name).symlink_to(precious)
    assert client.fetch(server.url) == 2
    assert precious.read_text() == "of somebody else"
    assert not (client.cache / name).is_symlink()
    # Nor is anything written through a link in place of what is unfinished.
    (client.cache / name).unlink()
    (client.cache / f"{name}.part").symlink_to(precious)
    with pytest.raises((CoreImageError, OSError)):
        client.fetch(server.url)
    assert precious.read_text() == "of somebody else"


def test_m3_two_clients_with_one_cache_at_the_same_time(
    server: liar.Liar,
    thief: Thief,
    client: Client,
) -> None:
    both = threading.Barrier(2)

    def together(handler: liar.Handler, content: bytes) -> None:
        both.wait(30)
        liar.honest(handler, content)

    server.lies[pool_file(thief.root)] = together
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(client.fetch(server.url))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2]
    assert not list(client.cache.glob("*.part"))
