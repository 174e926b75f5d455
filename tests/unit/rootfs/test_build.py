"""Builds around a tree that is made up: a small program writes it as a tar."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.config import CacheSettings
from coreimage.errors import CommandError, CoreImageError, DataError, NoSpaceError
from coreimage.lib.progress import Silent
from coreimage.rootfs import build as rootfs
from coreimage.rootfs import inputs as found
from coreimage.rootfs.archives.archive import Archive, Resolution
from coreimage.rootfs.definitions.definition import select
from coreimage.rootfs.plan import RootfsPlan, Step
from coreimage.rootfs.reuse.cache import Cache
from coreimage.rootfs.tree import steps as stage
from tests.support.definitions import BASE, write
from tests.support.resolutions import package, suite
from tests.unit.rootfs.tarballs.test_split import KERNEL, STATUS, member, stream

WHEN = datetime(2026, 11, 23, tzinfo=UTC)
# No more of a package than says when it was built.
DEB = b"!<arch>\n" + b"debian-binary   1795392000  0     0     100644  4         `\n2.0\n"
PACKAGE = package("dash", sha256=sha256(DEB).hexdigest())
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
    """Builds whose packages are made up, and whose tree is what `argv` writes."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.argv: list[str] = []
        self.made: list[str] = []
        self.time: datetime | None = None
        self.cache = Cache(folder=root / "cache")
        write(root / "definitions/base", BASE)
        (root / "dash_1_all.deb").write_bytes(DEB)
        self.store()
        monkeypatch.setattr(stage, "install_packages", self._install)
        monkeypatch.setattr(stage, "run_steps", self._run)
        monkeypatch.setattr(stage, "chamber_of", lambda _: self)
        monkeypatch.setattr(rootfs, "require_user_namespace", lambda: None)
        monkeypatch.setenv("TMPDIR", str(root))
        monkeypatch.setattr("tempfile.tempdir", None)

    def store(self) -> None:
        self.cache.packages.add([PACKAGE], self.root)

    def _install(self, plan: RootfsPlan, *_: object, **__: object) -> None:
        self.made.append("packages")
        plan.layout.tree.mkdir()

    def _run(self, _: RootfsPlan, steps: Sequence[Step], **__: object) -> None:
        self.made.append("late" if steps[0].title == "includes" else "other")

    def beside(self, argv: Sequence[str]) -> list[str]:
        return ["cat"] if "--extract" in argv else self.argv

    @property
    def inputs(self) -> rootfs.Inputs:
        return rootfs.Inputs(
            selection=select("base", None, "amd64", [self.root / "definitions"]),
            archive=Archive(suite="trixie", sources=[], keyring=Path("/k")),
            resolution=Resolution(packages=[PACKAGE], suites=[suite("trixie")]),
            time=self.time,
        )

    def tree(self, *members: object) -> None:
        (self.root / "tree.tar").write_bytes(stream(list(members)).getvalue())  # type: ignore[arg-type]
        self.argv = ["cat", str(self.root / "tree.tar")]
        shutil.rmtree(self.cache.folder / "images", ignore_errors=True)
        shutil.rmtree(self.cache.folder / "stages", ignore_errors=True)

    def build(self, name: str = "out", *, earlier: Path | None = None) -> rootfs.RootfsBuild:
        self.made.clear()
        return rootfs.build(
            self.inputs,
            self.root / name,
            gzip_level=1,
            progress=Silent(),
            cache=self.cache,
            earlier=earlier,
        )

    def left(self) -> set[str]:
        """Return what a build left behind, its room's parent aside."""
        aside = {"cache", "dash_1_all.deb", "definitions", "tree.tar", f"coreimage-{os.geteuid()}"}
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


def same(builder: Builder, one: str, other: str) -> bool:
    return all(
        (builder.root / one / name).read_bytes() == (builder.root / other / name).read_bytes()
        for name in NAMES
    )


def test_nothing_is_made_twice(builder: Builder) -> None:
    first = builder.build("a")
    assert builder.made == ["packages", "late"]
    assert not first.reused
    again = builder.build("b")
    assert builder.made == []
    assert again == replace(first, reused=True)
    assert same(builder, "a", "b")


def test_a_hook_leaves_the_packages_as_they_are(builder: Builder) -> None:
    builder.build("a")
    write(builder.root / "definitions/base", BASE, hooks__1_DOT_chroot="x")
    builder.build("b")
    assert builder.made == ["late"]
    write(builder.root / "definitions/base", BASE, preseed__a_DOT_cfg="x")
    builder.build("c")
    assert builder.made == ["packages", "late"]


@pytest.mark.parametrize("name", ["images", "stages", "packages", ""])
def test_the_cache_may_be_deleted_at_any_time(builder: Builder, name: str) -> None:
    first = builder.build("a")
    shutil.rmtree(builder.cache.folder / name)
    builder.store()
    assert builder.build("b").sha256 == first.sha256
    assert builder.made == {"images": ["late"], "": ["packages", "late"]}.get(name, [])
    assert same(builder, "a", "b")


def test_what_is_damaged_in_the_cache_is_made_anew(builder: Builder) -> None:
    first = builder.build("a")
    (path,) = (builder.cache.folder / "images").glob("*/livecd.base.rootfs.tar.gz")
    path.unlink()
    path.write_bytes(b"damaged")
    (tree,) = (builder.cache.folder / "stages").glob("*/tree.tar.zst")
    tree.write_bytes(tree.read_bytes()[:-5])
    assert builder.build("b").sha256 == first.sha256
    assert builder.made == ["packages", "late"]


def test_a_cache_that_keeps_nothing(builder: Builder) -> None:
    none = CacheSettings(packages_gib=0, stages_gib=0, images_gib=0)
    builder.cache = Cache(folder=builder.cache.folder, settings=none)
    builder.build("a")
    builder.build("b")
    assert builder.made == ["packages", "late"]
    assert same(builder, "a", "b")


def test_a_time_that_is_asked_for_is_another_build(builder: Builder) -> None:
    assert builder.build("a").published_at == WHEN
    builder.time = WHEN.replace(day=24)
    assert builder.build("b").published_at == builder.time
    assert builder.made == ["packages", "late"]


def test_an_empty_output_is_filled_and_another_refused(builder: Builder) -> None:
    (builder.root / "out").mkdir()
    builder.build()
    before = {path: path.stat().st_mtime_ns for path in (builder.root / "out").iterdir()}
    with pytest.raises(CoreImageError, match="is not an empty directory") as caught:
        builder.build()
    assert caught.value.hint == "choose another --output"
    assert {path: path.stat().st_mtime_ns for path in (builder.root / "out").iterdir()} == before
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
        "head -c 700 tree.tar; exit 25",
        "cat tree.tar; exit 25",
        "head -c 100000 /dev/zero | tr '\\0' x; exit 25",
    ],
)
def test_a_program_that_fails_is_told_before_its_tree(builder: Builder, script: str) -> None:
    builder.tree(*KERNEL, DATABASE, MUCH)
    builder.argv = ["env", f"--chdir={builder.root}", "sh", "-c", script]
    with pytest.raises(CommandError, match="failed, exit status 25") as caught:
        builder.build()
    assert "in the log" in caught.value.hint
    assert builder.left() == set()


def test_a_disk_that_is_full_is_the_machines_fault(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    builder.tree(*KERNEL, DATABASE, MUCH)
    monkeypatch.setattr(rootfs, "fsync_tree", full)
    with pytest.raises(NoSpaceError, match="no space is left for the build"):
        builder.build()
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
    monkeypatch.setattr(found, "FORMAT", found.FORMAT + 1)
    seen.add(builder.inputs.fingerprint())
    assert len(seen) == 3


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", " 5", "9" * 30, "\u0665"])
def test_a_time_of_the_sources_is_unix_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(DataError, match="expected UNIX seconds"):
        found._epoch()


def test_the_time_of_the_sources_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795392000")
    assert found._epoch() == WHEN
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert found._epoch() is None


def accounts(number: int) -> object:
    return member("etc/passwd", data=f"root:x:0:0:::\nsshd:x:{number}:65534:::\n".encode())


def test_users_keep_the_numbers_of_an_earlier_build(builder: Builder) -> None:
    builder.tree(*KERNEL, DATABASE, accounts(101))
    builder.build()
    record = builder.root / "out/livecd.base.build.json"
    assert json.loads(record.read_text())["ids"]["user"] == {"root": "0:0", "sshd": "101:65534"}
    builder.build("same", earlier=record)
    assert builder.made == []

    builder.tree(*KERNEL, DATABASE, accounts(102))
    for _ in range(2):  # made, and used again
        with pytest.raises(DataError, match="user 'sshd' is 102:65534, was 101:65534"):
            builder.build("other", earlier=record)
        assert builder.left() == {"out", "same"}
    builder.build("other")


def pin(builder: Builder, number: int) -> None:
    folder = builder.root / "definitions/base/ids"
    folder.mkdir(exist_ok=True)
    lines = f"root:x:0:0:::\nsshd:x:{number}:65534:::\n"
    (folder / "passwd").write_text(lines)


def test_pins_that_contradict_an_earlier_build_are_refused_at_once(builder: Builder) -> None:
    pin(builder, 101)
    builder.tree(*KERNEL, DATABASE, accounts(101))
    builder.build()
    record = builder.root / "out/livecd.base.build.json"
    pin(builder, 102)
    with pytest.raises(DataError, match="user 'sshd' is 102:65534, was 101:65534"):
        builder.build("other", earlier=record)
    assert builder.made == []
    builder.tree(*KERNEL, DATABASE, accounts(102))
    builder.build("other")


def test_a_user_that_is_not_pinned_is_told_before_packing(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(builder, 101)

    def install(plan: RootfsPlan, *_: object, **__: object) -> None:
        (plan.layout.tree / "etc").mkdir(parents=True)
        (plan.layout.tree / "etc/passwd").write_text("new:x:103:65534:::\n")

    def packed(_: RootfsPlan) -> None:
        raise AssertionError

    monkeypatch.setattr(stage, "install_packages", install)
    monkeypatch.setattr(stage, "packed", packed)
    with pytest.raises(DataError, match="ids/passwd: new:x:103:65534:::"):
        builder.build()
    assert builder.left() == set()
