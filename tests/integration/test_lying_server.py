"""fetch against a server that lies: every lie ends in bounds, with the right error."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError, NotFoundError, TrustError, UnavailableError
from coreimage.lib import run
from coreimage.lib.fetch import Wanted, fetch
from coreimage.lib.transport import Limits, tls_context
from tests.integration import liar

LIMITS = Limits(min_rate=200, window=0.3, deadline=5, attempts=2, backoff=0.01)
CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WANTED = Wanted(max_size=len(CONTENT), size=len(CONTENT), sha256=SHA256)
METADATA = Wanted(max_size=4 << 20)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[liar.Liar]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "www"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    (root / "empty").touch()
    with liar.serving(root) as each:
        yield each


def bring(
    server: liar.Liar, target: Path, *, wanted: Wanted = WANTED, limits: Limits = LIMITS
) -> None:
    fetch(f"{server.url}/file", target, wanted=wanted, limits=limits)


def test_an_honest_answer_becomes_the_file(server: liar.Liar, tmp_path: Path) -> None:
    bring(server, tmp_path / "cache/file")
    assert (tmp_path / "cache/file").read_bytes() == CONTENT
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("lie", "kind", "says"),
    [
        (liar.flipped, TrustError, SHA256),
        (liar.truncated, UnavailableError, f"of {len(CONTENT)} bytes"),
        (liar.stalled, UnavailableError, "seconds"),
        (liar.silent, UnavailableError, "seconds"),
        (liar.trickling_head, UnavailableError, "seconds"),
        (liar.trickling, UnavailableError, "seconds"),
        (liar.endless, UnavailableError, "longer than"),
        (liar.longer, UnavailableError, f"expected {len(CONTENT)}"),
        (liar.hidden_longer, UnavailableError, "longer than"),
        (liar.shorter, UnavailableError, f"expected {len(CONTENT)}"),
        (liar.packed, UnavailableError, "gzip"),
        (liar.failing, UnavailableError, "503"),
        (liar.redirect("file:///etc/passwd"), UnavailableError, "302|refused"),
        (liar.redirect("ftp://127.0.0.1/file"), UnavailableError, "refused"),
        (liar.redirect("/file"), UnavailableError, "302"),
    ],
)
def test_a_lie_ends_in_bounds_and_makes_no_file(
    server: liar.Liar,
    tmp_path: Path,
    lie: liar.Behaviour,
    kind: type[CoreImageError],
    says: str,
) -> None:
    server.lies["/file"] = lie
    begun = time.monotonic()
    with pytest.raises(kind, match=says) as raised:
        bring(server, tmp_path / "cache/file")
    assert type(raised.value) is kind
    assert time.monotonic() - begun < 2 * LIMITS.deadline
    assert not (tmp_path / "cache/file").exists()
    # An honest server is believed afterwards, whatever was left behind.
    server.lies.clear()
    bring(server, tmp_path / "cache/file")
    assert (tmp_path / "cache/file").read_bytes() == CONTENT
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "lie", [liar.truncated, liar.stalled, liar.endless, liar.packed, liar.redirect("file:///x")]
)
def test_metadata_of_unknown_length_is_bounded_too(
    server: liar.Liar, tmp_path: Path, lie: liar.Behaviour
) -> None:
    server.lies["/file"] = lie
    with pytest.raises(UnavailableError):
        bring(server, tmp_path / "cache/file", wanted=METADATA)
    assert not list((tmp_path / "cache").iterdir())


def test_the_deadline_bounds_a_server_that_is_just_fast_enough(
    server: liar.Liar, tmp_path: Path
) -> None:
    server.lies["/file"] = liar.trickling
    limits = Limits(min_rate=1, window=0.3, deadline=1, attempts=50, backoff=0.01)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="time"):
        bring(server, tmp_path / "cache/file", limits=limits)
    assert time.monotonic() - begun < 3


def test_a_broken_download_goes_on_where_it_broke(server: liar.Liar, tmp_path: Path) -> None:
    server.lies["/file"] = liar.first(1, liar.truncated)
    bring(server, tmp_path / "file")
    assert server.requests == [("/file", ""), ("/file", f"bytes={len(CONTENT) // 2}-")]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_later_run_goes_on_where_an_earlier_one_broke(server: liar.Liar, tmp_path: Path) -> None:
    server.lies["/file"] = liar.truncated
    once = Limits(window=0.3, deadline=5, attempts=1)
    with pytest.raises(UnavailableError):
        bring(server, tmp_path / "file", limits=once)
    server.lies.clear()
    server.requests.clear()
    bring(server, tmp_path / "file")
    assert server.requests == [("/file", f"bytes={len(CONTENT) // 2}-")]


def test_what_changed_on_the_server_is_not_continued(server: liar.Liar, tmp_path: Path) -> None:
    """The part says which state it is of; a server that has another one sends that whole."""
    asked: list[str] = []

    def changed(handler: liar.Handler, content: bytes) -> None:
        asked.append(handler.headers.get("If-Range", ""))
        handler.head(200, {"Content-Length": str(len(content)), "ETag": '"two"'})
        handler.wfile.write(content)

    def half(handler: liar.Handler, content: bytes) -> None:
        handler.head(200, {"Content-Length": str(len(content)), "ETag": '"one"'})
        handler.wfile.write(bytes(len(content) // 2))

    server.lies["/file"] = half
    once = Limits(window=0.3, deadline=5, attempts=1)
    with pytest.raises(UnavailableError):
        bring(server, tmp_path / "file", limits=once)
    server.lies["/file"] = changed
    bring(server, tmp_path / "file", limits=once)
    assert asked == ['"one"']
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert os.listxattr(tmp_path / "file") == []


def test_a_rotten_beginning_is_thrown_away_once(server: liar.Liar, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"rotten" * 100)
    bring(server, tmp_path / "file")
    assert server.requests == [("/file", "bytes=600-"), ("/file", "")]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: liar.Liar, tmp_path: Path) -> None:
    def whole(handler: liar.Handler, content: bytes) -> None:
        handler.head(200, {"Content-Length": str(len(content))})
        handler.wfile.write(content)

    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    server.lies["/file"] = whole
    bring(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_redirect_to_a_web_server_is_followed(server: liar.Liar, tmp_path: Path) -> None:
    server.lies["/moved"] = liar.redirect("/file")
    fetch(f"{server.url}/moved", tmp_path / "file", wanted=WANTED, limits=LIMITS)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_twice(server: liar.Liar, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="/nothing'"):
        fetch(f"{server.url}/nothing", tmp_path / "file", wanted=WANTED, limits=LIMITS)
    assert len(server.requests) == 1
    assert not list(tmp_path.glob("*.part"))


def test_an_empty_file_is_a_file(server: liar.Liar, tmp_path: Path) -> None:
    nothing = Wanted(max_size=10, size=0, sha256=hashlib.sha256().hexdigest())
    fetch(f"{server.url}/empty", tmp_path / "empty", wanted=nothing, limits=LIMITS)
    assert (tmp_path / "empty").read_bytes() == b""


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnavailableError, match="refused"):
        fetch("http://127.0.0.1:1/file", tmp_path / "file", wanted=WANTED, limits=LIMITS)


def test_a_certificate_that_nobody_vouches_for(
    server: liar.Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    key, pem = tmp_path / "key.pem", tmp_path / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    run.run([*argv, "-keyout", key, "-out", pem])
    pem.write_text(pem.read_text() + key.read_text())
    with liar.serving(tmp_path / "www", certificate=pem) as secure:
        with pytest.raises(UnavailableError, match="certificate"):
            bring(secure, tmp_path / "file")
        assert secure.requests == []
        url, careless = f"{secure.url}/file", tls_context(verify=False)
        fetch(url, tmp_path / "file", wanted=WANTED, limits=LIMITS, tls=careless)
        assert (tmp_path / "file").read_bytes() == CONTENT
        # Hashes decide all the same, and the watchdog looks into TLS connections too.
        secure.lies["/file"] = liar.flipped
        with pytest.raises(TrustError):
            fetch(url, tmp_path / "other", wanted=WANTED, limits=LIMITS, tls=careless)
        secure.lies["/file"] = liar.redirect("http://127.0.0.1:1/file")
        with pytest.raises(UnavailableError, match="which is refused"):
            fetch(url, tmp_path / "other", wanted=WANTED, limits=LIMITS, tls=careless)
        secure.lies["/file"] = liar.stalled
        with pytest.raises(UnavailableError, match="seconds"):
            fetch(url, tmp_path / "other", wanted=WANTED, limits=LIMITS, tls=careless)


def test_a_local_file_is_checked_as_well(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    fetch(source.as_uri(), tmp_path / "file", wanted=WANTED)
    assert (tmp_path / "file").read_bytes() == CONTENT
    source.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TrustError, match=SHA256):
        fetch(str(source), tmp_path / "other", wanted=WANTED)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnavailableError, match="regular file"):
        fetch(str(tmp_path / "pipe"), tmp_path / "other", wanted=WANTED)
    assert not list(tmp_path.glob("*part"))
