"""Publishing by processes that are killed, and under the eyes of readers who never stop."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.lib import run
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import Publication, parse_checksums
from coreimage.publisher.marks import mark_good
from coreimage.publisher.publish import publish

# Publishes; what stands in STOP says where it waits to be killed.
SCRIPT = """
import contextlib, pathlib, sys, time
from coreimage.lib import files
from coreimage.model.publication import Publication
from coreimage.publisher import publish as module

root, digest, stop = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def wait(name):
    if name == stop:
        print("waiting", flush=True)
        time.sleep(600)

@contextlib.contextmanager
def seal(data, signature):
    wait("sign")
    signature.write_text("signed")
    yield
    wait("renamed")

def fsync_tree(path):
    wait("fsync")

def point(mark, version):
    wait("point")
    real_point(mark, version)

real_point, module.point, module.fsync_tree = module.point, point, fsync_tree
module.publish(
    root / "www",
    Publication(project="core", series="trixie", version="20261123"),
    artifacts={"a.tar.gz": (root / "a", digest)},
    provenance={},
    seal=seal,
    locks=root / "locks",
)
"""
PARENT = "www/core/trixie/daily-preinstalled"


@contextmanager
def seal(sign: Callable[[Path, Path], None], data: Path, signature: Path) -> Iterator[None]:
    sign(data, signature)
    yield


@pytest.mark.parametrize(
    ("stop", "visible"),
    [("sign", []), ("fsync", []), ("renamed", ["20261123"]), ("point", ["20261123"])],
)
def test_killed_anywhere_and_run_again(tmp_path: Path, stop: str, visible: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"rootfs")
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path), sha256(b"rootfs").hexdigest()]
    with run.start([*argv, stop], stdout=run.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGKILL)
    parent = tmp_path / PARENT
    left = [path.name for path in parent.iterdir() if not path.name.startswith(".")]
    assert left == visible
    run.run([*argv, "nowhere"])
    assert sorted(path.name for path in parent.iterdir()) == ["20261123", "pending"]
    assert (parent / "pending/SHA256SUMS.gpg").exists()
    assert (parent / "pending/a.tar.gz").read_bytes() == b"rootfs"


def test_o16_marks_are_never_absent_while_they_move(tmp_path: Path) -> None:
    artifact = tmp_path / "a"
    artifact.write_bytes(b"rootfs")
    digest = sha256(b"rootfs").hexdigest()

    def go(number: int) -> None:
        publication = Publication(project="core", series="trixie", version=f"20261123.{number}")
        publish(
            tmp_path / "www",
            publication,
            artifacts={"a.tar.gz": (artifact, digest)},
            provenance={},
            seal=partial(seal, lambda _, signature: signature.touch()),
            locks=tmp_path / "locks",
        )
        mark_good(tmp_path / "www", publication, locks=tmp_path / "locks")

    go(1)
    parent, done = tmp_path / PARENT, threading.Event()
    problems: list[BaseException] = []
    looks = 0

    def read() -> None:
        nonlocal looks
        while not done.is_set():
            looks += 1
            try:
                for mark in ("pending", "current"):
                    target = (parent / mark).readlink()
                    text = (parent / target / "SHA256SUMS").read_text()
                    assert parse_checksums(text, source="") == {"a.tar.gz": digest}
            except BaseException as error:  # noqa: BLE001  told in the other thread
                problems.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(2, 60):
            go(number)
    finally:
        done.set()
        reader.join()
    assert problems == []
    assert looks > 60
    assert (parent / "current").readlink() == Path("20261123.59")


def test_a_published_signature_is_gpgs(tmp_path: Path) -> None:
    signer = Signer(tmp_path / "gpg")
    signer.generate(KeyringType.IMAGE_SIGNING)
    (tmp_path / "a").write_bytes(b"rootfs")
    place = publish(
        tmp_path / "www",
        Publication(project="core", series="trixie", version="20261123"),
        artifacts={"a.tar.gz": (tmp_path / "a", sha256(b"rootfs").hexdigest())},
        provenance={},
        seal=partial(seal, partial(signer.sign, key=KeyringType.IMAGE_SIGNING)),
        locks=tmp_path / "locks",
    )
    ring = signer.public_keyring(KeyringType.IMAGE_SIGNING)
    run.run(["gpgv", "--keyring", ring, place / "SHA256SUMS.gpg", place / "SHA256SUMS"])
    run.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place)
