"""What is published verifies with gpgv and sha256sum alone, and with nothing of ours."""

import json
import shutil
from pathlib import Path

import pytest

from coreimage.lib import run
from tests.system.conftest import Road

pytestmark = pytest.mark.system


def keyring(tree: Path, name: str, scratch: Path) -> Path:
    """Unpack a published keyring and return its keys."""
    folder = scratch / name
    folder.mkdir()
    run.run(["tar", "-xJf", tree / f"gpg/{name}.tar.xz", "-C", folder])
    return folder / "keyring.gpg"


def gpgv(keys: Path, signature: Path, data: Path) -> None:
    done = run.run(["gpgv", "--status-fd", "1", "--keyring", keys, signature, data])
    assert done.stdout.count(b"GOODSIG") == 1


def test_every_published_file(road: Road, tmp_path: Path) -> None:
    tree = road.channels
    master = keyring(tree, "archive-master", tmp_path)
    image_master = keyring(tree, "image-master", tmp_path)
    signing = keyring(tree, "image-signing", tmp_path)
    pinned = road.workspace / "trust/archive-master.tar.xz"
    assert run.run(["cmp", pinned, tree / "gpg/archive-master.tar.xz"]).status == 0
    levels = {
        "gpg/archive-master.tar.xz": master,
        "gpg/image-master.tar.xz": master,
        "gpg/image-signing.tar.xz": image_master,
        "gpg/blacklist.tar.xz": image_master,
    }
    checked = 0
    for path in sorted([*tree.rglob("*"), *(tree / "gpg").iterdir()]):
        name = str(path.relative_to(tree))
        if path.is_dir() or name.startswith("states/") or path.suffix == ".asc":
            continue
        gpgv(levels.get(name, signing), path.with_name(f"{path.name}.asc"), path)
        checked += 1
    assert checked >= 12


def test_every_checksum_of_the_index(road: Road, tmp_path: Path) -> None:
    channels = json.loads((road.channels / "channels.json").read_text())
    device = channels["debian-core/13/edge"]["devices"]["generic_amd64"]
    index = json.loads((road.channels / device["index"].lstrip("/")).read_text())
    (image,) = index["images"]
    lines = "".join(
        f"{file['checksum']}  {road.channels}{file['path']}\n" for file in image["files"]
    )
    sums = tmp_path / "sums"
    sums.write_text(lines)

    assert run.run(["sha256sum", "--check", "--strict", sums]).status == 0
    for file in image["files"]:
        assert (road.channels / file["path"].lstrip("/")).stat().st_size == file["size"]
        assert file["signature"] == f"{file['path']}.asc"


def test_the_publication(road: Road, tmp_path: Path) -> None:
    parent = road.workspace / "www/cdimage/debian-core/trixie/daily-preinstalled"
    pending = parent / "pending"
    assert pending.is_symlink()
    signing = keyring(road.channels, "image-signing", tmp_path)

    gpgv(signing, pending / "SHA256SUMS.gpg", pending / "SHA256SUMS")
    assert run.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=pending).status == 0
    listed = {line.split("*")[1] for line in (pending / "SHA256SUMS").read_text().splitlines()}
    present = {path.name for path in pending.iterdir() if not path.name.startswith(".")}
    assert present - listed == {"SHA256SUMS", "SHA256SUMS.gpg"}


def files_of(tree: Path) -> dict[str, Path]:
    """Return the files that a disk of debian-core/13/edge is made from, by what they are."""
    channels = json.loads((tree / "channels.json").read_text())
    entry = channels["debian-core/13/edge"]["devices"]["generic_amd64"]
    index = tree / entry["index"].lstrip("/")
    (image,) = json.loads(index.read_text())["images"]
    names = ("rootfs", "device", "version")
    payload = {
        name: tree / file["path"].lstrip("/")
        for name, file in zip(names, image["files"], strict=True)
    }
    keyrings = {
        name: tree / f"gpg/{name}.tar.xz" for name in ("image-master", "image-signing", "blacklist")
    }
    return {"channels.json": tree / "channels.json", "index": index, **payload, **keyrings}


@pytest.mark.parametrize("part", ["file", "signature"])
@pytest.mark.parametrize(
    "name",
    [
        *("channels.json", "index", "rootfs", "device", "version"),
        *("image-master", "image-signing", "blacklist"),
    ],
)
def test_one_flipped_byte_is_refused(road: Road, tmp_path: Path, name: str, part: str) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(road.channels, tree, symlinks=True)
    path = files_of(tree)[name]
    damaged = path if part == "file" else path.with_name(f"{path.name}.asc")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    trust = road.workspace / "trust/archive-master.tar.xz"
    words = ["core", "13", "--channel", "edge", "--output", tmp_path / "x86.img"]

    said = road.product.refused(
        "flash", *words, "--server", tree, "--archive-master", trust, status=76
    )

    assert path.name in said or path.name.removesuffix(".tar.xz") in said
    assert not list(tmp_path.glob("x86.img*"))


def test_a_foreign_root_of_trust_is_refused(road: Road, tmp_path: Path) -> None:
    road.product.run("init", tmp_path / "other")
    trust = tmp_path / "other/trust/archive-master.tar.xz"
    words = ["core", "13", "--channel", "edge", "--output", tmp_path / "x86.img"]

    said = road.product.refused(
        "flash", *words, "--server", road.channels, "--archive-master", trust, status=76
    )

    assert "image-master" in said
