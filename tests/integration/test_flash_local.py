"""Flashing what this machine has: builds, publications, tarballs and trees, without a server."""

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import DataError, NotFoundError, TrustError, UsageError
from coreimage.flasher.flash import flash
from coreimage.flasher.local import LocalWish
from coreimage.flasher.oem.find import shipped_folder
from coreimage.flasher.options import FlashOptions
from coreimage.flasher.plan import FlashPlan, planned
from coreimage.flasher.remote.connect import Place
from coreimage.flasher.summary import plan_lines, summary_lines
from coreimage.lib import run
from coreimage.lib.progress import Silent
from tests.integration import channel_tree
from tests.integration.channel_tree import NOW
from tests.support.disks import digest

ROOTFS = {
    "etc/hostname": b"core\n",
    "usr/bin/true": b"#!/bin/sh\n",
    "etc/mtab": b"the build's own",
    "dev/leftover": b"x",
}


def pack(path: Path, files: Mapping[str, bytes], *, mode: str = "gz") -> Path:
    source = path.parent / f"{path.name}.files"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
        os.utime(source / name, (channel_tree.BUILT_AT, channel_tree.BUILT_AT))
    if "etc/hostname" in files:
        (source / "usr/lib").mkdir(parents=True, exist_ok=True)
        (source / "lib").symlink_to("usr/lib")
    with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
        tar.add(source, arcname=".")
    shutil.rmtree(source)
    return path


def build(folder: Path, *, arch: str = "amd64") -> Path:
    """Make the folder of a finished build."""
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True)
    rootfs = pack(artifacts / "livecd.core.rootfs.tar.gz", ROOTFS)
    device = pack(artifacts / "livecd.core.device.tar.gz", channel_tree.DEVICE_FILES)
    sums = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in (rootfs, device)}
    record = {"arch": arch, "sha256": sums}
    (artifacts / "livecd.core.build.json").write_text(json.dumps(record))
    return folder


def make(home: Path, wish: LocalWish, *, name: str = "x.img", only_plan: bool = False) -> FlashPlan:
    options = FlashOptions(
        release="",
        channel="edge",
        output=home / name,
        oem="generic-amd64",
        oem_folders=[shipped_folder()],
        local=wish,
    )
    place = Place(
        servers=[], archive_master=home / "none", cache=home / "cache", scratch=home / "scratch"
    )
    with planned(options, place, progress=Silent(), now=NOW) as job:
        if not only_plan:
            flash(job, progress=Silent())
        return job.plan


def cat(disk: Path, plan: FlashPlan, path: str) -> bytes:
    image = f"{disk}?offset={plan.layout.partition('system-a').start}"
    return run.run(["debugfs", "-R", f"cat /{path}", image]).stdout


def test_a_build_becomes_a_disk(tmp_path: Path) -> None:
    build(tmp_path / "builds/7")
    plan = make(tmp_path, LocalWish(rootfs="7", builds=tmp_path / "builds"))
    disk = tmp_path / "x.img"
    assert cat(disk, plan, "etc/hostname") == b"core\n"
    # What a server adds to a root file system, and leaves out of it.
    assert cat(disk, plan, "etc/ubuntu-build") == b"0\n"
    stat = run.run(
        [
            "debugfs",
            "-R",
            "stat /etc/mtab",
            f"{disk}?offset={plan.layout.partition('system-a').start}",
        ]
    )
    assert b'"/proc/mounts"' in stat.stdout
    listed = run.run(
        ["debugfs", "-R", "ls -p /dev", f"{disk}?offset={plan.layout.partition('system-a').start}"]
    ).stdout
    assert b"leftover" not in listed
    lines = summary_lines(plan, program="kvm")
    assert " Root file system: build 7" in lines
    assert any("not from a channel" in line and "no updates" in line for line in lines)
    assert not any(line.startswith(" Channel") for line in lines)
    assert any("device part: build 7" in line for line in plan_lines(plan))


def test_every_kind_of_source_gives_the_same_system(tmp_path: Path) -> None:
    folder = build(tmp_path / "builds/7")
    artifacts = folder / "artifacts"
    publication = tmp_path / "cdimage/debian-core/trixie/daily-preinstalled/20261123"
    publication.mkdir(parents=True)
    names = {"rootfs": "trixie-preinstalled-core-amd64.tar.gz"}
    names["device"] = "trixie-preinstalled-core-amd64.device.tar.gz"
    for kind, name in names.items():
        shutil.copy(artifacts / f"livecd.core.{kind}.tar.gz", publication / name)
    with (publication / "SHA256SUMS").open("wb") as sums:
        run.run(["sha256sum", "-b", *names.values()], cwd=publication, stdout=sums)
    cdimage = tmp_path / "cdimage"
    device = str(artifacts / "livecd.core.device.tar.gz")
    wishes = [
        LocalWish(rootfs=str(folder)),
        LocalWish(rootfs=str(artifacts)),
        LocalWish(rootfs=str(publication)),
        LocalWish(rootfs="debian-core/trixie/20261123", publications=cdimage),
        LocalWish(rootfs="debian-core/trixie/daily-preinstalled/20261123", publications=cdimage),
        LocalWish(rootfs=str(artifacts / "livecd.core.rootfs.tar.gz"), device_part=device),
    ]
    made = {make(tmp_path, wish, only_plan=True).seed for wish in wishes}
    assert len(made) == 1


def test_a_tree_is_packed_and_flashed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("own\n")
    os.link(tree / "etc/hostname", tree / "etc/name")
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    device = pack(tmp_path / "device.tar.gz", channel_tree.DEVICE_FILES)
    wish = LocalWish(rootfs=str(tree), device_part=str(device))
    plan = make(tmp_path, wish)
    assert cat(tmp_path / "x.img", plan, "etc/name") == b"own\n"
    again = make(tmp_path, wish, name="y.img")
    assert again.seed == plan.seed
    assert digest(tmp_path / "x.img") == digest(tmp_path / "y.img")


def test_a_device_part_of_this_machine_goes_with_a_channels_system(tmp_path: Path) -> None:
    workspace = channel_tree.make_workspace(tmp_path / "workspace")
    channel_tree.publish(workspace, 3)
    files = {**channel_tree.DEVICE_FILES, "system/etc/replaced": b"from this machine\n"}
    device = pack(tmp_path / "device.tar.gz", files)
    plan = flash_mixed(workspace, tmp_path, device)
    disk = tmp_path / "x.img"
    assert cat(disk, plan, "etc/replaced") == b"from this machine\n"
    assert cat(disk, plan, "etc/ubuntu-build") == b"3\n"
    assert not any(file.path.startswith("/pool/device-") for file in plan.image.files)
    lines = summary_lines(plan, program="kvm")
    assert " Version: 3" in lines
    assert any("next update brings the channel's own" in line for line in lines)


def flash_mixed(workspace: Workspace, home: Path, device: Path) -> FlashPlan:
    options = FlashOptions(
        release="13",
        channel="edge",
        output=home / "x.img",
        oem="generic-amd64",
        oem_folders=[shipped_folder()],
        local=LocalWish(device_part=str(device)),
    )
    place = Place(
        servers=[str(workspace.channel_tree)],
        archive_master=workspace.archive_master,
        cache=home / "cache",
        scratch=home / "scratch",
    )
    with planned(options, place, progress=Silent(), now=NOW) as job:
        flash(job, progress=Silent())
        return job.plan


def test_what_is_not_as_its_record_says_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "builds/7")
    pack(folder / "artifacts/livecd.core.rootfs.tar.gz", {**ROOTFS, "etc/evil": b"x"})
    with pytest.raises(TrustError, match="its record says"):
        make(tmp_path, LocalWish(rootfs="7", builds=tmp_path / "builds"))
    assert not (tmp_path / "x.img").exists()


def test_mistakes_are_named(tmp_path: Path) -> None:
    build(tmp_path / "builds/7", arch="arm64")
    builds = tmp_path / "builds"
    with pytest.raises(DataError, match="is of arm64") as raised:
        make(tmp_path, LocalWish(rootfs="7", builds=builds))
    assert "--oem" in raised.value.hint
    with pytest.raises(NotFoundError, match="'8' is no file") as missing:
        make(tmp_path, LocalWish(rootfs="8", builds=builds))
    assert missing.value.hint == "the builds are 7"
    rootfs = pack(tmp_path / "rootfs.tar.gz", ROOTFS)
    with pytest.raises(UsageError, match="has no kernel"):
        make(tmp_path, LocalWish(rootfs=str(rootfs)))
    (tmp_path / "tree").mkdir()
    with pytest.raises(DataError, match="neither a build nor a publication"):
        make(tmp_path, LocalWish(rootfs=str(rootfs), device_part=str(tmp_path / "tree")))
    (tmp_path / "builds/9/artifacts").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="build 9 has no rootfs tarball"):
        make(tmp_path, LocalWish(rootfs="9", builds=builds))


def test_the_command_needs_neither_workspace_nor_server(tmp_path: Path) -> None:
    folder = build(tmp_path / "builds/7")
    argv = [sys.executable, "-m", "coreimage", "flash", "core", "--rootfs", str(folder)]
    ended = run.run([*argv, "--output", "x.img"], cwd=tmp_path, check=False)
    assert ended.status == 0, ended.stderr.decode()
    assert b"not from a channel" in ended.stdout
    assert (tmp_path / "x.img").stat().st_size == 4_000_000_000
    alone = run.run(argv[:5], cwd=tmp_path, check=False)
    assert alone.status == 2
    assert b"--rootfs" in alone.stderr
