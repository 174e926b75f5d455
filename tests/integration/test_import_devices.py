"""Devices with an arch of their own: whose root file system an import takes."""

import tarfile
from collections.abc import Callable
from datetime import datetime

import pytest

from coreimage.config import Workspace
from coreimage.errors import NotFoundError
from coreimage.feeds import ChannelSettings
from coreimage.lib.progress import Silent
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout, pool
from tests.support.publications import (
    SERIES,
    device_members,
    publish,
    rootfs_members,
    sign,
    tarball,
)

CHANNEL = "ubuntu-core/edge"


@pytest.fixture(autouse=True)
def channel(workspace: Workspace, now: datetime) -> None:
    channels.create_channel(workspace, CHANNEL, now=now)


def test_devices_with_an_arch_of_their_own_share_the_root_file_system(
    workspace: Workspace, now: datetime
) -> None:
    directory = publish(workspace, "20150511")
    azure = directory / "vivid-preinstalled-core-amd64.azure.device.tar.gz"
    azure.write_bytes(tarball(device_members("azure")))
    sign(workspace, directory)
    settings = ChannelSettings(
        project="ubuntu-core",
        release="15.04",
        devices={"generic_amd64": "amd64", "azure_amd64": "amd64.azure"},
    )
    generic, special = (
        importer.import_image(
            workspace,
            channel=CHANNEL,
            device=device,
            settings=settings,
            series=SERIES,
            progress=Silent(),
            now=now,
        ).image
        for device in ("generic_amd64", "azure_amd64")
    )
    assert generic.files[0] == special.files[0]
    assert generic.files[1].path != special.files[1].path


@pytest.fixture
def import_azure(workspace: Workspace, now: datetime) -> Callable[..., ImportResult]:
    """Import the device azure_amd64, whose arch is amd64.azure, of the files that it has."""

    def run(**feed: str) -> ImportResult:
        settings = ChannelSettings.model_validate(
            {
                "project": "ubuntu-core",
                "release": "15.04",
                "devices": {"azure_amd64": "amd64.azure"},
                "files": [{"generator": "cdimage-rootfs", **feed}],
            }
        )
        return importer.import_image(
            workspace,
            channel=CHANNEL,
            device="azure_amd64",
            settings=settings,
            series=SERIES,
            progress=Silent(),
            now=now,
        )

    return run


def source_of(workspace: Workspace, result: ImportResult) -> str:
    found = pool.find(workspace, result.image.files[0])
    assert found is not None
    return found.sidecar.recipe.source.removeprefix("vivid-preinstalled-core-")


def test_a_root_file_system_of_the_devices_own_is_taken_first(
    workspace: Workspace, import_azure: Callable[..., ImportResult]
) -> None:
    publish(workspace, "20150510")
    assert source_of(workspace, import_azure()) == "amd64.tar.gz"

    directory = publish(workspace, "20150511")
    own = directory / "vivid-preinstalled-core-amd64.azure.tar.gz"
    own.write_bytes(tarball(rootfs_members(text="azure")))
    sign(workspace, directory)
    result = import_azure()
    assert result.version == 2
    assert source_of(workspace, result) == "amd64.azure.tar.gz"
    with tarfile.open(layout.local_path(workspace, result.image.files[0].path)) as opened:
        motd = opened.extractfile("system/etc/motd")
        assert motd is not None
        assert motd.read() == b"azure"

    explicit = import_azure(file="{series}-preinstalled-{product}-{base_arch}.tar.gz")
    assert source_of(workspace, explicit) == "amd64.tar.gz"


def test_a_publication_with_nothing_but_the_devices_own_counts(
    workspace: Workspace, import_azure: Callable[..., ImportResult]
) -> None:
    directory = publish(workspace, "20150511")
    name = "vivid-preinstalled-core-amd64.tar.gz"
    (directory / name).rename(directory / name.replace("amd64", "amd64.azure"))
    sign(workspace, directory)
    assert source_of(workspace, import_azure()) == "amd64.azure.tar.gz"


def test_a_file_that_was_signed_and_is_gone_is_not_replaced_by_the_other(
    workspace: Workspace, import_azure: Callable[..., ImportResult]
) -> None:
    directory = publish(workspace, "20150511")
    own = directory / "vivid-preinstalled-core-amd64.azure.tar.gz"
    own.write_bytes(tarball(rootfs_members(text="azure")))
    sign(workspace, directory)
    own.unlink()
    with pytest.raises(NotFoundError, match=r"lacks '.*amd64\.azure\.tar\.gz', which .* signed"):
        import_azure()


def test_a_file_that_was_not_signed_is_not_taken(
    workspace: Workspace, import_azure: Callable[..., ImportResult]
) -> None:
    directory = publish(workspace, "20150511")
    own = directory / "vivid-preinstalled-core-amd64.azure.tar.gz"
    own.write_bytes(tarball(rootfs_members(text="azure")))
    assert source_of(workspace, import_azure()) == "amd64.tar.gz"
