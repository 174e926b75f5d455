import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from coreimage.config import Workspace
from coreimage.web.delivery import Span, content_type, parse_range

BODY = bytes(range(256)) * 8000  # several chunks


@pytest.fixture
def url(workspace: Workspace) -> str:
    (workspace.channel_tree / "pool").mkdir()
    path = workspace.channel_tree / "pool/ubuntu-1.tar.xz"
    path.write_bytes(BODY)
    os.utime(path, (1_700_000_000.5, 1_700_000_000.5))
    return "/pool/ubuntu-1.tar.xz"


def test_get_and_head_say_the_same(client: TestClient, url: str) -> None:
    got, head = client.get(url), client.head(url)

    assert got.status_code == head.status_code == 200
    assert got.content == BODY
    assert head.content == b""
    assert got.headers == head.headers
    assert got.headers["content-length"] == str(len(BODY))
    assert got.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert got.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000000-", 1_000_000, len(BODY)),
        ("bytes=-5", len(BODY) - 5, len(BODY)),
        ("bytes=5-99999999999", 5, len(BODY)),
        ("bytes=-99999999999", 0, len(BODY)),
    ],
)
def test_a_range(client: TestClient, url: str, asked: str, start: int, end: int) -> None:
    answer = client.get(url, headers={"range": asked})

    assert answer.status_code == 206
    assert answer.content == BODY[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BODY)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", [f"bytes={len(BODY)}-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_that_the_file_does_not_have(client: TestClient, url: str, asked: str) -> None:
    answer = client.get(url, headers={"range": asked})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(BODY)}"


@pytest.mark.parametrize(
    "asked",
    [
        *["bytes=0-1,4-5", "bytes=5-1", "bytes=-", "bytes=a-b", "items=0-1", "0-1", "bytes=1"],
        "bytes=٣-٤",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_other_ranges_get_the_whole_file(client: TestClient, url: str, asked: str) -> None:
    answer = client.get(url, headers={"range": asked.encode()})

    assert answer.status_code == 200
    assert answer.content == BODY


def test_head_has_no_range(client: TestClient, url: str) -> None:
    answer = client.head(url, headers={"range": "bytes=0-1"})

    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(BODY))


def test_if_range_sends_the_whole_of_another_file(client: TestClient, url: str) -> None:
    first = client.get(url).headers
    for validator, status in (
        (first["etag"], 206),
        (first["last-modified"], 206),
        ('"another"', 200),
        ("W/" + first["etag"], 200),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
    ):
        asked = {"range": "bytes=0-9", "if-range": validator}
        assert client.get(url, headers=asked).status_code == status


def test_an_unchanged_file_is_not_sent_again(client: TestClient, url: str) -> None:
    etag = client.get(url).headers["etag"]
    for asked in (
        {"if-none-match": etag},
        {"if-none-match": f'"x", W/{etag}'},
        {"if-none-match": "*"},
        {"if-modified-since": "Tue, 14 Nov 2023 22:13:20 GMT"},
        {"if-modified-since": "Wed, 15 Nov 2023 22:13:20 GMT"},
    ):
        answer = client.get(url, headers=asked)
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == etag


@pytest.mark.parametrize(
    "asked",
    [
        {"if-none-match": '"x"'},
        {"if-none-match": '"x"', "if-modified-since": "Wed, 15 Nov 2023 22:13:20 GMT"},
        {"if-modified-since": "Tue, 14 Nov 2023 22:13:19 GMT"},
        {"if-modified-since": "yesterday"},
        {"if-modified-since": ""},
    ],
)
def test_a_changed_file_is_sent(client: TestClient, url: str, asked: dict[str, str]) -> None:
    assert client.get(url, headers=asked).status_code == 200


def test_the_etag_changes_with_the_file(client: TestClient, url: str, workspace: Workspace) -> None:
    before = client.get(url).headers["etag"]
    new = workspace.channel_tree / "pool/new"
    new.write_bytes(BODY[::-1])
    os.utime(new, (1_700_000_000.5, 1_700_000_000.5))
    new.replace(workspace.channel_tree / "pool/ubuntu-1.tar.xz")

    assert client.get(url).headers["etag"] != before


def test_an_empty_file(client: TestClient, workspace: Workspace) -> None:
    (workspace.channel_tree / "empty").write_bytes(b"")

    assert client.get("/empty").content == b""
    assert client.get("/empty").headers["content-length"] == "0"
    assert client.get("/empty", headers={"range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("channels.json", "application/json"),
        ("vivid-preinstalled-core-amd64.cdx.json", "application/json"),
        ("channels.json.asc", "application/pgp-signature"),
        ("SHA256SUMS.gpg", "application/pgp-signature"),
        ("ubuntu-1.tar.xz", "application/x-xz"),
        ("vivid-preinstalled-core-amd64.tar.gz", "application/gzip"),
        ("SHA256SUMS", "text/plain; charset=utf-8"),
        ("vivid-preinstalled-core-amd64.manifest", "text/plain; charset=utf-8"),
        ("build.log", "text/plain; charset=utf-8"),
        ("page.html", "application/octet-stream"),
        ("noending", "application/octet-stream"),
    ],
)
def test_content_type(name: str, expected: str) -> None:
    assert content_type(name) == expected


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 1000))
def test_any_range_lies_within_the_file(header: str, size: int) -> None:
    span = parse_range(header, size)

    assert span is None or span.length == 0 or span.start + span.length <= size


def test_parse_range_of_an_empty_file() -> None:
    assert parse_range("bytes=-5", 0) == Span(start=0, length=0)
