"""What tests of imports from everywhere share: a workspace, a web server, and another publisher."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    CoreImageError,
)
from coreimage.feeds import ChannelSettings
from coreimage.lib import files
from coreimage.lib.progress import Silent
from coreimage.model.publication import format_checksums
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.integration import liar
from tests.integration.liar import Liar
from tests.support.foreign_keys import ForeignGpg, foreign_gpg
from tests.support.publications import (
    SERIES,
    member,
    publish,
    tarball,
)
from tests.support.trees import snapshot

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
ROOTFS = {"generator": "cdimage-rootfs"}
Import = Callable[..., ImportResult]


@pytest.fixture(name="ready")
def ready_fixture(workspace: Workspace, now: datetime) -> Workspace:
    channels.create_channel(workspace, CHANNEL, now=now)
    publish(workspace, "20150511")
    return workspace


@pytest.fixture(name="run_import")
def run_import_fixture(ready: Workspace, now: datetime) -> Import:
    def run(
        *feeds: Mapping[str, Any],
        channel: str = CHANNEL,
        device: str = DEVICE,
        at: datetime = now,
        **more: Any,
    ) -> ImportResult:
        settings = ChannelSettings.model_validate(
            {
                "project": "ubuntu-core",
                "devices": {DEVICE: "amd64", "azure_amd64": "amd64.azure"},
                "files": feeds,
                **more,
            }
        )
        return importer.import_image(
            ready,
            channel=channel,
            device=device,
            settings=settings,
            series=SERIES,
            progress=Silent(),
            now=at,
        )

    return run


@pytest.fixture(name="www")
def www_fixture(tmp_path: Path) -> Path:
    """What a web server offers: a tarball of two versions."""
    folder = tmp_path / "www"
    folder.mkdir()
    for version in ("1.0", "1.1"):
        data = tarball([member("system/opt/shop", data=version.encode())])
        (folder / f"shop-{version}.tar.gz").write_bytes(data)
    (folder / "shop.version").write_text("1.0\n")
    return folder


@pytest.fixture(name="web")
def web_fixture(www: Path) -> Iterator[Liar]:
    with liar.serving(www) as found:
        yield found


@pytest.fixture(name="gpg", scope="module")
def gpg_fixture() -> Iterator[ForeignGpg]:
    with foreign_gpg() as found:
        found.make("vendor")
        found.make("stranger")
        yield found


@pytest.fixture(name="vendor")
def vendor_fixture(gpg: ForeignGpg, ready: Workspace) -> Path:
    """The vendor's key in the workspace, armoured."""
    path = ready.root / "keys/vendor.asc"
    path.parent.mkdir()
    path.write_bytes(gpg.gpg("--armor", "--export", "vendor"))
    return path


def sign_sums(gpg: ForeignGpg, folder: Path, by: str = "vendor") -> None:
    names = {path.name: files.sha256_of(path) for path in folder.glob("*.tar.gz")}
    (folder / "SHA256SUMS").write_text(format_checksums(names))
    gpg.sign(folder / "SHA256SUMS", folder / "SHA256SUMS.gpg", "--local-user", by)


def content(ready: Workspace, result: ImportResult, name: str, path: str) -> bytes:
    entry = next(file for file in result.image.files if f"/{name}-" in file.path)
    with tarfile.open(layout.local_path(ready, entry.path)) as opened:
        found = opened.extractfile(path)
        assert found is not None
        return found.read()


def refused(
    ready: Workspace, error: type[CoreImageError], match: str, action: Callable[[], object]
) -> CoreImageError:
    """See that an import fails, with a hint or a name, and leaves the tree as it was."""
    before = snapshot(ready.channel_tree)
    with pytest.raises(error, match=match) as caught:
        action()
    assert snapshot(ready.channel_tree) == before
    return caught.value
