import io
import os
import tarfile
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.flasher.oem.archive import archive_bytes, archive_name, write_archive
from coreimage.flasher.oem.find import local_names, local_oem, missing_oem, shipped_folder
from coreimage.flasher.oem.info import parse
from coreimage.flasher.oem.package import load_oem
from coreimage.flasher.tree.staging import Kind, Staging
from coreimage.lib import run
from tests.support.clicks import SIGNATURE, click, members_of

GOOD = """\
name: board
version: "2.1"
oem:
  hardware:
    bootloader: grub
    partition-layout: system-AB
    architecture: amd64
"""
FULL = (
    GOOD
    + """\
    platform: some-platform
    dtb: some.dtb
    boot-assets:
      files:
        - path: boot/splash.bmp
          target: splash.bmp
        - path: boot/uEnv.txt
        - path: tool
          dst: bin/tool
      raw-files:
        - path: boot/u-boot.img
          offset: "393216"
        - path: tool
          offset: 128K
      raw-partitions:
        - name: sbl1
          size: 1M
          type: dea0ba2c-cbdd-4805-b4f9-f428251c3e98
          path: tool
  software:
    built-in: [webdm]
    preinstalled: [hello]
  store:
    id: mine
type: oem
vendor: Somebody
config:
  ubuntu-core:
    modprobe: [blacklist floppy, options loop max_loop=8]
"""
)


def package(root: Path, text: str = FULL) -> Path:
    folder = root / "board"
    (folder / "meta").mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / "meta/package.yaml").write_text(text)
    (folder / "boot/splash.bmp").write_bytes(b"picture")
    (folder / "boot/uEnv.txt").write_bytes(b"env")
    (folder / "boot/u-boot.img").write_bytes(b"loader")
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    return folder


def archive(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder, arcname=".")
    return target


def test_the_shipped_package_is_good() -> None:
    found = load_oem(shipped_folder() / "generic-amd64")
    assert found.info.name == "generic-amd64"
    assert found.device == "generic_amd64"
    assert found.boot_files() == {}


def test_all_fields_of_the_original_are_known(tmp_path: Path) -> None:
    info = load_oem(package(tmp_path)).info
    assert info.oem.hardware.platform == "some-platform"
    assert info.oem.software.built_in == ("webdm",)
    assert info.oem.store.id == "mine"
    assert info.config.ubuntu_core.modprobe == ("blacklist floppy", "options loop max_loop=8")
    assert info.oem.hardware.device_tree == "some.dtb"


def test_the_file_of_a_device_tree_is_named_after_the_platform() -> None:
    text = FULL.replace("    dtb: some.dtb\n", "").encode()
    assert parse(text, source="x").oem.hardware.device_tree == "some-platform.dtb"


def test_settings_of_other_packages_are_kept() -> None:
    text = f"{GOOD}config:\n  webdm: {{port: 80}}\n  ubuntu-core: {{modprobe: blacklist floppy}}\n"
    config = parse(text.encode(), source="x").config
    assert config.ubuntu_core.modprobe == ("blacklist floppy",)
    assert config.model_extra == {"webdm": {"port": 80}}


def test_a_folder_and_its_archive_are_the_same_package(tmp_path: Path) -> None:
    folder = load_oem(package(tmp_path))
    packed = load_oem(archive(tmp_path / "board", tmp_path / "board.tar.gz"))
    assert folder == packed
    assert folder.digest == packed.digest
    (tmp_path / "board/tool").chmod(0o644)
    assert load_oem(tmp_path / "board").digest != folder.digest


def test_a_container_of_2015_is_the_same_package_too(tmp_path: Path) -> None:
    folder = package(tmp_path)
    snap = tmp_path / "board_2.1_amd64.snap"
    snap.write_bytes(click({**members_of(folder), **SIGNATURE}))
    assert load_oem(snap) == load_oem(folder)
    assert local_oem("board_2.1_amd64", folders=[tmp_path]) == snap
    snap.write_bytes(b"hsqs" + bytes(4096))
    with pytest.raises(DataError, match="is a squashfs"):
        load_oem(snap)


def test_it_is_installed_below_its_version(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    load_oem(package(tmp_path)).install(tree)
    assert tree.file("oem/board/current/boot/splash.bmp").read_bytes() == b"picture"
    assert tree.entries["oem/board/current"].kind is Kind.SYMLINK
    assert tree.entries["oem/board/current"].target == "2.1"
    assert tree.entries["oem/board/2.1/tool"].mode == 0o755
    modprobe = tree.file("system-data/var/lib/coreimage/modprobe.conf")
    assert modprobe.read_text() == "blacklist floppy\noptions loop max_loop=8\n"


def test_boot_assets_go_to_the_boot_partition(tmp_path: Path) -> None:
    found = load_oem(package(tmp_path))
    assert found.boot_files() == {
        "splash.bmp": b"picture",
        "uEnv.txt": b"env",
        "bin/tool": b"#!/bin/sh\n",
    }


def test_raw_files_and_partitions_know_where_they_go(tmp_path: Path) -> None:
    found = load_oem(package(tmp_path))
    assert found.raw_files() == [
        ("boot/u-boot.img", 393216, b"loader"),
        ("tool", 128 << 10, b"#!/bin/sh\n"),
    ]
    (partition,) = found.info.oem.hardware.boot_assets.raw_partitions
    assert (partition.name, partition.size) == ("sbl1", 1 << 20)
    assert found.partition_contents() == {"sbl1": b"#!/bin/sh\n"}


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        ("bootloader: grub", "bootloader: lilo", "bootloader 'lilo' is not supported", "'u-boot'"),
        ("raw-files", "raw-file", "boot-assets.raw-file' is not a key", "'raw-files'"),
        ("offset: 128K", "ofset: 128K", "raw-files.1.ofset' is not a key", "'offset'"),
        ("modprobe:", "modprob:", "ubuntu-core.modprob' is not a key", "'modprobe'"),
        ("blacklist floppy", "rm -rf /", "no line of modprobe.d", ""),
        ("size: 1M", "size: 1", "with its unit K, M or G", ""),
        ("size: 1M", "size: 0K", "greater than 0", ""),
        ("offset: 128K", "offset: -1", "bytes from the start", ""),
        ("offset: 128K", "offset: true", "bytes from the start", ""),
        ("type: dea0ba2c", "type: linux", "two hexadecimal digits", ""),
        ("target: splash.bmp", "{target: a, dst: b}", "not YAML", ""),
        ("dst: bin/tool", "dst: bin/tool\n          target: x", "give one", ""),
        ("path: boot/u-boot.img", "path: boot/u-boot", "no file 'boot/u-boot'", ""),
        ("system-AB", "minimal", "partition-layout 'minimal' is not supported", ""),
        ("boot/splash.bmp", "boot/missing", "no file 'boot/missing'", ""),
        ("target: splash.bmp", "target: ../../x", "outside its root", ""),
        ("architecture:", "architectur:", "architectur", "architecture"),
        ('"2.1"', "2.10", "'version'", "in quotes"),
        ("name: board", "name: ../board", "'name'", ""),
        ("name: board", "name: [", "not YAML", ""),
        ("type: oem", "type: app", "'type'", ""),
        (GOOD, "", "'name'|document", ""),
        ("name: board", "name: !!python/object/apply:os.system [id]", "not YAML", ""),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, says: str, hint: str) -> None:
    with pytest.raises(DataError, match=says) as raised:
        load_oem(package(tmp_path, FULL.replace(old, new)))
    assert "meta/package.yaml" in raised.value.message
    assert hint in raised.value.hint


def test_a_document_that_is_no_mapping_is_refused() -> None:
    for text in (b"", b"- list", b"text", b"\xff\xfe\x00", b"[" * 5000):
        with pytest.raises(DataError, match="source"):
            parse(text, source="source")


def test_a_package_without_a_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no meta/package\.yaml"):
        load_oem(tmp_path)


@pytest.mark.parametrize("name", ["../escape", "/absolute"])
def test_a_malicious_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "board.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="outside its root"):
        load_oem(path)


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    folder = package(tmp_path)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="'link'"):
        load_oem(folder)
    with pytest.raises(DataError, match="link"):
        load_oem(archive(folder, tmp_path / "x.tar.gz"))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("no")
    with pytest.raises(DataError, match=r"x\.tar\.gz"):
        load_oem(tmp_path / "x.tar.gz")


def test_the_first_folder_wins_and_names_are_listed(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    archive(package(tmp_path), own / "generic-amd64.tar.gz")
    folders = [own, tmp_path / "absent", shipped_folder()]
    assert local_oem("generic-amd64", folders=folders) == own / "generic-amd64.tar.gz"
    assert local_oem(str(own / "generic-amd64.tar.gz"), folders=[]) is not None
    assert local_oem("beagle", folders=folders) is None
    assert "generic-amd64" in local_names(folders)
    assert missing_oem("beagle", ["a", "b"]).hint == "the OEM packages are 'a', 'b'"
    with pytest.raises(NotFoundError, match="nowhere"):
        local_oem("./nowhere", folders=folders)


def test_an_archive_depends_on_the_package_alone(tmp_path: Path) -> None:
    found = load_oem(package(tmp_path))
    made = archive_bytes(found)
    assert archive_name(found) == "board_2.1_amd64.tar.xz"
    (tmp_path / "other").mkdir()
    again = package(tmp_path / "other")
    for path in sorted(again.rglob("*"), reverse=True):
        os.utime(path, (1, 1))
    assert archive_bytes(load_oem(again)) == made
    target = tmp_path / "board.tar.xz"
    write_archive(found, target)
    write_archive(found, target)  # the same content is no conflict
    assert load_oem(target) == found
    target.write_bytes(b"something else")
    with pytest.raises(CoreImageError, match="not overwritten"):
        write_archive(found, target)


def test_every_compression_that_we_know_is_read(tmp_path: Path) -> None:
    package(tmp_path)
    run.run(["tar", "-C", tmp_path / "board", "-cJf", tmp_path / "board.tar.xz", "."])
    run.run(["tar", "-C", tmp_path / "board", "--zstd", "-cf", tmp_path / "board.tar.zst", "."])
    expected = load_oem(tmp_path / "board").digest
    for suffix in ("xz", "zst"):
        assert load_oem(tmp_path / f"board.tar.{suffix}").digest == expected
