"""A command in a built tree, in namespaces of its own."""

import tarfile
from pathlib import Path

import pytest

from tests.support.product import Product
from tests.support.trees import small_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


SCRIPT = "cat /etc/name; echo $$; ls /dev; echo changed > /etc/name; exit 7"
SAID = "the tree\n1\nfull\nnull\nrandom\ntty\nurandom\nzero\n"


def test_a_command_in_a_tree(tree: Path) -> None:
    done = Product(folder=tree).run("rootfs", "shell", tree, "--", "sh", "-c", SCRIPT, status=7)
    assert done.stdout.decode() == SAID
    assert (tree / "etc/name").read_text() == "changed\n"
    assert list((tree / "dev").iterdir()) == []


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
