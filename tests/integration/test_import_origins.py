"""Files of images from other publishers, keyrings and channels, and how images are offered."""

import gzip
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import (
    ConfigError,
    NotFoundError,
    TrustError,
)
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.integration.import_sources import (  # noqa: F401  fixtures are found by their names
    CHANNEL,
    DEVICE,
    ROOTFS,
    Import,
    content,
    gpg_fixture,
    ready_fixture,
    refused,
    run_import_fixture,
    sign_sums,
    vendor_fixture,
)
from tests.support.foreign_keys import ForeignGpg
from tests.support.publications import (
    device_members,
    member,
    publish,
    rootfs_members,
    sign,
    tarball,
)

# Publications


def test_a_custom_file_and_a_device_of_its_own(ready: Workspace, run_import: Import) -> None:
    directory = publish(ready, "20150512")
    for name, text in (("amd64.custom", "brand"), ("amd64.azure.device", "azure")):
        path = directory / f"vivid-preinstalled-core-{name}.tar.gz"
        path.write_bytes(tarball([member("system/opt/x", data=text.encode())]))
    sign(ready, directory)
    feeds = (
        ROOTFS,
        {"generator": "cdimage-device-raw", "name": "raw-device"},
        {"generator": "cdimage-custom", "devices": [DEVICE]},
    )
    result = run_import(*feeds)
    assert result.image.version_detail == (
        "rootfs=20150512,raw-device=20150512,custom=20150512,version=1"
    )
    assert content(ready, result, "custom", "system/opt/x") == b"brand"
    azure = run_import(*feeds, device="azure_amd64")
    assert azure.image.version_detail == "rootfs=20150512,raw-device=20150512,version=1"
    assert content(ready, azure, "raw-device", "system/opt/x") == b"azure"
    assert azure.image.files[0] == result.image.files[0]


def test_names_of_files_are_settings(run_import: Import) -> None:
    device = "vivid-preinstalled-{product}-amd64.device.tar.gz"
    feeds = (ROOTFS, {"generator": "cdimage-device", "file": device})
    assert run_import(*feeds, device="azure_amd64").changed


@pytest.mark.usefixtures("vendor")
def test_another_publishers_tree_needs_its_key(
    ready: Workspace, run_import: Import, gpg: ForeignGpg, tmp_path: Path
) -> None:
    other = tmp_path / "foreign"
    for version in ("20150401.9", "20150401.10"):
        (other / version).mkdir(parents=True)
        text = tarball(rootfs_members(text=version))
        (other / version / "vivid-preinstalled-core-amd64.tar.gz").write_bytes(text)
        sign_sums(gpg, other / version)
    feed = {**ROOTFS, "path": str(other), "keyring": "keys/vendor.asc"}
    refused(
        ready, TrustError, "not in the keyring", lambda: run_import({**ROOTFS, "path": str(other)})
    )
    result = run_import(feed)
    assert result.image.version_detail == "rootfs=20150401.10,version=1"
    assert content(ready, result, "rootfs", "system/etc/motd") == b"20150401.10"
    sign_sums(gpg, other / "20150401.10", by="stranger")
    refused(ready, TrustError, "keys/vendor.asc|not in the keyring", lambda: run_import(feed))


def test_a_publisher_without_a_readable_key_is_a_mistake_of_the_configuration(
    ready: Workspace, run_import: Import
) -> None:
    feed = {**ROOTFS, "keyring": "keys/none.asc"}
    refused(
        ready, ConfigError, r"keyring 'keys/none\.asc' cannot be read", lambda: run_import(feed)
    )


def test_a_folder_without_publications(
    ready: Workspace, run_import: Import, tmp_path: Path
) -> None:
    feed = {**ROOTFS, "path": str(tmp_path / "absent")}
    refused(ready, NotFoundError, "has no publications", lambda: run_import(feed))


# Keyrings and other channels


def test_a_keyring_lies_where_clients_look(ready: Workspace, run_import: Import) -> None:
    result = run_import(ROOTFS, {"generator": "keyring"})
    assert result.image.version_detail == "rootfs=20150511,keyring=archive-master,version=1"
    folder = "system/usr/share/system-image/archive-master.tar.xz"
    published = ready.channel_tree / "gpg/archive-master.tar.xz"
    assert content(ready, result, "keyring", folder) == published.read_bytes()
    assert content(ready, result, "keyring", f"{folder}.asc").startswith(b"-----BEGIN PGP")
    assert not run_import(ROOTFS, {"generator": "keyring"}).changed


def test_files_of_another_channel_are_the_same_files(
    ready: Workspace, run_import: Import, now: datetime
) -> None:
    source = run_import(ROOTFS, {"generator": "cdimage-device"})
    channels.create_channel(ready, "kiosk", now=now)
    feed = {"generator": "system-image", "channel": CHANNEL, "file": "rootfs"}
    result = run_import(feed, {"generator": "keyring"}, channel="kiosk")
    assert result.image.files[0] == source.image.files[0]
    assert result.image.version_detail == "rootfs=20150511,keyring=archive-master,version=1"
    assert not run_import(feed, {"generator": "keyring"}, channel="kiosk").changed
    wrong = {**feed, "file": "custom"}
    found = refused(
        ready, NotFoundError, "has no file 'custom'", lambda: run_import(wrong, channel="kiosk")
    )
    assert "'rootfs'" in found.hint
    absent = {**feed, "channel": "edgy"}
    refused(ready, NotFoundError, "no channel 'edgy'", lambda: run_import(absent, channel="kiosk"))


# How images are offered


def test_phase_and_descriptions_are_part_of_publishing(
    ready: Workspace, run_import: Import
) -> None:
    offer = {
        "phase": 10,
        "minversion": 3,
        "bootme": True,
        "versionbase": 5,
        "description": "Kiosk",
        "descriptions": {"de": "Kiosk auf Deutsch"},
    }
    run_import(ROOTFS, **offer)
    index = layout.local_path(
        ready, layout.read_channels(ready).device(CHANNEL, DEVICE).index
    ).read_text()
    for text in (
        '"phased-percentage": 10',
        '"minversion": 3',
        '"bootme": true',
        '"version": 5',
        '"description": "Kiosk"',
        '"description_de": "Kiosk auf Deutsch"',
    ):
        assert text in index


def test_images_that_nobody_could_take_are_not_made(ready: Workspace, run_import: Import) -> None:
    found = refused(
        ready,
        ConfigError,
        "from 3 on, and the next one is 1",
        lambda: run_import(ROOTFS, minversion=3),
    )
    assert "from 4 with 'versionbase'" in found.hint


def test_a_key_that_is_not_there_is_missed_before_anything_slow(
    ready: Workspace, run_import: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it cannot be signed")

    monkeypatch.setattr(Maker, "convert", never)
    shutil.rmtree(ready.gpg_home / "image-signing/private-keys-v1.d")
    found = refused(ready, NotFoundError, "is not here", lambda: run_import(ROOTFS))
    assert "keyring rotate image-signing" in found.hint


def test_the_same_file_from_another_input_makes_no_version(
    ready: Workspace, run_import: Import
) -> None:
    run_import(ROOTFS)
    packed = gzip.compress(tarball(rootfs_members(), compressed=False), 1, mtime=1)
    publish(ready, "20150513", rootfs=packed, device=tarball(device_members("other")))
    assert not run_import(ROOTFS).changed
    assert not run_import(ROOTFS).changed


def test_devices_do_not_pay_for_each_others_files(
    run_import: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_import(ROOTFS)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was made before")

    monkeypatch.setattr(Maker, "convert", never)
    assert run_import(ROOTFS, device="azure_amd64").changed


def test_settings_are_read_from_the_file(ready: Workspace) -> None:
    config = ready.root / "coreimage.toml"
    config.write_text(
        f'[[channels."{CHANNEL}".files]]\ngenerator = "keyring"\n'
        f'[[channels."{CHANNEL}".files]]\ngenerator = "version"\n'
    )
    (feed,) = load_workspace(ready.root).settings.channels[CHANNEL].feeds(DEVICE)
    assert feed.prefix == "keyring"
