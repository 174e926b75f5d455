"""Bad input: a clear message, a hint, the right exit code, and nothing left behind."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.product import SOURCES, Product
from tests.system.conftest import Road

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["debian-kore"], 66, "there is no definition 'debian-kore'"),
        (["debian-core", "--release", "99"], 66, "its releases are 13 (trixie), 12 (bookworm)"),
        (["debian-core", "--arch", "z80"], 66, "its architectures are amd64"),
        (["debian-core", "--mirror", "http://127.0.0.1:9/debian"], 69, "cannot be used"),
    ],
)
def test_a_build_that_cannot_be(
    road: Road, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    output = tmp_path / "out"

    message = road.product.refused("rootfs", "build", *words, "--output", output, status=status)

    assert said in message
    assert "hint: " in message
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_does_not_exist(copy: Road) -> None:
    own = copy.workspace / "definitions/kiosk"
    own.mkdir()
    (own / "definition.toml").write_text(
        'name = "kiosk"\nextends = "debian-core"\npackages = ["no-such-package"]\n'
    )

    message = copy.product.refused("pipeline", "run", "kiosk", "--output", copy.disk, status=65)

    assert "Unable to locate package no-such-package" in message
    assert not copy.disk.exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["core", "99"], 66, "99"),
        (["core", "13", "--channel", "edgy"], 66, "debian-core/13/edgy"),
        (["core", "13", "--channel", "edge", "--oem", "toaster"], 66, "toaster"),
        (["core", "13", "--channel", "edge", "--revision", "7"], 66, "its versions are 1"),
        (["core", "13", "--channel", "edge", "--server", "http://127.0.0.1:9/"], 69, "127.0.0.1"),
    ],
)
def test_a_disk_that_cannot_be(
    road: Road, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    words = [*words, "--output", str(tmp_path / "x86.img")]

    assert said in road.product.refused("flash", *words, status=status)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_never_overwritten(road: Road, tmp_path: Path) -> None:
    output = tmp_path / "x86.img"
    output.write_text("mine")
    words = ["core", "13", "--channel", "edge", "--output", output]

    assert "x86.img" in road.product.refused("flash", *words, status=1)
    assert output.read_text() == "mine"


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.gpg", "*.device.tar.gz"])
def test_a_flipped_byte_in_a_publication_is_not_imported(copy: Road, name: str) -> None:
    parent = copy.workspace / "www/cdimage/debian-core/trixie/daily-preinstalled"
    newer = parent / "20990101"
    shutil.copytree(
        parent / "20990101" if newer.exists() else (parent / "pending").resolve(), newer
    )
    path = next(newer.glob(name))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # A file that nobody signed for anew must not count as unchanged either.
    if name == "*.device.tar.gz":
        shutil.rmtree(copy.workspace / "www/system-image/pool")
    before = tree_of(copy.channels)

    copy.product.refused("image", "import", "debian-core/13/edge", status=76)

    assert tree_of(copy.channels) == before


def tree_of(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_no_space_for_the_disk(road: Road, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    shell = f'mount -t tmpfs -o size=64m none {small} && exec "$@"'
    product = Product(
        folder=SOURCES,
        prefix=["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"],
    )
    words = ["core", "13", "--channel", "edge", "--output", small / "x86.img"]

    said = product.refused("flash", *words, "--workspace", road.workspace, status=74)

    assert "space" in said


def test_no_space_for_the_build(road: Road, tmp_path: Path) -> None:
    del road
    small = tmp_path / "small"
    small.mkdir()
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace += ["--user", "--map-root-user"]
    shell = f'mount -t tmpfs -o size=200m none {small} && exec "$@"'
    product = Product(
        folder=SOURCES,
        prefix=[*namespace, "sh", "-c", shell, "sh"],
        environment={"TMPDIR": str(small)},
    )

    # Whoever made an image before has one that would be used again.
    argv = ["rootfs", "build", "debian-core", "--no-cache", "--output", tmp_path / "out"]
    said = product.refused(*argv, status=74)

    assert "no space for the tree" in said
    assert not (tmp_path / "out").exists()
