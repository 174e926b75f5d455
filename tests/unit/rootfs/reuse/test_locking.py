"""What a lock says of a build, and what has changed since."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.config import ArchiveSettings
from coreimage.errors import DataError
from coreimage.rootfs.archives.archive import Archive, Resolution
from coreimage.rootfs.archives.extra import ExtraArchive
from coreimage.rootfs.definitions.definition import Selection, select
from coreimage.rootfs.inputs import Inputs
from coreimage.rootfs.reuse import recipe
from coreimage.rootfs.reuse.lock import Lock
from coreimage.rootfs.reuse.locking import gzip_level_of, locked_inputs, make_lock, refuse_otherwise
from tests.support.definitions import BASE, write
from tests.support.resolutions import package, suite

SOURCES = ["deb [signed-by=/k] http://mirror.example/debian trixie main"]
EXTRA = ExtraArchive(name="own", sources="Types: deb\n", preferences="", keys=("AB",))


class Case:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "k").touch()
        self.settings = ArchiveSettings(keyring=root / "k")
        self.change()
        self.lock = make_lock(self.inputs, epoch=1795392000, gzip_level=3)

    def change(self, text: str = BASE, **files: str) -> None:
        write(self.root / "base", text, **(files or {"hooks__1_DOT_chroot": "x"}))

    @property
    def selection(self) -> Selection:
        return select("base", None, "amd64", [self.root])

    @property
    def inputs(self) -> Inputs:
        return Inputs(
            selection=self.selection,
            archive=Archive(
                suite="trixie", sources=SOURCES, keyring=self.root / "k", extras=[EXTRA]
            ),
            resolution=Resolution(
                packages=[package("dash"), package("app")], suites=[suite("trixie")]
            ),
            time=None,
        )

    def again(self, lock: Lock | None = None) -> Inputs:
        return locked_inputs(lock or self.lock, self.selection, self.settings, extras=[EXTRA])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_lock_gives_the_inputs_that_it_was_made_of(case: Case) -> None:
    found = case.again()
    assert found.archive.sources == SOURCES
    assert found.time == datetime(2026, 11, 23, tzinfo=UTC)
    assert [each.name for each in found.resolution.packages] == ["app", "dash"]
    assert make_lock(found, epoch=1795392000, gzip_level=3) == case.lock
    before = replace(case.inputs, time=found.time).image_recipe(3)
    assert found.image_recipe(3) == before


def test_all_that_has_changed_is_named(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.change(hooks__1_DOT_chroot="y", includes_DOT_chroot__etc__a="new")
    monkeypatch.setattr(recipe, "version", lambda _: "99")
    lock = case.lock.model_copy(update={"format": 1})
    monkeypatch.setattr("coreimage.rootfs.reuse.locking.tools", lambda: {"deflate": "99"})
    with pytest.raises(DataError, match="cannot be made again") as caught:
        case.again(lock)
    lines = caught.value.message.splitlines()[1:]
    assert [line.strip().partition(" was ")[0] for line in lines] == [
        "the format of builds",
        "tool 'deflate'",
        "file 'hooks/1.chroot' has changed",
        "file 'includes.chroot/etc/a' is new",
    ]


def test_a_change_of_the_definition_itself_is_named(case: Case) -> None:
    case.change(BASE.replace("dash", "bash"))
    with pytest.raises(DataError, match=r"definition\.toml has changed"):
        case.again()


def test_an_extra_archive_that_is_missing_is_named(case: Case) -> None:
    with pytest.raises(DataError, match="extra archive 'own' is gone"):
        locked_inputs(case.lock, case.selection, case.settings)


def test_a_lock_without_its_level_was_edited(case: Case) -> None:
    with pytest.raises(DataError, match="no setting 'gzip'"):
        gzip_level_of(case.lock.model_copy(update={"settings": {}}))


def test_a_lock_is_not_built_otherwise_than_it_is() -> None:
    locked = {"definition": ["base"], "release": ["13", "trixie"], "arch": ["amd64"]}
    for release in ("13", "trixie"):
        refuse_otherwise("x", asked={"definition": "base", "release": release}, locked=locked)
    with pytest.raises(DataError, match="lock 'x' is for arch 'amd64', not 'arm64'") as caught:
        refuse_otherwise("x", asked={"definition": "base", "arch": "arm64"}, locked=locked)
    assert "leave the option out" in caught.value.hint
    with pytest.raises(DataError, match="lock 'x' is for definition 'base', not 'kiosk'"):
        refuse_otherwise("x", asked={"definition": "kiosk"}, locked=locked)
