import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.model.publication import Publication, parse_checksums
from coreimage.publisher.marks import mark_good, marks, publications
from coreimage.publisher.publish import publish

NAME = "trixie-preinstalled-core-amd64.tar.gz"


def publication(version: str) -> Publication:
    return Publication(project="core", series="trixie", version=version)


@contextmanager
def seal(data: Path, signature: Path) -> Iterator[None]:
    """Stand in for a signature with what depends on the data, as a signature does."""
    signature.write_text(sha256(data.read_bytes()).hexdigest())
    yield


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root / "www"
        self.locks = root / "locks"
        self.builds = root / "builds"
        self.builds.mkdir()
        self.parent = self.root / publication("20261123").parent

    def artifact(self, content: bytes) -> tuple[Path, str]:
        digest = sha256(content).hexdigest()
        path = self.builds / digest
        path.write_bytes(content)
        return path, digest

    def publish(self, version: str, content: bytes = b"rootfs", *, sealing: object = seal) -> Path:
        return publish(
            self.root,
            publication(version),
            artifacts={NAME: self.artifact(content)},
            provenance={"builds": [1]},
            seal=sealing,  # type: ignore[arg-type]
            locks=self.locks,
        )

    def mark_good(self, version: str) -> None:
        mark_good(self.root, publication(version), locks=self.locks)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.parent.iterdir()) if self.parent.exists() else []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_publication_is_what_clients_expect(tree: Tree) -> None:
    place = tree.publish("20261123")
    assert place == tree.root / "core/trixie/daily-preinstalled/20261123"
    assert sorted(path.name for path in place.iterdir()) == [
        ".publish_info",
        "SHA256SUMS",
        "SHA256SUMS.gpg",
        NAME,
    ]
    assert (place / NAME).read_bytes() == b"rootfs"
    sums = (place / "SHA256SUMS").read_text()
    assert parse_checksums(sums, source="") == {NAME: sha256(b"rootfs").hexdigest()}
    assert json.loads((place / ".publish_info").read_text()) == {"builds": [1]}
    assert (tree.parent / "pending").readlink() == Path("20261123")
    assert not (tree.parent / "current").is_symlink()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o027])
def test_others_may_read_it_whatever_the_umask(tree: Tree, umask: int) -> None:
    before = os.umask(umask)
    try:
        place = tree.publish("20261123")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o644}


def test_the_same_again_changes_nothing(tree: Tree) -> None:
    place = tree.publish("20261123")
    changed = place.stat().st_mtime_ns
    before = {path: path.stat().st_ino for path in place.iterdir()}
    assert tree.publish("20261123") == place
    assert place.stat().st_mtime_ns == changed
    assert {path: path.stat().st_ino for path in place.iterdir()} == before


def test_other_files_need_another_build_id(tree: Tree) -> None:
    place = tree.publish("20261123")
    with pytest.raises(CoreImageError, match="is published already, with other files") as caught:
        tree.publish("20261123", b"other")
    assert "a new build id" in caught.value.hint
    assert (place / NAME).read_bytes() == b"rootfs"


def test_nothing_is_left_when_signing_fails(tree: Tree) -> None:
    def fail(_data: Path, signature: Path) -> None:
        signature.write_text("half a signa")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tree.publish("20261123", sealing=fail)
    assert tree.names() == []
    tree.publish("20261123")
    assert tree.names() == ["20261123", "pending"]


def test_a_flipped_byte_is_refused(tree: Tree) -> None:
    path, digest = tree.artifact(b"rootfs")
    path.write_bytes(b"rootfS")
    with pytest.raises(DataError, match="is not what was built") as caught:
        publish(
            tree.root,
            publication("20261123"),
            artifacts={NAME: (path, digest)},
            provenance={},
            seal=seal,
            locks=tree.locks,
        )
    assert digest in caught.value.message
    assert tree.names() == []


@pytest.mark.parametrize("name", ["../a.tar.gz", "a/b", ".hidden", "a b", ""])
def test_a_name_that_leads_elsewhere_is_refused(tree: Tree, name: str) -> None:
    with pytest.raises(DataError, match="cannot stand in SHA256SUMS"):
        publish(
            tree.root,
            publication("20261123"),
            artifacts={name: tree.artifact(b"rootfs")},
            provenance={},
            seal=seal,
            locks=tree.locks,
        )
    assert tree.names() == []
    assert list(tree.root.rglob("*.tar.gz")) == []


def test_an_artifact_on_another_file_system_is_copied(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    place = tree.publish("20261123")
    assert (place / NAME).read_bytes() == b"rootfs"
    assert (place / NAME).stat().st_nlink == 1


def test_pending_never_goes_back(tree: Tree) -> None:
    for version in ("20261123", "20261123.10", "20261123.9", "20261123"):
        tree.publish(version)
    assert (tree.parent / "pending").readlink() == Path("20261123.10")


def test_current_is_the_newest_good_one_in_whatever_order_they_are_marked(tree: Tree) -> None:
    for version in ("20261123", "20261123.9", "20261123.10"):
        tree.publish(version)
    tree.mark_good("20261123.9")
    assert (tree.parent / "current").readlink() == Path("20261123.9")
    tree.mark_good("20261123")
    assert (tree.parent / "current").readlink() == Path("20261123.9")
    tree.mark_good("20261123.10")
    tree.mark_good("20261123.9")
    assert (tree.parent / "current").readlink() == Path("20261123.10")
    carried = {each.version: marks(tree.root, each) for each in publications(tree.root)}
    assert carried == {
        "20261123": ["good"],
        "20261123.9": ["good"],
        "20261123.10": ["pending", "current", "good"],
    }


def test_what_is_not_published_cannot_be_marked(tree: Tree) -> None:
    with pytest.raises(NotFoundError, match="there is no publication") as caught:
        tree.mark_good("20261123")
    assert caught.value.hint == ""
    tree.publish("20261122")
    with pytest.raises(NotFoundError) as caught:
        tree.mark_good("20261123")
    assert caught.value.hint == "the build ids are 20261122"
    assert not (tree.parent / "current").is_symlink()


def test_publications_are_listed_by_date_and_nothing_else_is(tree: Tree) -> None:
    for version in ("20261123.10", "20261123.9", "20261122"):
        tree.publish(version)
    (tree.parent / "20261124").symlink_to("20261122")
    (tree.parent / "20261125").touch()
    (tree.parent / ".scratch-0").mkdir()
    (tree.root / "core/trixie/weekly-live/20261123").mkdir(parents=True)
    (tree.root / ".trash/trixie/daily-preinstalled/20261123").mkdir(parents=True)
    found = [each.version for each in publications(tree.root)]
    assert found == ["20261122", "20261123.9", "20261123.10"]
    assert publications(tree.root / "absent") == []
