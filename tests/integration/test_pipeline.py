"""From finished builds to publications, with a real queue and a real key."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.config import Settings, Workspace
from coreimage.errors import BusyError, CoreImageError, DataError
from coreimage.farm import folder, queue
from coreimage.lib import run
from coreimage.lib.files import lock
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.build import Build, BuildResult
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import Publication
from coreimage.pipeline import builds, publishing, road
from coreimage.publisher import marks
from coreimage.rootfs.build import artifact_names

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("keys") / "gpg"
    Signer(home).generate(KeyringType.IMAGE_SIGNING)
    return home


@pytest.fixture
def workspace(tmp_path: Path, keys: Path) -> Workspace:
    made = Workspace(root=tmp_path, settings=Settings())
    made.gpg_home.parent.mkdir()
    made.gpg_home.symlink_to(keys)
    return made


def request(workspace: Workspace, *arches: str) -> list[Build]:
    return queue.request(
        workspace,
        project="core",
        release="13",
        series="trixie",
        arches=arches or ["amd64"],
        clock=lambda: NOON,
    )


def end(workspace: Workspace, build: Build, result: BuildResult = BuildResult.SUCCESS) -> Path:
    """End a build with a result, with the artifacts of its project; return their folder."""
    place = folder.folder_of(workspace, build.id).artifacts
    place.mkdir(parents=True)
    names = artifact_names("core")
    sums = {}
    for kind in ("rootfs", "device", "manifest", "sbom"):
        content = f"{kind} of {build.id}".encode()
        (place / names[kind]).write_bytes(content)
        sums[names[kind]] = sha256(content).hexdigest()
    (place / names["record"]).write_text(json.dumps({"product": "core", "sha256": sums}))
    store = queue.open_store(workspace)
    with lock(place.parent / "lock", purpose="test"):
        running = store.claim(build.id, worker="me:1", now=NOON)
        store.complete(build.id, queue.end_of(running, now=NOON, result=result))
    return place


def publish(workspace: Workspace) -> list[str]:
    return [each.version for each in publishing.publish_finished(workspace, progress=Silent())]


def names(workspace: Workspace, version: str) -> list[str]:
    place = Publication(project="core", series="trixie", version=version).path
    return sorted(path.name for path in (workspace.publications / place).iterdir())


def test_a_finished_build_is_published_once(workspace: Workspace, keys: Path) -> None:
    (build,) = request(workspace)
    assert publish(workspace) == []
    end(workspace, build)
    assert publish(workspace) == ["20261123"]
    assert names(workspace, "20261123") == [
        ".publish_info",
        "SHA256SUMS",
        "SHA256SUMS.gpg",
        "trixie-preinstalled-core-amd64.cdx.json",
        "trixie-preinstalled-core-amd64.device.tar.gz",
        "trixie-preinstalled-core-amd64.manifest",
        "trixie-preinstalled-core-amd64.tar.gz",
    ]
    place = workspace.publications / "core/trixie/daily-preinstalled/pending"
    ring = Signer(keys).public_keyring(KeyringType.IMAGE_SIGNING)
    run.run(["gpgv", "--keyring", ring, place / "SHA256SUMS.gpg", place / "SHA256SUMS"])
    run.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place)
    assert publish(workspace) == []


def test_builds_are_published_oldest_first_and_old_ones_not_at_all(workspace: Workspace) -> None:
    builds = [request(workspace)[0] for _ in range(12)]
    for build in (builds[11], builds[9], builds[10]):
        end(workspace, build)
    assert publish(workspace) == ["20261123.9", "20261123.10", "20261123.11"]
    end(workspace, builds[3])
    assert publish(workspace) == []
    assert len(marks.publications(workspace.publications)) == 3


def test_a_set_waits_for_all_of_its_builds(workspace: Workspace) -> None:
    first, second = request(workspace, "amd64", "arm64")
    end(workspace, first)
    assert publish(workspace) == []
    end(workspace, second)
    assert publish(workspace) == ["20261123"]
    assert len(names(workspace, "20261123")) == 11


def test_a_build_whose_set_is_published_is_not_tried_again(workspace: Workspace) -> None:
    first, second = request(workspace, "amd64", "arm64")
    end(workspace, first, BuildResult.FAILURE)
    end(workspace, second)
    (later,) = request(workspace)
    end(workspace, later, BuildResult.FAILURE)
    assert builds.retry_build(workspace, first.id).label == "Needs building"
    queue.abort(workspace, first.id)
    assert publish(workspace) == ["20261123"]

    with pytest.raises(CoreImageError, match="'1' would not be published: its image set 20261123"):
        builds.retry_build(workspace, first.id)
    assert builds.retry_build(workspace, later.id).label == "Needs building"


def test_a_set_is_published_without_the_builds_that_failed(workspace: Workspace) -> None:
    first, second = request(workspace, "amd64", "arm64")
    end(workspace, first, BuildResult.FAILURE)
    end(workspace, second)
    assert publish(workspace) == ["20261123"]
    assert "trixie-preinstalled-core-amd64.tar.gz" not in names(workspace, "20261123")


@pytest.mark.parametrize("lacking", ["device", "sbom"])
def test_what_a_build_does_not_have_is_not_published(workspace: Workspace, lacking: str) -> None:
    (build,) = request(workspace)
    place, name = end(workspace, build), artifact_names("core")[lacking]
    path = place / artifact_names("core")["record"]
    record = json.loads(path.read_text())
    del record["sha256"][name]
    path.write_text(json.dumps(record))
    assert publish(workspace) == ["20261123"]
    assert len(names(workspace, "20261123")) == 6


@pytest.mark.parametrize("kind", ["rootfs", "device", "manifest", "sbom"])
def test_an_artifact_with_a_flipped_byte_is_not_published(workspace: Workspace, kind: str) -> None:
    (build,) = request(workspace)
    path = end(workspace, build) / artifact_names("core")[kind]
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not what was built"):
        publish(workspace)
    assert marks.publications(workspace.publications) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"product": "core"}',
        '{"product": "core", "sha256": {}}',
        '{"product": "core", "sha256": []}',
        '{"product": 7, "sha256": {}}',
    ],
)
def test_a_record_that_says_nothing_is_refused(workspace: Workspace, text: str) -> None:
    (build,) = request(workspace)
    (end(workspace, build) / artifact_names("core")["record"]).write_text(text)
    with pytest.raises(DataError, match="core") as caught:
        publish(workspace)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("product", ["../../../x", "a/b", "a b", "a\n"])
def test_a_record_cannot_lead_elsewhere(workspace: Workspace, product: str) -> None:
    (build,) = request(workspace)
    path = end(workspace, build) / artifact_names("core")["record"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "product": product}))
    with pytest.raises(DataError, match="cannot stand in SHA256SUMS"):
        publish(workspace)
    assert marks.publications(workspace.publications) == []


def test_one_goes_the_road_at_a_time(workspace: Workspace) -> None:
    with (
        lock(workspace.state / "locks/pipeline.lock", purpose="another"),
        pytest.raises(BusyError, match="'pipeline' is in use by process"),
    ):
        road.advance(workspace, progress=Silent())
