import os
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from coreimage.config import Workspace
from coreimage.web.listing import Entry, list_folder
from coreimage.web.pages import exact_size, human_size

SERIES = "ubuntu-core/vivid/daily-preinstalled"


@pytest.fixture
def series(workspace: Workspace) -> Path:
    folder = workspace.publications / SERIES
    for name in ("20150402.9", "20150402.10", "20150402", "20150511", "extra", ".scratch-1"):
        (folder / name).mkdir(parents=True)
    (folder / "pending").symlink_to("20150511")
    (folder / "current").symlink_to("20150402.10")
    (folder / "out").symlink_to("/etc")
    (folder / "gone").symlink_to("nowhere")
    (folder / "hidden").symlink_to(".scratch-1")
    (folder / "FILE").write_text("")
    os.mkfifo(folder / "pipe")
    return folder


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href is not None:
            self.found.append(href)


def test_marks_first_then_publications_by_number_then_files(
    series: Path, workspace: Workspace
) -> None:
    entries = list_folder(series, workspace.publications)

    assert [(entry.name, entry.target) for entry in entries] == [
        ("current", "20150402.10"),
        ("pending", "20150511"),
        ("20150511", ""),
        ("20150402.10", ""),
        ("20150402.9", ""),
        ("20150402", ""),
        ("extra", ""),
        ("FILE", ""),
    ]


def test_the_page_links_everything_and_every_link_works(client: TestClient, series: Path) -> None:
    (series / "20150511/a b & <i>.tar.gz").write_text("x")
    (series / "20150511/100%#?;.manifest").write_text("x")
    (series / "20150511/a:b").write_text("x")
    url = f"/cdimage/{SERIES}/20150511/"
    links = Links(client.get(url).text).found

    assert len(links) == 5 + 1 + 3
    for link in links:
        assert client.get(client.base_url.join(url).join(link)).status_code == 200


def test_names_are_escaped(client: TestClient, series: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\"'"
    (series / name).mkdir()
    parent = client.get(f"/cdimage/{SERIES}/").text
    inside = client.get(f"/cdimage/{SERIES}/%3Cimg%20src=x%20onerror=alert(1)%3E&%22'/")

    assert inside.status_code == 200
    for page in (parent, inside.text):
        assert "<img" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;" in page


def test_names_that_are_no_text_are_left_out(workspace: Workspace) -> None:
    (workspace.publications / "good").mkdir()
    (workspace.publications / os.fsdecode(b"bad\xff")).mkdir()

    names = [entry.name for entry in list_folder(workspace.publications, workspace.publications)]
    assert names == ["good"]


def test_sizes_and_dates_are_shown(client: TestClient, series: Path) -> None:
    path = series / "20150511/vivid-preinstalled-core-amd64.tar.gz"
    with path.open("wb") as file:
        file.truncate(95_740_123)
    os.utime(path, (1_431_347_700, 1_431_347_700))
    page = client.get(f"/cdimage/{SERIES}/20150511/").text

    assert "95.7 MB" in page
    assert "95\u202f740\u202f123 bytes" in page
    assert "root filesystem" in page
    assert '<time datetime="2015-05-11T12:35:00+00:00">2015-05-11 12:35</time>' in page


def test_a_mark_says_what_it_is(client: TestClient, series: Path) -> None:
    assert series.is_dir()
    page = client.get(f"/cdimage/{SERIES}/pending/").text

    assert 'Now the same as <a href="../20150511/">20150511</a>.' in page
    assert "Now the same as" not in client.get(f"/cdimage/{SERIES}/20150511/").text
    assert "Now the same as" not in client.get("/cdimage/").text


def test_an_empty_directory(client: TestClient) -> None:
    assert "This directory is empty." in client.get("/cdimage/").text


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (41_860_000, "41.9 MB"),
        (99_960, "100.0 kB"),
        (128_000_000, "128 MB"),
        (999_600, "1.0 MB"),
        (5_000_000_000, "5.0 GB"),
        (10**18, "1000000 TB"),
    ],
)
def test_human_size(size: int, shown: str) -> None:
    assert human_size(size) == shown


def test_exact_size() -> None:
    assert exact_size(1_234_567) == "1\u202f234\u202f567 bytes"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vivid-preinstalled-core-amd64.tar.gz", "root filesystem"),
        ("vivid-preinstalled-core-amd64.device.tar.gz", "kernel and boot files"),
        ("vivid-preinstalled-core-amd64.manifest", "packages and their versions"),
        ("vivid-preinstalled-core-amd64.cdx.json", "bill of materials (CycloneDX)"),
        ("something", ""),
    ],
)
def test_files_of_a_publication_have_names_for_people(name: str, kind: str) -> None:
    entry = Entry(name=name, is_folder=False, modified=datetime(2026, 11, 23, tzinfo=UTC))
    assert entry.kind == kind
