"""A command in a built tree, in namespaces of its own."""

import tarfile
from pathlib import Path

import pytest

from tests.support.product import Product
from tests.support.trees import small_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


SCRIPT = "cat /etc/name; ls /dev; echo changed > /etc/name; exit 7"
SAID = "the tree\nfull\nnull\nrandom\ntty\nurandom\nzero\n"


def test_a_command_in_a_tree(tree: Path) -> None:
    done = Product(folder=tree).run("rootfs", "shell", tree, "--", "sh", "-c", SCRIPT, status=7)
    assert done.stdout.decode() == SAID
    assert (tree / "etc/name").read_text() == "changed\n"
    assert not (tree / "dev").exists()
    assert not (tree / "proc").exists()


def test_folders_of_a_tree_stay(tree: Path) -> None:
    (tree / "dev").mkdir()
    Product(folder=tree).run("rootfs", "shell", tree, "--", "sh", "-c", SCRIPT, status=7)
    assert list((tree / "dev").iterdir()) == []
    assert not (tree / "proc").exists()


def test_a_command_that_kills_itself_has_failed(tree: Path) -> None:
    Product(folder=tree).run("rootfs", "shell", tree, "--", "sh", "-c", "kill $$", status=143)


def test_a_tarball_is_unpacked_and_removed(tree: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "x.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tree, arcname=".")
    room = tmp_path / "room"
    room.mkdir(mode=0o711)
    product = Product(folder=tmp_path, environment={"TMPDIR": str(room)})
    done = product.run("rootfs", "shell", tarball, "--", "sh", "-c", SCRIPT, status=7)
    assert done.stdout.decode() == SAID
    assert (tree / "etc/name").read_text() == "the tree\n"
    assert list(room.glob("*/*")) == []


def test_what_is_no_tree_is_told(tmp_path: Path) -> None:
    product = Product(folder=tmp_path)
    assert "no tree or tarball 'absent'" in product.refused("rootfs", "shell", "absent", status=66)
    (tmp_path / "x.tar.gz").write_bytes(b"no tarball")
    assert "cannot be unpacked" in product.refused("rootfs", "shell", "x.tar.gz", status=65)


@pytest.mark.parametrize("folders", [[], ["etc"], ["usr"], ["apt", "default"]])
def test_a_folder_that_is_no_tree_is_left_alone(tmp_path: Path, folders: list[str]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in folders:
        (place / name).mkdir()
    assert "is no tree" in Product(folder=tmp_path).refused("rootfs", "shell", "place", status=65)
    assert sorted(each.name for each in place.iterdir()) == sorted(folders)


@pytest.mark.parametrize("stem", ["livecd.base.rootfs", "trixie-preinstalled-core-amd64"])
def test_the_tarball_of_a_folder_is_meant(tree: Path, tmp_path: Path, stem: str) -> None:
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    place = tmp_path / "place"
    place.mkdir()
    with tarfile.open(place / f"{stem}.tar.gz", "w:gz") as archive:
        archive.add(tree, arcname=".")
    (place / f"{stem.removesuffix('.rootfs')}.device.tar.gz").touch()
    product = Product(folder=tmp_path)
    done = product.run("rootfs", "shell", "place", "--", "cat", "/etc/name")
    assert done.stdout.decode() == "the tree\n"
    assert "root:x:0:" in product.run("rootfs", "ids", "place").stdout.decode()
    (place / "jammy-preinstalled-core-armhf.tar.gz").touch()
    complaint = product.refused("rootfs", "ids", "place", status=66)
    assert "several root file systems" in complaint
