"""Import with real keys and tarballs: what is published, and what is refused."""

import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from coreimage.config import Workspace, load_workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, TrustError
from coreimage.feeds import ChannelSettings
from coreimage.lib import files, run
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Silent
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.imports import importer
from coreimage.systemimage.imports.addition import ImportResult
from coreimage.systemimage.operations import channels
from coreimage.systemimage.tree import layout
from tests.support.foreign_keys import foreign_gpg
from tests.support.publications import (
    SERIES,
    publish,
    rootfs_members,
    sign,
    tarball,
)
from tests.support.trees import snapshot

CHANNEL, DEVICE = "ubuntu-core/edge", "generic_amd64"
Importer = Callable[[], ImportResult]


@pytest.fixture
def ready(workspace: Workspace, now: datetime) -> Workspace:
    """A workspace with the channel, nothing imported yet."""
    channels.create_channel(workspace, CHANNEL, now=now)
    return workspace


@pytest.fixture
def import_newest(ready: Workspace, now: datetime) -> Importer:
    def newest() -> ImportResult:
        return importer.import_image(
            ready,
            channel=CHANNEL,
            device=DEVICE,
            settings=ready.settings.channels[CHANNEL],
            series=SERIES,
            progress=Silent(),
            now=now,
        )

    return newest


def visible(workspace: Workspace) -> dict[str, str]:
    return snapshot(workspace.channel_tree)


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_an_import_publishes_what_clients_accept(
    ready: Workspace, import_newest: Importer, tmp_path: Path
) -> None:
    publish(ready, "20150511")
    result = import_newest()
    assert (result.version, result.changed) == (1, True)
    image = layout.read_index(ready, CHANNEL, DEVICE).newest_full()
    assert image == result.image
    assert image.version_detail == "rootfs=20150511,device=20150511,version=1"
    rootfs, device, version = image.files
    assert names(layout.local_path(ready, rootfs.path))[0] == "system"
    assert names(layout.local_path(ready, device.path)) == ["hardware.yaml", "assets/vmlinuz"]
    assert version.path == f"/{CHANNEL}/{DEVICE}/version-1.tar.xz"
    with tarfile.open(layout.local_path(ready, version.path)) as tar:
        ini = tar.extractfile("system/etc/system-image/channel.ini")
        assert ini is not None
        text = ini.read().decode()
    assert "base: images.example\nhttp_port: 80\nhttps_port: disabled\n" in text
    assert f"version_detail: {image.version_detail}\n" in text
    accept_with_plain_programs(ready, tmp_path)


def accept_with_plain_programs(workspace: Workspace, scratch: Path) -> None:
    """Check every file of the tree with tar, gpgv and sha256sum and nothing of ours."""
    root = workspace.channel_tree
    rings = {}
    for level in ("archive-master", "image-master", "image-signing"):
        target = scratch / level
        target.mkdir()
        tarball = root / f"gpg/{level}.tar.xz"
        run.run(["tar", "--extract", "--file", tarball, "--directory", target])
        rings[level] = target / "keyring.gpg"
    above = {
        "archive-master.tar.xz": "archive-master",
        "image-master.tar.xz": "archive-master",
        "image-signing.tar.xz": "image-master",
        "blacklist.tar.xz": "image-master",
    }
    checked = 0
    for path in root.rglob("*"):
        if path.is_dir() or path.name.endswith(".asc") or "states" in path.parts:
            continue
        ring = rings[above.get(path.name, "image-signing")]
        run.run(["gpgv", "--keyring", ring, f"{path}.asc", path])
        checked += 1
    # channels.json, an index, three tarballs, their side-cars
    assert checked >= 8
    index = next(root.glob(f"{CHANNEL}/{DEVICE}/index-*.json"))
    assert index.name == f"index-{files.sha256_of(index)[:16]}.json"
    for file in layout.read_index(workspace, CHANNEL, DEVICE).images[-1].files:
        path = layout.local_path(workspace, file.path)
        said = run.run(["sha256sum", path]).stdout.decode().split()[0]
        assert (said, path.stat().st_size) == (file.checksum, file.size)
        if path.parent.name == "pool":
            assert path.name.endswith(f"-{said}.tar.xz")


def test_nothing_new_makes_no_new_version(ready: Workspace, import_newest: Importer) -> None:
    publish(ready, "20150511")
    import_newest()
    before = visible(ready)
    again = import_newest()
    assert (again.version, again.changed) == (1, False)
    publish(ready, "20150512")  # the same files on another day
    again = import_newest()
    assert (again.version, again.changed) == (1, False)
    assert visible(ready) == before


def test_a_new_root_file_system_reuses_the_device_file(
    ready: Workspace, import_newest: Importer
) -> None:
    publish(ready, "20150511")
    first = import_newest().image
    publish(ready, "20150511.1", rootfs=tarball(rootfs_members(text="two")))
    second = import_newest().image
    assert second.version == 2
    assert second.files[1] == first.files[1]
    assert second.files[0].path != first.files[0].path
    assert second.version_detail == "rootfs=20150511.1,device=20150511,version=2"
    index = layout.read_index(ready, CHANNEL, DEVICE)
    assert [image.version for image in index.images] == [1, 2]
    for image in index.images:
        assert all(layout.local_path(ready, file.path).is_file() for file in image.files)


def test_a_new_address_of_the_server_makes_a_new_version_of_the_same_files(
    ready: Workspace, import_newest: Importer, now: datetime
) -> None:
    publish(ready, "20150511")
    first = import_newest().image
    config = ready.root / "coreimage.toml"
    config.write_text(config.read_text().replace("images.example", "other.example"))
    second = importer.import_image(
        load_workspace(ready.root),
        channel=CHANNEL,
        device=DEVICE,
        settings=ready.settings.channels[CHANNEL],
        series=SERIES,
        progress=Silent(),
        now=now,
    ).image
    assert second.version == 2
    assert list(second.files[:2]) == list(first.files[:2])


def test_a_damaged_pool_file_is_not_reused(ready: Workspace, import_newest: Importer) -> None:
    publish(ready, "20150511")
    first = import_newest().image
    path = layout.local_path(ready, first.files[1].path)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    publish(ready, "20150512", rootfs=tarball(rootfs_members(text="two")))
    second = import_newest().image
    assert second.files[1] == first.files[1]
    assert files.sha256_of(path) == first.files[1].checksum


def test_equal_inputs_give_equal_bytes(
    ready: Workspace, import_newest: Importer, keyed_root: Path, tmp_path: Path, now: datetime
) -> None:
    publish(ready, "20150511")
    first = import_newest().image
    shutil.copytree(keyed_root, tmp_path / "other", symlinks=True)
    other = load_workspace(tmp_path / "other")
    channels.create_channel(other, CHANNEL, now=now)
    publish(other, "20150511")
    second = importer.import_image(
        other,
        channel=CHANNEL,
        device=DEVICE,
        settings=other.settings.channels[CHANNEL],
        series=SERIES,
        progress=Silent(),
        now=now,
    ).image
    assert first == second


@pytest.mark.parametrize("merged_usr", [True, False])
def test_modules_lie_where_the_kernel_looks(
    ready: Workspace, import_newest: Importer, tmp_path: Path, *, merged_usr: bool
) -> None:
    publish(ready, "20150511", rootfs=tarball(rootfs_members(merged_usr=merged_usr)))
    path = layout.local_path(ready, import_newest().image.files[0].path)
    run.run(["tar", "--extract", "--file", path, "--directory", tmp_path])
    assert (tmp_path / "system/lib/modules").is_dir()
    assert (tmp_path / "system/lib").is_symlink() == merged_usr
    first, second = tmp_path / "system/usr/bin/a", tmp_path / "system/usr/bin/b"
    assert first.stat().st_ino == second.stat().st_ino


def flip_a_byte(directory: Path) -> None:
    path = next(directory.glob("*amd64.tar.gz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_a_digest(directory: Path) -> None:
    path = directory / "SHA256SUMS"
    path.write_text(path.read_text().replace("a", "b", 1))


def sign_by_a_stranger(directory: Path) -> None:
    with foreign_gpg() as gpg:
        gpg.make("stranger")
        gpg.sign(directory / "SHA256SUMS", directory / "SHA256SUMS.gpg")


def drop_a_line(directory: Path) -> None:
    for path in directory.glob("*.device.tar.gz"):
        content = path.read_bytes()
        path.unlink()
    sign(load_workspace(directory.parents[5]), directory)
    path.write_bytes(content)


def sign_by_the_wrong_level(directory: Path) -> None:
    signer = Signer(load_workspace(directory.parents[5]).gpg_home)
    signer.sign(
        directory / "SHA256SUMS", directory / "SHA256SUMS.gpg", key=KeyringType.DEVICE_SIGNING
    )


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (flip_a_byte, "is not what was vouched for"),
        (flip_a_digest, "data was changed"),
        (sign_by_a_stranger, "not in the keyring"),
        (sign_by_the_wrong_level, "not in the keyring"),
        (drop_a_line, "is not listed"),
    ],
)
def test_a_publication_that_is_not_the_publishers_is_refused(
    ready: Workspace,
    import_newest: Importer,
    damage: Callable[[Path], None],
    complaint: str,
) -> None:
    publish(ready, "20150510")
    import_newest()
    directory = publish(ready, "20150511", rootfs=tarball(rootfs_members(text="two")))
    damage(directory)
    before = visible(ready)
    with pytest.raises(TrustError, match=complaint):
        import_newest()
    assert visible(ready) == before


def test_an_unsigned_publication_is_not_taken(ready: Workspace, import_newest: Importer) -> None:
    directory = publish(ready, "20150511")
    (directory / "SHA256SUMS.gpg").unlink()
    before = visible(ready)
    with pytest.raises(NotFoundError) as caught:
        import_newest()
    assert "'20150511' lacks SHA256SUMS.gpg" in caught.value.hint
    assert visible(ready) == before


@pytest.mark.parametrize("content", [b"not compressed", tarball(rootfs_members())[:-200]])
def test_a_tarball_that_is_none_is_refused(
    ready: Workspace, import_newest: Importer, content: bytes
) -> None:
    publish(ready, "20150511", rootfs=content)
    before = visible(ready)
    with pytest.raises(DataError, match=r"vivid-preinstalled-core-amd64\.tar\.gz"):
        import_newest()
    assert visible(ready) == before


def test_unknown_names_tell_the_known_ones(ready: Workspace, now: datetime) -> None:
    publish(ready, "20150511")

    def attempt(channel: str, device: str) -> CoreImageError:
        with pytest.raises(NotFoundError) as caught:
            importer.import_image(
                ready,
                channel=channel,
                device=device,
                settings=ready.settings.channels[CHANNEL],
                series=SERIES,
                progress=Silent(),
                now=now,
            )
        return caught.value

    assert CHANNEL in attempt("edge", DEVICE).hint
    assert "'generic_amd64'" in attempt(CHANNEL, "toaster").hint


def test_a_channel_may_take_good_publications_only(ready: Workspace, now: datetime) -> None:
    settings = ChannelSettings(project="ubuntu-core", release="15.04", accept="good")
    publish(ready, "20150510", good=True)
    publish(ready, "20150511", rootfs=tarball(rootfs_members(text="two")))
    result = importer.import_image(
        ready,
        channel=CHANNEL,
        device=DEVICE,
        settings=settings,
        series=SERIES,
        progress=Silent(),
        now=now,
    )
    assert result.publication.endswith("/20150510")


def test_two_importers_make_one_version(ready: Workspace, import_newest: Importer) -> None:
    publish(ready, "20150511")
    results: list[ImportResult] = []
    threads = [threading.Thread(target=lambda: results.append(import_newest())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.version for result in results] == [1, 1]
    assert sorted(result.changed for result in results) == [False, True]


def test_the_side_car_tells_where_a_file_came_from(
    ready: Workspace, import_newest: Importer
) -> None:
    import json

    directory = publish(ready, "20150511")
    path = import_newest().image.files[0].path.replace(".tar.xz", ".json")
    record = json.loads(layout.local_path(ready, path).read_text())
    source = directory / "vivid-preinstalled-core-amd64.tar.gz"
    assert record == {
        "publication": "ubuntu-core/vivid/daily-preinstalled/20150511",
        "version_detail": "rootfs=20150511",
        "recipe": {
            "generator": "cdimage-rootfs",
            "generator_version": 2,
            "source": source.name,
            "sha256": files.sha256_of(source),
            "settings": {"xz": 1},
        },
    }


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from coreimage.config import load_workspace
from coreimage.lib.progress import Silent
from coreimage.systemimage.imports import importer

budget = int(sys.argv[2])
original = os.fsync

def counted(descriptor):
    global budget
    budget -= 1
    if budget < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    original(descriptor)

os.fsync = counted
workspace = load_workspace(Path(sys.argv[1]))
importer.import_image(
    workspace, channel="ubuntu-core/edge", device="generic_amd64",
    settings=workspace.settings.channels["ubuntu-core/edge"], series="vivid",
    progress=Silent(), now=datetime(2026, 11, 23, 12, tzinfo=UTC),
)
"""


@pytest.mark.parametrize("start", [0, 3, 6])
def test_killed_at_any_instant_the_next_run_finishes(
    ready: Workspace, import_newest: Importer, tmp_path: Path, start: int
) -> None:
    publish(ready, "20150511")
    budget, finished = start, False
    while not finished:
        env = {"PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-c", KILLED, str(ready.root), str(budget)]
        ended = run.run(argv, env=env, check=False)
        finished = ended.status == 0
        assert finished or ended.status == -signal.SIGKILL, ended.stderr.decode()
        if not finished:
            found = layout.read_channels(ready).channels[CHANNEL].devices
            if found:  # the switch was the last step: all of it is there
                assert layout.read_index(ready, CHANNEL, DEVICE).newest_full() is not None
        budget += 9
    for leftover in ready.channel_tree.glob(".scratch-*"):
        os.utime(leftover, (0, 0))  # an empty one could be about to be used, for a minute
    assert import_newest().version == 1
    assert not list(ready.channel_tree.rglob(".scratch-*"))
    accept_with_plain_programs(ready, tmp_path)
