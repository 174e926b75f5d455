"""A delta between two real images, applied by a recovery's own tools."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from coreimage.config import load_workspace
from coreimage.model.index import Image, ImageType
from coreimage.systemimage.tree import layout
from tests.support.product import SOURCES
from tests.support.unpacking import apply, described
from tests.system.conftest import Road

pytestmark = [pytest.mark.system, pytest.mark.long]
CHANNEL, DEVICE = "debian-core/13/edge", "generic_amd64"


def variant(workspace: Path) -> None:
    """Give the workspace a definition of its own with one more package, and ask for deltas."""
    own = workspace / "definitions/debian-core"
    shutil.copytree(SOURCES / "definitions/debian-core", own)
    text = (own / "definition.toml").read_text()
    (own / "definition.toml").write_text(text.replace('"gpgv",', '"gpgv", "htop",'))
    settings = workspace / "coreimage.toml"
    head = f'[channels."{CHANNEL}"]\n'
    settings.write_text(settings.read_text().replace(head, f'{head}deltabase = ["{CHANNEL}"]\n'))


def test_base_and_delta_make_the_target(copy: Road, tmp_path: Path) -> None:
    variant(copy.workspace)
    copy.product.run("pipeline", "run", "debian-core", "--release", "13", "-w", copy.workspace)
    check_newest_delta(copy.workspace, tmp_path)


def check_newest_delta(root: Path, folder: Path) -> None:
    """Compare the newest full image with what its delta makes of the base; needs root."""
    workspace = load_workspace(root)
    images = layout.read_index(workspace, CHANNEL, DEVICE).images

    def unpacked(name: str, *chain: Image) -> dict[str, tuple[Any, ...]]:
        place = folder / name
        place.mkdir()
        for image in chain:
            apply(place, [layout.local_path(workspace, file.path) for file in image.files])
        found = described(place)
        shutil.rmtree(place)
        return found

    delta = max(
        (image for image in images if image.type is ImageType.DELTA), key=lambda each: each.version
    )
    fulls = {image.version: image for image in images if image.type is ImageType.FULL}
    assert delta.base is not None
    assert delta.size < fulls[delta.version].size
    found = unpacked("device", fulls[delta.base], delta)
    wanted = unpacked("wanted", fulls[delta.version])
    different = {
        path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)
    }
    # Folders that several tarballs of an image put something in have the time of unpacking.
    shared = {"assets", "system/boot", "system/etc", "system/etc/system-image"}
    assert different <= {*shared, "system/usr/lib/modules"}
    assert all(found[path][:2] == wanted[path][:2] for path in different)
