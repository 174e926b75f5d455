"""The road, gone once for all tests: a workspace, a channel with an image, a disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.product import Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """A workspace after one run of the pipeline, and the disk at its end."""

    product: Product
    workspace: Path
    disk: Path

    @property
    def channels(self) -> Path:
        """The channel tree."""
        return self.workspace / "www/system-image"

    @property
    def artifacts(self) -> Path:
        """What build 1 left."""
        return self.workspace / "builds/1/artifacts"


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """A folder that other users may enter, on a disk with room."""
    folder = Path(tempfile.mkdtemp(prefix="coreimage-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def road(ground: Path) -> Road:
    """The whole road for Debian 13, in the order in which a newcomer goes it."""
    product = Product(folder=ground)
    product.run("init", "workspace")
    product.run("pipeline", "run", "debian-core", "--release", "13", "--output", "x86.img")
    return Road(product=product, workspace=ground / "workspace", disk=ground / "x86.img")


@pytest.fixture
def copy(road: Road, tmp_path: Path) -> Road:
    """The same road in a workspace of the test's own; big files are shared with the original."""
    root = tmp_path / "workspace"
    shutil.copytree(road.workspace, root, symlinks=True, copy_function=_link_big_files)
    return Road(product=Product(folder=tmp_path), workspace=root, disk=tmp_path / "x86.img")


def _link_big_files(source: str, target: str) -> str:
    if Path(source).stat().st_size > 1 << 20:
        os.link(source, target)
        return target
    return shutil.copy2(source, target)
