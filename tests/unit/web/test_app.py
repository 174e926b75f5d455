import base64
import hashlib
import os
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from coreimage.config import Workspace, load_workspace
from coreimage.web.app import create_app


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("url", ["/", "/channels.json", "/cdimage/", "/cdimage", "/missing"])
def test_other_methods_are_refused(client: TestClient, method: str, url: str) -> None:
    answer = client.request(method, url)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "url",
    [
        "/missing",
        "/missing/",
        "/pool",
        "/pool/",
        "/cdimage/missing",
        "/%2e%2e/coreimage.toml",
        "/%2e%2e%2fcoreimage.toml",
        "/..%2f..%2fcoreimage.toml",
        "/cdimage/%2e%2e/system-image/channels.json",
        "/cdimage/..%2fsystem-image/channels.json",
        "/%252e%252e/coreimage.toml",
        "/channels.json%00",
        "/%00",
        "/channels.json%0a",
        "/%0a",
        "/cdimage/%0a",
        "/cdimage%0a",
        "/channels.json/",
        "//channels.json",
        "/pool//x",
        "/.scratch-1/x",
        "/cdimage/core/.publish_info",
        "/%ff%fe",
        "/..\\coreimage.toml",
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, workspace: Workspace, url: str) -> None:
    for path in (
        *["system-image/channels.json", "system-image/pool/x", "system-image/.scratch-1/x"],
        "cdimage/core/.publish_info",
    ):
        file = workspace.root / "www" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    answer = client.get("http://testserver" + url)

    assert answer.status_code == 404
    assert answer.text == "not found\n"
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_pool_is_for_ever_and_the_rest_is_asked_for_again(
    client: TestClient, workspace: Workspace
) -> None:
    for path in ("pool/a.tar.xz", "pool/a.tar.xz.asc", "channels.json", "channels.json.asc"):
        (workspace.channel_tree / path).parent.mkdir(exist_ok=True)
        (workspace.channel_tree / path).write_text("")

    def cache(url: str) -> str:
        return str(client.get(url).headers["cache-control"])

    assert cache("/pool/a.tar.xz") == "public, max-age=31536000, immutable"
    for url in ("/pool/a.tar.xz.asc", "/channels.json", "/channels.json.asc", "/"):
        assert cache(url) == "no-cache"


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/missing", 404),
        ("GET", "/cdimage", 301),
        ("POST", "/", 405),
        ("GET", "/channels.json", 200),
    ],
)
def test_every_response_restricts_browsers(
    client: TestClient, workspace: Workspace, method: str, url: str, status: int
) -> None:
    (workspace.channel_tree / "channels.json").write_text("{}")
    answer = client.request(method, url)

    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith(
        "default-src 'none'; style-src 'sha256-"
    )


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(client: TestClient) -> None:
    answer = client.get("/")
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)

    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_directories_get_their_slash_by_a_relative_redirect(
    client: TestClient, workspace: Workspace
) -> None:
    (workspace.publications / "core/a b#?%").mkdir(parents=True)

    assert client.get("/cdimage").headers["location"] == "./cdimage/"
    assert client.get("/cdimage/core").headers["location"] == "./core/"
    answer = client.get("/cdimage/core/a%20b%23%3f%25")
    assert answer.status_code == 301
    assert answer.headers["location"] == "./a%20b%23%3F%25/"


def test_a_workspace_without_trees(tmp_path: Path) -> None:
    (tmp_path / "coreimage.toml").write_text("")
    client = TestClient(create_app(load_workspace(tmp_path)))

    front = client.get("/")
    assert front.status_code == 200
    assert "There are no channels yet." in front.text
    assert "There are no publications yet." in front.text
    assert client.get("/channels.json").status_code == 404
    assert client.get("/cdimage/").status_code == 404


def test_no_descriptor_is_left_open(client: TestClient, workspace: Workspace) -> None:
    (workspace.channel_tree / "channels.json").write_text("{}")

    def ask() -> None:
        etag = client.get("/channels.json").headers["etag"]
        client.head("/channels.json")
        client.get("/channels.json", headers={"if-none-match": etag})
        client.get("/channels.json", headers={"range": "bytes=9-"})
        client.get("/cdimage/")
        client.get("/missing")

    ask()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a count
    for _ in range(5):
        ask()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
