"""The pages of builds: what they show, what they refuse, and what they never do."""

import gzip
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from coreimage.config import Workspace
from coreimage.errors import DataError
from coreimage.farm import queue
from coreimage.farm.executor import run_build
from coreimage.farm.folder import folder_of
from coreimage.lib.files import lock
from coreimage.lib.progress import Silent
from coreimage.model.build import Attempt, Build, BuildResult, BuildStatus
from coreimage.web.app import create_app
from coreimage.web.operator import Operator, read_token

EVIL = "<script>alert(1)</script>"
HOST = "127.0.0.1:8080"
HERE = {"sec-fetch-site": "same-origin"}
TOKEN = "0123456789abcdef-token"  # noqa: S105  a token for these tests
WRONG = "guess"


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    return TestClient(
        create_app(workspace, Operator(loopback=True)),
        base_url=f"http://{HOST}",
        follow_redirects=False,
    )


def ask(workspace: Workspace, project: str = "core", arch: str = "amd64") -> Build:
    (build,) = queue.request(
        workspace,
        project=project,
        release="13",
        series="trixie",
        arches=[arch],
        distribution="debian",
    )
    return build


def succeed(workspace: Workspace, build: Build, script: str = "") -> Build:
    output = folder_of(workspace, build.id).partial
    writes = f"import pathlib\np = pathlib.Path({str(output)!r})\n{script}\n"
    make = "(p / 'livecd.core.manifest').write_text('dash 1')\n"
    argv = [sys.executable, "-c", writes + make]
    return run_build(workspace, build.id, argv=argv, progress=Silent())


def fail(workspace: Workspace, build: Build, message: str = "no hook") -> Build:
    store = queue.open_store(workspace)
    running = store.claim(build.id, worker="me:1", now=queue.now_utc())
    ended = queue.end_of(
        running, now=queue.now_utc(), result=BuildResult.FAILURE, message=message, exit_code=65
    )
    return store.complete(build.id, ended)


def secret_of(page: str) -> str:
    found = re.search('name="secret" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_device_stands_beside_its_architecture(client: TestClient, workspace: Workspace) -> None:
    queue.request(
        workspace, project="core", release="13", series="trixie", arches=["amd64", "amd64.box"]
    )
    assert "<h1>core 13 amd64.box</h1>" in client.get("/builds/core/2/").text
    page = client.get("/builds/core/").text
    newest, _, every = page.partition("All builds")
    assert all("13 amd64 <" in part and "13 amd64.box <" in part for part in (newest, every))
    facts = client.get("/builds/core/", headers={"accept": "application/json"}).json()
    assert [each["request"]["device"] for each in facts["newest"]] == ["", "box"]


def test_without_builds_there_is_an_empty_page(client: TestClient, workspace: Workspace) -> None:
    answer = client.get("/builds/")
    assert answer.status_code == 200
    assert "There are no such builds." in answer.text
    assert not workspace.state.exists()
    assert client.get("/builds").headers["location"] == "./builds/"
    assert 'href="/builds/"' in client.get("/").text


def test_lists_filter_and_have_pages(client: TestClient, workspace: Workspace) -> None:
    for _ in range(52):
        ask(workspace)
    fail(workspace, ask(workspace, "kiosk"))
    queue.open_store(workspace).claim(1, worker="me:1", now=queue.now_utc())

    def ids(query: str) -> list[int]:
        answer = client.get(f"/builds/{query}", headers={"accept": "application/json"})
        return [each["id"] for each in answer.json()["builds"]]

    assert len(ids("")) == 50
    assert ids("?page=2") == [3, 2, 1]  # nobody holds the lock of 1: it is pending again
    assert ids("?project=kiosk") == ids("?status=completed") == ids("?result=failure") == [53]
    for key, known in (("status", "pending, running"), ("result", "success, failure")):
        refused = client.get(f"/builds/?{key}=nonsense")
        assert refused.status_code == 400
        assert f"there is no such {key}, only {known}" in refused.text
    assert ids("?page=-1") == ids("?page=x") == ids("")
    assert 'href="?page=2"' in client.get("/builds/").text
    assert 'href="?project=core&amp;page=1"' in client.get("/builds/?project=core&page=2").text


def test_a_definition_shows_the_newest_of_each(client: TestClient, workspace: Workspace) -> None:
    for arch in ("amd64", "arm64", "amd64"):
        ask(workspace, arch=arch)
    answer = client.get("/builds/core/", headers={"accept": "application/json"})
    assert [each["id"] for each in answer.json()["newest"]] == [3, 2]
    page = client.get("/builds/core/").text
    assert 'href="./3/"' in page
    assert client.get("/builds/core").headers["location"] == "./core/"
    assert client.get("/builds/2").headers["location"] == "/builds/core/2/"
    assert client.get("/builds/2/").headers["location"] == "/builds/core/2/"
    assert client.get("/builds/9/").status_code == client.get("/builds/9").status_code == 404
    assert client.get("/builds/missing/").status_code == 404


def test_a_build_shows_what_it_was_asked_for_with(client: TestClient, workspace: Workspace) -> None:
    ask(workspace)
    queue.request(
        workspace,
        project="core",
        release="13",
        series="trixie",
        arches=["amd64"],
        distribution="debian",
        subproject="system-image",
        extra={"extra_archives": ["a/b:7", "<b>"], "new_ids": True},
    )
    plain, page = (client.get(f"/builds/core/{number}/").text for number in (1, 2))
    assert "<dt>Subproject</dt><dd>none</dd>" in plain
    assert "Extra archives" not in plain
    assert "New ids" not in plain
    assert "<dt>Subproject</dt><dd>system-image</dd>" in page
    assert "<dt>Extra archives</dt><dd>a/b:7, &lt;b&gt;</dd>" in page
    assert "<dt>New ids</dt><dd>yes</dd>" in page


def test_a_build_with_files_and_log(client: TestClient, workspace: Workspace) -> None:
    build = succeed(workspace, ask(workspace), "print('made it')")
    page = client.get("/builds/core/1/")
    assert "Successfully built" in page.text
    assert "made it" in page.text
    assert "<button>" not in page.text
    assert page.headers["cache-control"] == "no-store"
    facts = client.get("/builds/core/1/", headers={"accept": "application/json"}).json()
    assert facts["status"] == "completed"
    assert facts["files"][0]["size"] == 6
    digest = facts["files"][0]["sha256"]
    assert digest in page.text
    assert client.get("/builds/core/1/files/livecd.core.manifest").text == "dash 1"
    assert client.get("/builds/core/1/log").text == "made it\n"
    packed = client.get("/builds/core/1/buildlog_debian_trixie_amd64_core_BUILDING.txt.gz")
    assert gzip.decompress(packed.content) == b"made it\n"
    assert build.artifacts == ("livecd.core.manifest",)


def test_a_log_is_handed_out_piece_by_piece(client: TestClient, workspace: Workspace) -> None:
    build = ask(workspace)
    queue.open_store(workspace)
    log = folder_of(workspace, build.id).log
    log.write_bytes(b"x" * (300 << 10))
    first = client.get("/builds/core/1/log?from=0")
    assert len(first.content) == 256 << 10
    assert first.headers["x-log-position"] == str(256 << 10)
    assert first.headers["x-build-status"] == "pending"
    rest = client.get("/builds/core/1/log", params={"from": 256 << 10})
    assert len(rest.content) == 44 << 10
    assert client.get("/builds/core/1/log?from=999999999").content == b""
    assert client.get("/builds/core/1/log?from=-1").status_code == 400


def test_of_a_big_log_the_page_has_the_end(client: TestClient, workspace: Workspace) -> None:
    build = ask(workspace)
    folder_of(workspace, build.id).log.write_text(
        "".join(f"line {number}\n" for number in range(100_000))
    )
    page = client.get("/builds/core/1/").text
    assert len(page) < 100_000
    assert "line 99999" in page
    assert "the whole of it" in page
    assert 'data-position="1088890"' in page


def test_everything_is_escaped(client: TestClient, workspace: Workspace) -> None:
    build = fail(workspace, ask(workspace, EVIL), message=EVIL)
    folder = folder_of(workspace, build.id)
    folder.log.write_text(f"{EVIL}\n\x1b[31mred\n")
    for url in ("/builds/", f"/builds/?project={EVIL}", f"/builds/?status={EVIL}"):
        assert EVIL not in client.get(url).text
    name = "%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    assert name not in client.get(f"/builds/{name}/").text  # a slash in a name: no such page
    quiet = fail(workspace, ask(workspace, "<b>bold"), message=EVIL)
    folder_of(workspace, quiet.id).log.write_text(f"{EVIL}\n\x1b[31mred\n")
    page = client.get("/builds/%3Cb%3Ebold/2/").text
    assert EVIL not in page
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_policy_allows_our_script_alone(client: TestClient, workspace: Workspace) -> None:
    ask(workspace)
    folder_of(workspace, 1).log.write_text("x\n")
    answer = client.get("/builds/core/1/")
    policy = answer.headers["content-security-policy"]
    assert answer.text.count("<script") == 1
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+'; connect-src 'self'", policy)
    assert "unsafe" not in policy
    # Without it browsers would not say that our own forms come from us.
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "script-src" not in client.get("/").headers["content-security-policy"]


ABSENT = (
    "/builds/core/1/files/..%2fbuild.json",
    "/builds/core/1/files/%2e%2e/build.json",
    "/builds/core/1/files//etc/passwd",
    "/builds/core/1/files/secret",
    "/builds/core/1/files/link",
    "/builds/core/1/files/",
    "/builds/core/1/buildlog_..%2fbuild.json",
    "/builds/core/1/buildlog_x",
    "/builds/core/1/build.json",
    "/builds/core/1/lock",
    "/builds/core/%2e%2e/1/",
    "/builds/core/01/",
    "/builds/other/1/",
    "/builds/core/9/",
    "/builds/core/99999999999999999999999/",
    "/builds/99999999999999999999999",
    "/builds/core/%00/",
    "/builds/%ff/",
    "/builds//",
    "/builds/core/1/files/..%2f..%2f..%2fcoreimage.toml",
)


def test_what_is_not_a_builds_is_not_found(client: TestClient, workspace: Workspace) -> None:
    script = "(p / 'link').symlink_to('../../../coreimage.toml')"
    succeed(workspace, ask(workspace), script)
    (folder_of(workspace, 1).artifacts / "secret").write_text("not recorded")
    for url in ABSENT:
        assert client.get(f"http://{HOST}{url}").status_code == 404, url


def post(
    client: TestClient,
    *,
    action: str = "abort",
    headers: Mapping[str, str] = HERE,
    secret: str | None = None,
    **form: str,
) -> int:
    given = secret_of(client.get("/builds/core/1/").text) if secret is None else secret
    fields = {"secret": given, **form}
    return int(client.post(f"/builds/core/1/{action}", data=fields, headers=headers).status_code)


def status(workspace: Workspace) -> BuildStatus:
    return queue.get(workspace, 1).status


def test_abort_and_retry(client: TestClient, workspace: Workspace) -> None:
    ask(workspace)
    assert post(client) == 303
    assert status(workspace) is BuildStatus.ABORTED
    assert post(client, action="retry") == 303
    assert status(workspace) is BuildStatus.PENDING
    assert post(client, action="retry") == 409


def test_a_running_build_is_asked_to_end(client: TestClient, workspace: Workspace) -> None:
    build = ask(workspace)
    store = queue.open_store(workspace)
    with lock(folder_of(workspace, 1).lock, purpose="test"):
        store.claim(build.id, worker="me:1", now=queue.now_utc())
        assert post(client) == 303
        assert store.get(1).abort_asked
        page = client.get("/builds/core/1/").text
        assert "to be aborted" in page
        assert "<button>" not in page


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9"},
        {**HERE, "host": "evil.example"},
        {**HERE, "host": "127.0.0.1.evil.example"},
        {**HERE, "x-forwarded-for": "192.0.2.1"},
        {**HERE, "authorization": "Bearer guess"},
    ],
    ids=str,
)
def test_others_change_nothing(
    client: TestClient, workspace: Workspace, headers: dict[str, str]
) -> None:
    ask(workspace)
    assert post(client, headers=headers) == 403
    assert status(workspace) is BuildStatus.PENDING


def test_an_origin_that_is_ours_is_enough(client: TestClient, workspace: Workspace) -> None:
    ask(workspace)
    assert post(client, headers={"origin": f"http://{HOST}"}) == 303


def test_neither_a_form_of_old_nor_a_get_changes_anything(
    client: TestClient, workspace: Workspace
) -> None:
    ask(workspace)
    assert post(client, secret=WRONG) == 403
    assert post(client, secret="x" * 5000) == 403
    for method in ("GET", "HEAD"):
        assert client.request(method, "/builds/core/1/abort", headers=HERE).status_code == 405
    assert client.post("/builds/core/1/", headers=HERE).status_code == 405
    assert client.put("/builds/core/1/abort", headers=HERE).status_code == 405
    assert status(workspace) is BuildStatus.PENDING


def test_on_other_addresses_there_are_no_buttons(workspace: Workspace) -> None:
    ask(workspace)
    client = TestClient(create_app(workspace, Operator()), base_url=f"http://{HOST}")
    assert "<form" not in client.get("/builds/core/1/").text
    assert post(client, secret=WRONG) == 403


def test_an_operator_has_a_token(workspace: Workspace) -> None:
    ask(workspace)
    client = TestClient(
        create_app(workspace, Operator(token=TOKEN)),
        base_url="http://builds.example",
        follow_redirects=False,
    )
    assert post(client) == 403
    assert post(client, token=WRONG) == 403
    assert status(workspace) is BuildStatus.PENDING
    assert post(client, token=TOKEN) == 303
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert client.post("/builds/core/1/retry", headers=bearer).status_code == 303
    assert status(workspace) is BuildStatus.PENDING


def test_a_token_has_a_length(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    path.write_text("short")
    with pytest.raises(DataError, match="has 5 characters, at least 16"):
        read_token(path)
    with pytest.raises(DataError, match="No such file"):
        read_token(tmp_path / "missing")


def test_attempts_are_shown(client: TestClient, workspace: Workspace) -> None:
    build = ask(workspace)
    store = queue.open_store(workspace)
    store.claim(build.id, worker="me:1", now=queue.now_utc())
    queue.get(workspace, build.id)
    fail(workspace, build)
    (lost, last) = store.get(build.id).attempts
    assert isinstance(lost, Attempt)
    page = client.get("/builds/core/1/").text
    assert lost.message in page
    assert last.message in page
