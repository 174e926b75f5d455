"""Images that are signed but wrong: made for another, malicious inside, incomplete."""

import tarfile
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import DataError, NotFoundError, TrustError, UsageError
from coreimage.flasher.flash import flash
from coreimage.flasher.inspect.install import read_install
from coreimage.flasher.local import LocalWish
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import planned
from coreimage.flasher.remote.connect import Place
from coreimage.lib.progress import Silent
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import editing
from coreimage.systemimage.tree.images import empty_index
from tests.integration import channel_tree
from tests.integration.channel_tree import NOW


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return channel_tree.make_workspace(tmp_path_factory.mktemp("server") / "workspace")


def attempt(
    workspace: Workspace,
    home: Path,
    channel: str,
    *,
    release: str = "13",
    device: str | None = None,
) -> None:
    place = Place(
        servers=[str(workspace.channel_tree)],
        archive_master=workspace.archive_master,
        cache=home / "cache",
        scratch=home / "scratch",
    )
    options = FlashOptions(
        release=release,
        channel=channel,
        output=home / "x86.img",
        oem="generic-amd64",
        oem_folders=[shipped_folder()],
        device=device,
    )
    with planned(options, place, progress=Silent(), now=NOW) as job:
        flash(job, progress=Silent())


def refused(
    workspace: Workspace, home: Path, channel: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        attempt(workspace, home, channel)
    assert not (home / "x86.img").exists()
    assert not list((home / "scratch").iterdir())


@pytest.mark.parametrize(
    ("what", "channel", "device", "version"),
    [
        ("channel", "debian-core/13/other", "generic_amd64", 1),
        ("device", "debian-core/13/wrong-device", "generic_arm64", 1),
        ("version", "debian-core/13/wrong-version", "generic_amd64", 7),
    ],
)
def test_c1_an_image_that_was_made_for_another_is_refused(
    workspace: Workspace, tmp_path: Path, what: str, channel: str, device: str, version: int
) -> None:
    served = f"debian-core/13/confused-{what}"
    channels.create_channel(workspace, served, now=NOW)
    says = channel_tree.version_files(
        version, channel=channel if what == "channel" else served, device=device
    )
    channel_tree.publish(workspace, 1, channel=served, says=says)
    refused(workspace, tmp_path, served, TrustError, f"is for {what}")


def test_c3_the_index_of_another_channel_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("debian-core/13/honest", "debian-core/13/moved"):
        channels.create_channel(workspace, name, now=NOW)
    channel_tree.publish(workspace, 1, channel="debian-core/13/honest")
    with editing.edit(workspace, now=NOW, purpose="test") as edit:
        edit.set_channel("debian-core/13/moved", edit.channels.channels["debian-core/13/honest"])
    refused(workspace, tmp_path, "debian-core/13/moved", TrustError, "is for channel")


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mtime = kind, target, channel_tree.BUILT_AT
    return member


@pytest.mark.parametrize(
    ("number", "rootfs"),
    [
        (0, {"../escaped": b"x"}),
        (1, {"/absolute": b"x"}),
        (2, {"elsewhere/file": b"x"}),
        (3, {"system/file": link("system/file", "../../outside", tarfile.LNKTYPE)}),
        (4, {"system/device": link("system/device", "", tarfile.CHRTYPE)}),
    ],
)
def test_o1_a_malicious_archive_is_refused(
    workspace: Workspace, tmp_path: Path, number: int, rootfs: dict[str, bytes | tarfile.TarInfo]
) -> None:
    name = f"debian-core/13/malicious-{number}"
    channels.create_channel(workspace, name, now=NOW)
    channel_tree.publish(workspace, 1, channel=name, rootfs=rootfs)
    refused(workspace, tmp_path, name, DataError, "ubuntu-")
    assert not list(tmp_path.rglob("escaped"))


def test_o1_a_file_behind_a_symlink_stays_inside(workspace: Workspace, tmp_path: Path) -> None:
    name = "debian-core/13/symlink"
    channels.create_channel(workspace, name, now=NOW)
    rootfs: dict[str, bytes | tarfile.TarInfo] = {
        "system/way-out": link("system/way-out", str(tmp_path)),
        "system/way-out/escaped": b"x",
    }
    channel_tree.publish(workspace, 1, channel=name, rootfs=rootfs)
    attempt(workspace, tmp_path, name)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("number", "device_files", "says"),
    [
        (0, {"assets/vmlinuz": b"kernel"}, "no hardware.yaml"),
        (1, {"hardware.yaml": channel_tree.HARDWARE}, "assets/vmlinuz"),
        (2, {**channel_tree.DEVICE_FILES, "hardware.yaml": b"kernel: assets/vmlinuz\n"}, "initrd"),
        (
            3,
            {
                **channel_tree.DEVICE_FILES,
                "hardware.yaml": channel_tree.HARDWARE.replace(b"grub", b"u-boot"),
            },
            "u-boot",
        ),
    ],
)
def test_c4_an_image_that_cannot_start_is_refused(
    workspace: Workspace,
    tmp_path: Path,
    number: int,
    device_files: dict[str, bytes],
    says: str,
) -> None:
    name = f"debian-core/13/unbootable-{number}"
    channels.create_channel(workspace, name, now=NOW)
    channel_tree.publish(workspace, 1, channel=name, device_files=device_files)
    refused(workspace, tmp_path, name, DataError, says)


def test_garbage_that_is_signed_is_a_data_error(workspace: Workspace, tmp_path: Path) -> None:
    name = "debian-core/13/garbage"
    channels.create_channel(workspace, name, now=NOW)
    garbage = channel_tree.tarball(channel_tree.ROOTFS)[:-40]
    version = channel_tree.version_files(1, channel=name, device=channel_tree.DEVICE)
    contents = {
        "/pool/ubuntu-{}.tar.xz": garbage,
        f"/{name}/version-1.tar.xz": channel_tree.tarball(version),
    }
    channel_tree.publish(workspace, 1, channel=name, files=contents)
    refused(workspace, tmp_path, name, DataError, "ubuntu-")


def test_names_that_do_not_exist_name_those_that_do(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        attempt(workspace, tmp_path, "nowhere")
    assert channel_tree.CHANNEL in raised.value.hint
    with pytest.raises(NotFoundError, match="release 'vivid'"):
        attempt(workspace, tmp_path, "edge", release="vivid")
    empty = "debian-core/13/empty"
    channels.create_channel(workspace, empty, now=NOW)
    with pytest.raises(NotFoundError, match="no device 'generic_amd64'"):
        attempt(workspace, tmp_path, empty)
    with editing.edit(workspace, now=NOW, purpose="test") as edit:
        edit.put_index(empty, channel_tree.DEVICE, empty_index(NOW))
    with pytest.raises(NotFoundError, match="no image yet"):
        attempt(workspace, tmp_path, empty)


def test_another_device_of_the_channel_than_the_packages_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    channel_tree.publish(workspace, 1)
    channel_tree.publish(workspace, 1, device="box")
    with pytest.raises(NotFoundError, match="no device 'bix'"):
        attempt(workspace, tmp_path, channel_tree.CHANNEL, device="bix")
    attempt(workspace, tmp_path, channel_tree.CHANNEL, device="box")
    record = read_install(tmp_path / "x86.img")
    assert record is not None
    assert record.meta.device == "box"


def test_a_local_root_file_system_is_of_no_device(workspace: Workspace, tmp_path: Path) -> None:
    place = Place(
        servers=[],
        archive_master=workspace.archive_master,
        cache=tmp_path / "cache",
        scratch=tmp_path / "scratch",
    )
    options = FlashOptions(
        release="",
        channel="stable",
        output=tmp_path / "x86.img",
        oem="generic-amd64",
        oem_folders=[shipped_folder()],
        device="box",
        local=LocalWish(rootfs="7", builds=workspace.builds),
    )
    with (
        pytest.raises(UsageError, match="is for no device of a channel"),
        planned(options, place, progress=Silent(), now=NOW),
    ):
        pass
