"""A build whose plan is a small program in place of mmdebstrap: it writes a tree as a tar."""

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.errors import CommandError, CoreImageError, DataError
from coreimage.lib.progress import Silent
from coreimage.rootfs import build as rootfs
from coreimage.rootfs.archive import Archive, Resolution
from coreimage.rootfs.definition import select
from coreimage.rootfs.plan import RootfsPlan, plan_build
from tests.support.definitions import BASE, write
from tests.support.resolutions import package, suite
from tests.unit.rootfs.test_split import KERNEL, STATUS, member, stream

WHEN = datetime(2026, 11, 23, tzinfo=UTC)
NAMES = {
    "livecd.base.build.json",
    "livecd.base.device.tar.gz",
    "livecd.base.cdx.json",
    "livecd.base.lock.json",
    "livecd.base.manifest",
    "livecd.base.rootfs.tar.gz",
}
DATABASE = member("var/lib/dpkg/status", data=STATUS + b"Version: 1\nArchitecture: amd64\n")
# More than any pipe holds, so that a program that is not heard to its end fails.
MUCH = member("srv/much", data=bytes(4 << 20))


class Builder:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.argv: list[str] = []
        write(root / "definitions/base", BASE)
        monkeypatch.setattr(rootfs, "plan_build", self._plan)
        monkeypatch.setattr(rootfs, "require_user_namespace", lambda: None)
        monkeypatch.setenv("TMPDIR", str(root))
        monkeypatch.setattr("tempfile.tempdir", None)

    def _plan(self, *args: object, **words: object) -> RootfsPlan:
        made = plan_build(*args, **words)  # type: ignore[arg-type]
        return RootfsPlan(
            argv=self.argv,
            env=made.env,
            archives_overlay=made.archives_overlay,
            early_overlay=made.early_overlay,
            overlay=made.overlay,
            epoch=made.epoch,
        )

    @property
    def inputs(self) -> rootfs.Inputs:
        return rootfs.Inputs(
            selection=select("base", None, "amd64", [self.root / "definitions"]),
            archive=Archive(suite="trixie", sources=[], keyring=Path("/k")),
            resolution=Resolution(packages=[package("dash")], suites=[suite("trixie")]),
            published_at=WHEN,
        )

    def tree(self, *members: object) -> None:
        (self.root / "tree.tar").write_bytes(stream(list(members)).getvalue())  # type: ignore[arg-type]
        self.argv = ["cat", str(self.root / "tree.tar")]

    def build(self, name: str = "out") -> rootfs.RootfsBuild:
        return rootfs.build(self.inputs, self.root / name, gzip_level=1, progress=Silent())

    def left(self) -> set[str]:
        """Return what a build left behind, its room's parent aside."""
        aside = {"definitions", "tree.tar", f"coreimage-{os.geteuid()}"}
        assert list((self.root / f"coreimage-{os.geteuid()}").iterdir()) == []
        return {path.name for path in self.root.iterdir()} - aside


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder(tmp_path, monkeypatch)
    made.tree(*KERNEL, DATABASE)
    return made


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_build_is_five_files_with_their_digests(builder: Builder) -> None:
    built = builder.build()
    place = builder.root / "out"
    assert {path.name for path in place.iterdir()} == NAMES == set(built.files.values())
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert (place / "livecd.base.manifest").read_text() == "dash\t1\n"
    record = json.loads((place / "livecd.base.build.json").read_text())
    assert record["sha256"] == built.sha256
    assert (record["kernel"], record["source_date_epoch"]) == ("6.1.0-1-cloud", 1795392000)
    assert record["fingerprint"] == built.fingerprint == builder.inputs.fingerprint()
    assert builder.left() == {"out"}


def test_the_same_inputs_give_the_same_bytes(builder: Builder) -> None:
    assert builder.build("a") == builder.build("b")
    for name in NAMES:
        paths = [builder.root / each / name for each in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_empty_output_is_filled_and_another_refused(builder: Builder) -> None:
    (builder.root / "out").mkdir()
    builder.build()
    before = {path: path.stat() for path in (builder.root / "out").iterdir()}
    with pytest.raises(CoreImageError, match="is not an empty directory") as caught:
        builder.build()
    assert caught.value.hint == "choose another --output"
    assert {path: path.stat() for path in (builder.root / "out").iterdir()} == before
    with pytest.raises(CoreImageError, match="is not an empty directory"):
        builder.build("tree.tar")


def test_a_tree_that_is_refused_is_told_as_it_is(builder: Builder) -> None:
    builder.tree(*KERNEL, member("boot/vmlinuz-6.2"), MUCH, DATABASE)
    with pytest.raises(DataError, match="the built tree has two kernels"):
        builder.build()
    assert builder.left() == set()


@pytest.mark.parametrize(
    "script",
    [
        "exit 25",
        "head -c 700 ../../tree.tar; exit 25",
        "cat ../../tree.tar; exit 25",
        "head -c 100000 /dev/zero | tr '\\0' x; exit 25",
    ],
)
def test_a_program_that_fails_is_told_before_its_tree(builder: Builder, script: str) -> None:
    builder.tree(*KERNEL, DATABASE, MUCH)
    builder.argv = ["sh", "-c", script]
    with pytest.raises(CommandError, match="mmdebstrap failed, exit status 25") as caught:
        builder.build()
    assert "in the log" in caught.value.hint
    assert builder.left() == set()


def test_a_tree_without_packages_is_no_build(builder: Builder) -> None:
    builder.tree(*KERNEL)
    with pytest.raises(DataError, match="has no packages"):
        builder.build()
    assert builder.left() == set()


def test_the_fingerprint_changes_with_what_goes_in(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {builder.inputs.fingerprint()}
    write(builder.root / "definitions/base", BASE.replace("dash", "bash"))
    seen.add(builder.inputs.fingerprint())
    monkeypatch.setattr(rootfs, "FORMAT", rootfs.FORMAT + 1)
    seen.add(builder.inputs.fingerprint())
    assert len(seen) == 3


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", " 5", "9" * 30, "\u0665"])
def test_a_time_of_the_sources_is_unix_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(DataError, match="expected UNIX seconds"):
        rootfs._epoch()


def test_the_time_of_the_sources_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795392000")
    assert rootfs._epoch() == WHEN
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert rootfs._epoch() is None
