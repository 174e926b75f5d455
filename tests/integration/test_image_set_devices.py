"""Image sets in which a device of the definition stands beside its architecture."""

import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from coreimage import imageset
from coreimage.config import Workspace, load_workspace
from coreimage.errors import CoreImageError, DataError, IncompleteError, NotFoundError
from coreimage.farm import folder, queue
from coreimage.farm.trigger import parse_trigger
from coreimage.imageset import Order, When, make_set
from coreimage.lib.progress import Silent
from coreimage.model.build import BuildRequest
from coreimage.pipeline import builds, importing, road
from coreimage.rootfs.definitions.definition import definition_places, select
from coreimage.systemimage.imports import importer
from coreimage.systemimage.tree import layout, pool
from tests.integration.image_sets import (  # noqa: F401  fixtures are found by their names
    FAILS,
    TODAY,
    Builder,
    directory,
    noon,
    published,
    space_fixture,
    tarballs,
    trigger,
)
from tests.support.publications import device_members, rootfs_members, tarball

BOTH = ("amd64", "amd64+box")
CHANNELS = """
[channels."ubuntu-core/15.04/edge"]
project = "ubuntu-core"
release = "15.04"
devices = { box = "amd64.box", generic_amd64 = "amd64", azure_amd64 = "amd64.azure" }
files = [
    { generator = "cdimage-rootfs" },
    { generator = "cdimage-device", devices = ["box", "generic_amd64"] },
]
"""
WRITE = 'path.write_text(f"{kind} {text}")'
COPY = 'path.write_bytes(pathlib.Path(f"{sys.argv[3]}.{kind}").read_bytes())'


class RealBuilder(Builder):
    """Leaves tarballs that can be imported, other ones for each target."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place
        place.mkdir()

    def __call__(self, request: BuildRequest, output: Path, extra: Sequence[str]) -> list[str]:
        made = {
            "rootfs.tar.gz": tarball(rootfs_members(text=request.target)),
            "device.tar.gz": tarball(device_members(request.target)),
            "manifest": b"",
            "cdx.json": b"{}",
        }
        for kind, content in made.items():
            (self._place / f"{request.target}.{kind}").write_bytes(content)
        argv = super().__call__(request, output, extra)
        argv[2] = argv[2].replace(WRITE, COPY)
        return [*argv, str(self._place / request.target)]


def configured(space: Workspace) -> Workspace:
    config = space.root / "coreimage.toml"
    config.write_text(f"{config.read_text()}{CHANNELS}")
    return load_workspace(space.root)


def test_a_device_is_built_and_published_beside_its_arch(space: Workspace) -> None:
    builder = Builder()
    # The generic device by its own name is the architecture, and nothing is built twice.
    outcome = trigger(space, builder, arches=[*BOTH, "amd64+generic_amd64"])

    assert outcome.complaint() is None
    assert published(space) == tarballs(**{"amd64": "one", "amd64.box": "one"})
    assert [(each.arch, each.device) for each in builder.requests] == [
        ("amd64", ""),
        ("amd64", "box"),
    ]
    packed = folder.folder_of(space, 2).packed_log
    assert packed is not None
    assert packed.name == (
        "buildlog_ubuntu_vivid_amd64.box_ubuntu-core-system-image_BUILDING.txt.gz"
    )


def test_a_device_that_failed_is_carried_over_by_itself(space: Workspace) -> None:
    trigger(space, Builder(), arches=BOTH)
    outcome = trigger(space, Builder({"amd64.box": FAILS}, text="two"), arches=BOTH)

    assert list(outcome.failures) == ["amd64.box"]
    complaint = outcome.complaint()
    assert isinstance(complaint, IncompleteError)
    assert "without new builds for: amd64.box" in complaint.message
    assert published(space, f"{TODAY}.1") == tarballs(**{"amd64": "two", "amd64.box": "one"})
    trigger(space, Builder({"amd64": FAILS}, text="three"), arches=BOTH)
    assert published(space, f"{TODAY}.2") == tarballs(**{"amd64": "two", "amd64.box": "three"})


def test_a_device_that_there_is_not_is_answered_with_those_there_are(space: Workspace) -> None:
    builder = Builder()
    with pytest.raises(NotFoundError, match="no device 'bix' of architecture 'amd64'") as caught:
        trigger(space, builder, arches=["amd64+bix"])
    assert caught.value.hint == "its devices are generic_amd64, box"
    with pytest.raises(NotFoundError, match="no device 'box' of architecture 'arm64'") as caught:
        trigger(space, builder, arches=["arm64+box"])
    assert caught.value.hint == "its devices are generic_arm64, box (amd64)"
    assert builder.asked == []


def test_a_retry_that_comes_too_late_says_how_to_ask_for_the_device(space: Workspace) -> None:
    trigger(space, Builder({"amd64.box": FAILS}), arches=BOTH)
    with pytest.raises(CoreImageError, match="would not be published") as caught:
        builds.retry_build(space, 2)
    assert caught.value.hint.endswith("--arch amd64 --device box")


def into_edge(space: Workspace, builder: Builder, *arches: str) -> imageset.Outcome:
    return make_set(
        space,
        Order(project="ubuntu-core", arches=arches, channel="edge"),
        when=When.ALWAYS,
        host="amd64",
        progress=Silent(),
        command=builder,
        clock=noon,
    )


def test_from_arches_to_a_channel(space: Workspace, tmp_path: Path) -> None:
    """The words of cron's line, through publication and import, each device with its own files."""
    space = configured(space)
    asked = parse_trigger({"PROJECT": "ubuntu-core", "ARCHES": " ".join(BOTH), "CHANNEL": "edge"})
    assert asked.channel == "edge"
    outcome = into_edge(space, RealBuilder(tmp_path / "made"), *asked.arches)

    assert [each.version for each in outcome.published] == [TODAY]
    assert set(outcome.imports) == {"box", "generic_amd64", "azure_amd64"}
    prefix = "vivid-preinstalled-core-"
    sources = {
        "box": [f"{prefix}amd64.box.tar.gz", f"{prefix}amd64.box.device.tar.gz"],
        "generic_amd64": [f"{prefix}amd64.tar.gz", f"{prefix}amd64.device.tar.gz"],
        "azure_amd64": [f"{prefix}amd64.tar.gz"],
    }
    for device, names in sources.items():
        image = outcome.imports[device].image
        found = [pool.find(space, each) for each in image.files[:-1]]
        assert [each and each.sidecar.recipe.source for each in found] == names
        text = "amd64.box" if device == "box" else "amd64"
        with tarfile.open(layout.local_path(space, image.files[0].path)) as tar:
            motd = tar.extractfile("system/etc/motd")
            assert motd is not None
            assert motd.read().decode() == text

    name = "ubuntu-core/15.04/edge"
    plan = importer.plan_import(
        space,
        channel=name,
        device="box",
        settings=importing.channel_settings(space, name),
        progress=Silent(),
        now=noon(),
    )
    assert (plan.version, plan.changed) == (1, False)
    again = road.advance(space, progress=Silent())
    assert {device: each.changed for device, each in again[name].items()} == dict.fromkeys(
        sources, False
    )


def test_a_device_waits_for_its_first_publication_alone(space: Workspace, tmp_path: Path) -> None:
    space, builder = configured(space), RealBuilder(tmp_path / "made")
    assert set(into_edge(space, builder, "amd64+box").imports) == {"box"}
    assert set(into_edge(space, builder, "amd64").imports) == {
        "box",
        "generic_amd64",
        "azure_amd64",
    }
    # Who has images already is told when there is nothing any more.
    shutil.rmtree(directory(space))
    with pytest.raises(NotFoundError, match=r"no publication in .* can be imported"):
        into_edge(space, builder, "amd64")


def test_what_was_built_must_be_imported(space: Workspace, tmp_path: Path) -> None:
    config = space.root / "coreimage.toml"
    good = CHANNELS.replace('release = "15.04"', 'release = "15.04"\naccept = "good"')
    config.write_text(f"{config.read_text()}{good}")
    space, builder = load_workspace(space.root), RealBuilder(tmp_path / "made")
    trigger(space, builder, arches=["amd64"])
    (directory(space) / ".marked_good").touch()
    with pytest.raises(NotFoundError, match=r"no publication in .* can be imported"):
        into_edge(space, builder, "amd64+box")


def test_the_road_of_a_device_needs_a_channel_that_takes_it(space: Workspace) -> None:
    def go(channel: str) -> NotFoundError:
        with pytest.raises(NotFoundError) as caught:
            road.run_road(
                space,
                project="ubuntu-core",
                release=None,
                arch="amd64",
                device="box",
                channel=channel,
                force=False,
                progress=Silent(),
            )
        return caught.value

    refused = go("edge")
    assert "has no device of architecture 'amd64.box'" in refused.message
    line = 'devices = { generic_amd64 = "amd64", box_amd64 = "amd64.box" }'
    assert refused.hint.startswith(f"write {line} below [channels.")
    assert queue.list_builds(space) == []


def test_what_changed_is_told_by_target(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    places = definition_places(space.root)
    selections = [select("ubuntu-core", None, "amd64", places, device) for device in (None, "box")]
    monkeypatch.setattr(
        builds, "look_for_build", lambda _space, each, _extra: (each.digest(), None)
    )
    changed = imageset.changed_targets(space, selections, ())
    assert list(changed) == ["amd64", "amd64.box"]
    assert len(set(changed.values())) == 2


def test_no_device_may_be_named_like_a_kind_of_file(space: Workspace) -> None:
    path = space.root / "definitions/ubuntu-core/definition.toml"
    path.write_text(path.read_text().replace("devices.box", "devices.device"))
    with pytest.raises(DataError, match=r"definition\.toml:\d+: no device can be called 'device'"):
        trigger(space, Builder())
