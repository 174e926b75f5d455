"""Files of images from everywhere: other publishers, web servers, keyrings, channels, servers."""

import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import (
    ConfigError,
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UnavailableError,
)
from coreimage.feeds import ChannelSettings
from coreimage.lib import files, run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import format_checksums
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.imports.generation import Maker
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.integration import channel_tree as server
from tests.integration import liar
from tests.integration.liar import Liar
from tests.support.foreign_keys import ForeignGpg, foreign_gpg
from tests.support.publications import (
    SERIES,
    device_members,
    member,
    publish,
    rootfs_members,
    sign,
    tarball,
)
from tests.support.tarballs import file, tar_of
from tests.support.trees import snapshot

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
ROOTFS = {"generator": "cdimage-rootfs"}
Import = Callable[..., ImportResult]


@pytest.fixture
def ready(workspace: Workspace, now: datetime) -> Workspace:
    channels.create_channel(workspace, CHANNEL, now=now)
    publish(workspace, "20150511")
    return workspace


@pytest.fixture
def run_import(ready: Workspace, now: datetime) -> Import:
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


@pytest.fixture
def www(tmp_path: Path) -> Path:
    """What a web server offers: a tarball of two versions."""
    folder = tmp_path / "www"
    folder.mkdir()
    for version in ("1.0", "1.1"):
        data = tarball([member("system/opt/shop", data=version.encode())])
        (folder / f"shop-{version}.tar.gz").write_bytes(data)
    (folder / "shop.version").write_text("1.0\n")
    return folder


@pytest.fixture
def web(www: Path) -> Iterator[Liar]:
    with liar.serving(www) as found:
        yield found


@pytest.fixture(scope="module")
def gpg() -> Iterator[ForeignGpg]:
    with foreign_gpg() as found:
        found.make("vendor")
        found.make("stranger")
        yield found


@pytest.fixture
def vendor(gpg: ForeignGpg, ready: Workspace) -> Path:
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


# Web servers


def shop(web: Liar, **more: str) -> dict[str, str]:
    url = f"{web.url}/shop-1.0.tar.gz"
    return {"generator": "http", "name": "shop", "url": url, **more}


def test_a_file_by_its_digest(ready: Workspace, run_import: Import, web: Liar, www: Path) -> None:
    feed = shop(web, sha256=files.sha256_of(www / "shop-1.0.tar.gz"))
    result = run_import(feed)
    assert content(ready, result, "shop", "system/opt/shop") == b"1.0"
    asked = len(web.requests)
    assert not run_import(feed).changed
    assert len(web.requests) == asked  # it is known without asking
    web.lies["/shop-1.0.tar.gz"] = liar.flipped
    other = shop(web, sha256="0" * 64)
    refused(ready, TrustError, "is not what was signed", lambda: run_import(other))


@pytest.mark.usefixtures("vendor")
def test_a_monitored_file_by_a_signed_list(
    ready: Workspace, run_import: Import, web: Liar, www: Path, gpg: ForeignGpg
) -> None:
    sign_sums(gpg, www)
    gpg.sign(www / "shop.version", www / "shop.version.gpg", "--local-user", "vendor")
    feed = {
        "generator": "http",
        "name": "shop",
        "url": f"{web.url}/shop-{{version}}.tar.gz",
        "monitor": f"{web.url}/shop.version",
        "sha256sums": f"{web.url}/SHA256SUMS",
        "keyring": "keys/vendor.asc",
    }
    first = run_import(feed)
    assert first.image.version_detail == "shop=1.0,version=1"
    asked = [path for path, _ in web.requests].count("/shop-1.0.tar.gz")
    assert not run_import(feed).changed
    assert [path for path, _ in web.requests].count("/shop-1.0.tar.gz") == asked == 1
    (www / "shop.version").write_text("1.1\n")
    refused(ready, TrustError, "shop.version", lambda: run_import(feed))
    (www / "shop.version.gpg").unlink()
    gpg.sign(www / "shop.version", www / "shop.version.gpg", "--local-user", "vendor")
    second = run_import(feed)
    assert second.image.version_detail == "shop=1.1,version=2"
    assert content(ready, second, "shop", "system/opt/shop") == b"1.1"
    (www / "SHA256SUMS.gpg").unlink()
    sign_sums(gpg, www, by="stranger")
    refused(ready, TrustError, "SHA256SUMS", lambda: run_import(feed))


@pytest.mark.usefixtures("vendor")
def test_a_file_by_its_own_signature(
    ready: Workspace, run_import: Import, web: Liar, www: Path, gpg: ForeignGpg
) -> None:
    path = www / "shop-1.0.tar.gz"
    gpg.sign(path, www / "shop.sig", "--local-user", "vendor")
    feed = shop(web, signature=f"{web.url}/shop.sig", keyring="keys/vendor.asc")
    assert run_import(feed).changed
    assert not run_import(feed).changed
    path.write_bytes((www / "shop-1.1.tar.gz").read_bytes())
    refused(ready, TrustError, "data was changed", lambda: run_import(feed))


def test_a_file_by_the_certificate_of_its_server(
    ready: Workspace,
    run_import: Import,
    www: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    key, pem, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1"]
    run.run([*argv, *extensions, "-keyout", key, "-out", pem])
    both.write_text(pem.read_text() + key.read_text())
    with liar.serving(www, certificate=both) as web, liar.serving(www) as plain:
        feed = shop(web, trust="tls", monitor=f"{web.url}/shop.version")
        refused(ready, UnavailableError, "certificate", lambda: run_import(feed))
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        result = run_import(feed)
        assert result.image.version_detail == "shop=1.0,version=1"
        assert not run_import(feed).changed
        web.lies["/shop-1.0.tar.gz"] = liar.redirect(f"{plain.url}/shop-1.1.tar.gz")
        refused(ready, UnavailableError, "which is refused", lambda: run_import(feed))


@pytest.mark.parametrize(
    "lie", [liar.failing, liar.hidden_longer, liar.redirect("file:///etc/fstab")]
)
def test_servers_that_fail_or_lie(
    ready: Workspace,
    run_import: Import,
    web: Liar,
    www: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: liar.Behaviour,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # of the pauses between attempts
    web.lies["/shop-1.0.tar.gz"] = lie
    feed = shop(web, sha256=files.sha256_of(www / "shop-1.0.tar.gz"))
    refused(ready, CoreImageError, "shop-1.0", lambda: run_import(feed))


def test_an_endless_file_ends_at_its_limit(ready: Workspace, run_import: Import, web: Liar) -> None:
    web.lies["/shop-1.0.tar.gz"] = liar.endless
    feed = {**shop(web, sha256="0" * 64), "max_size": 3 << 20}
    refused(ready, UnavailableError, "is longer than 3145728 bytes", lambda: run_import(feed))


def test_a_file_that_is_no_tarball(
    ready: Workspace, run_import: Import, web: Liar, www: Path
) -> None:
    (www / "shop-1.0.tar.gz").write_bytes(b"<html>404</html>")
    feed = shop(web, sha256=hashlib.sha256(b"<html>404</html>").hexdigest())
    refused(ready, DataError, "is not compressed", lambda: run_import(feed))


def test_an_absent_file(ready: Workspace, run_import: Import, web: Liar) -> None:
    feed = {**shop(web, sha256="0" * 64), "url": f"{web.url}/absent.tar.gz"}
    refused(ready, NotFoundError, r"absent\.tar\.gz", lambda: run_import(feed))


def test_a_monitor_that_holds_a_page(
    ready: Workspace, run_import: Import, web: Liar, www: Path
) -> None:
    (www / "shop.version").write_text("<html>\nlogin</html>\n")
    feed = shop(web, sha256="0" * 64, monitor=f"{web.url}/shop.version")
    refused(ready, DataError, "does not hold one version", lambda: run_import(feed))


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


# Other servers


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Another server with keys of its own and one image."""
    workspace = server.make_workspace(tmp_path_factory.mktemp("elsewhere") / "workspace")
    server.publish(workspace, 1)
    return workspace


@pytest.fixture
def other(elsewhere: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(elsewhere.root, tmp_path / "other", symlinks=True)
    return Workspace(root=tmp_path / "other", settings=elsewhere.settings)


def remote_feed(other: Workspace, address: str, **more: Any) -> dict[str, Any]:
    return {
        "generator": "remote-system-image",
        "server": address,
        "archive_master": str(other.archive_master),
        "channel": server.CHANNEL,
        "file": "ubuntu",
        **more,
    }


def test_another_servers_file_byte_for_byte_signed_by_us(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    with liar.serving(other.channel_tree) as web:
        result = run_import(remote_feed(other, web.url), at=server.NOW)
        again = run_import(remote_feed(other, web.url), at=server.NOW)
    theirs = layout.read_index(other, server.CHANNEL, server.DEVICE).images[0].files[0]
    ours = result.image.files[0]
    assert (ours.checksum, ours.size, ours.path) == (theirs.checksum, theirs.size, theirs.path)
    signature = layout.local_path(ready, ours.signature).read_bytes()
    assert signature != layout.local_path(other, theirs.signature).read_bytes()
    assert result.image.version_detail == "ubuntu=1,version=1"
    assert not again.changed


@pytest.mark.parametrize(
    "path",
    ["/channels.json", "/gpg/image-master.tar.xz", "/gpg/blacklist.tar.xz.asc", "index", "payload"],
)
def test_nothing_that_cannot_be_traced_to_the_pinned_key_is_signed(
    ready: Workspace, run_import: Import, other: Workspace, path: str
) -> None:
    image = layout.read_index(other, server.CHANNEL, server.DEVICE).images[0]
    index = layout.read_channels(other).device(server.CHANNEL, server.DEVICE).index
    place = {"index": index, "payload": image.files[0].path}.get(path, path)
    with liar.serving(other.channel_tree) as web:
        web.lies[place] = liar.flipped
        feed = remote_feed(other, web.url)
        refused(ready, TrustError, ".", lambda: run_import(feed, at=server.NOW))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("level", [KeyringType.IMAGE_SIGNING, KeyringType.BLACKLIST])
def test_o13_a_keyring_of_another_server_that_leads_out_is_refused(
    ready: Workspace,
    run_import: Import,
    other: Workspace,
    tmp_path: Path,
    level: KeyringType,
    *,
    signed: bool,
) -> None:
    """Without a good signature it is not even looked at; with one, nothing of it lands anywhere."""
    path = other.channel_tree / f"gpg/{level}.tar.xz"
    evil = tar_of(file("keyring.json", b"{}"), file("../../outside", b"x"))
    path.write_bytes(lzma.compress(evil))
    if signed:
        Signer(other.gpg_home).sign(path, Path(f"{path}.asc"), key=KeyringType.IMAGE_MASTER)
    said = "members are not exactly keyring.gpg and keyring.json" if signed else "signature"
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, TrustError, said, lambda: run_import(feed, at=server.NOW))
    assert not list(tmp_path.rglob("outside"))


def test_a_server_that_is_not_the_pinned_one(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    feed = remote_feed(other, str(other.channel_tree), archive_master=str(ready.archive_master))
    refused(ready, TrustError, "image-master", lambda: run_import(feed, at=server.NOW))
    feed = remote_feed(other, str(other.channel_tree), archive_master="none.tar.xz")
    refused(
        ready, ConfigError, "there is no archive_master", lambda: run_import(feed, at=server.NOW)
    )


def test_a_server_that_has_expired_or_replays(
    ready: Workspace, run_import: Import, other: Workspace, tmp_path: Path
) -> None:
    late = server.NOW + timedelta(days=31)
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, TrustError, "expired on", lambda: run_import(feed, at=late))
    old = tmp_path / "old"
    shutil.copytree(other.channel_tree, old, symlinks=True)
    server.publish(other, 2, rootfs={"system/etc/hostname": b"two\n"})
    run_import(feed, at=server.NOW)
    shutil.rmtree(other.channel_tree)
    old.rename(other.channel_tree)
    refused(ready, TrustError, "was seen before", lambda: run_import(feed, at=server.NOW))


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({"channel": "edge"}, server.CHANNEL),
        ({"device": "toaster"}, "generic_amd64"),
        ({"file": "rootfs"}, "'ubuntu'"),
    ],
)
def test_unknown_names_on_another_server(
    ready: Workspace, run_import: Import, other: Workspace, more: dict[str, str], hint: str
) -> None:
    feed = remote_feed(other, str(other.channel_tree), **more)
    found = refused(ready, NotFoundError, ".", lambda: run_import(feed, at=server.NOW))
    assert hint in found.hint


def test_a_poisoned_tarball_of_another_server_is_not_signed(
    ready: Workspace, run_import: Import, other: Workspace
) -> None:
    evil = tarfile.TarInfo("system/../../etc/cron.d/x")
    server.publish(other, 2, rootfs={"evil": evil})
    feed = remote_feed(other, str(other.channel_tree))
    refused(ready, DataError, "outside its root", lambda: run_import(feed, at=server.NOW))


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
