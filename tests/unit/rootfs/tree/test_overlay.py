import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.definitions.definition import select
from coreimage.rootfs.plan import RootfsPlan, plan_build
from coreimage.rootfs.tree.overlay import base_files, marks, write_base, write_overlays
from tests.support.definitions import BASE, KIOSK, write


def overlays(root: Path, umask: int) -> RootfsPlan:
    """Check a definition out and write its overlays, both under a umask."""
    before = os.umask(umask)
    try:
        place, scratch = root / "definitions", root / "scratch"
        scratch.mkdir(parents=True)
        write(place / "base", BASE, includes_DOT_chroot__etc__b="base", hooks__1_DOT_chroot="#!")
        write(
            place / "kiosk",
            KIOSK,
            includes_DOT_chroot__etc__a="kiosk",
            includes_DOT_chroot_before_packages__etc__early="early",
        )
        (place / "kiosk/includes.chroot/etc/link").symlink_to("../a")
        (place / "kiosk/includes.chroot/etc/folder").mkdir()
        if umask == 0o077:
            for path in place.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o700)
        selection = select("kiosk", None, "amd64", [place])
        archive = Archive(suite="trixie", sources=[], keyring=Path("/k"))
        plan = plan_build(
            selection,
            archive,
            as_root=False,
            published_at=datetime(2026, 11, 23, tzinfo=UTC),
            scratch=scratch,
            temporary=root,
        )
        write_overlays(selection, plan)
        return plan
    finally:
        os.umask(before)


def listed(path: Path) -> list[tuple[str, int, str]]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all((each.uid, each.gid, each.mtime) == (0, 0, 1795392000) for each in members)
    return [(each.name, each.mode, each.linkname) for each in members]


def test_overlays_hold_includes_and_hooks(tmp_path: Path) -> None:
    plan = overlays(tmp_path, 0o022)
    assert listed(plan.layout.overlay("early")) == [("etc/early", 0o644, "")]
    assert listed(plan.layout.overlay("late")) == [
        ("etc/a", 0o644, ""),
        ("etc/b", 0o644, ""),
        ("etc/folder", 0o755, ""),
        ("etc/link", 0o777, "../a"),
        (".coreimage-build/1.chroot", 0o755, ""),
    ]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_overlays_are_the_same_under_every_umask(tmp_path: Path, umask: int) -> None:
    usual, other = overlays(tmp_path / "usual", 0o022), overlays(tmp_path / "other", umask)
    assert usual.layout.overlay("late").read_bytes() == other.layout.overlay("late").read_bytes()
    assert usual.layout.overlay("early").read_bytes() == other.layout.overlay("early").read_bytes()


def base(tmp_path: Path, *, merged: bool) -> dict[str, tarfile.TarInfo]:
    target = tmp_path / "base.tar"
    write_base({"etc/fstab": b"#\n"}, target, 1795392000, merged=merged)
    with tarfile.open(target) as archive:
        return {each.name: each for each in archive}


def test_a_tree_begins_with_what_dpkg_expects(tmp_path: Path) -> None:
    found = base(tmp_path, merged=False)
    assert found["var/lib/dpkg/updates"].isdir()
    assert {name: each.mode for name, each in found.items() if each.mode != 0o755} == {
        "etc/fstab": 0o644,
        "tmp": 0o1777,
    }
    assert "bin" not in found
    names = list(found)
    assert names.index("var") < names.index("var/lib") < names.index("var/lib/dpkg")


def test_a_merged_tree_begins_with_its_links(tmp_path: Path) -> None:
    found = base(tmp_path, merged=True)
    assert [found[name].linkname for name in ("bin", "sbin")] == ["usr/bin", "usr/sbin"]
    assert found["usr/lib64"].isdir()


def test_the_files_of_a_tree_are_of_the_definition(tmp_path: Path) -> None:
    write(tmp_path / "base", BASE)
    selection = select("base", None, "amd64", [tmp_path])
    archive = Archive(suite="trixie", sources=["deb http://m.example x y"], keyring=Path("/k"))
    files = base_files(selection, archive)
    assert files["etc/apt/sources.list"] == b"deb http://m.example x y\n"
    assert files["etc/dpkg/dpkg.cfg.d/99coreimage"] == b"path-exclude=/usr/share/doc/*\n"
    assert files["var/lib/dpkg/arch"] == b"amd64\n"


def test_marks_are_apts() -> None:
    assert marks(["b", "a"], "amd64").decode() == (
        "Package: a\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: b\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    )
