import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.rootfs.archive import Archive
from coreimage.rootfs.definition import select
from coreimage.rootfs.overlay import write_overlays
from coreimage.rootfs.plan import RootfsPlan, plan_build
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
        write_overlays(selection, archive, plan)
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
    assert listed(plan.early_overlay) == [("etc/early", 0o644, "")]
    assert listed(plan.overlay) == [
        ("etc/a", 0o644, ""),
        ("etc/b", 0o644, ""),
        ("etc/link", 0o777, "../a"),
        (".coreimage-build/1.chroot", 0o755, ""),
    ]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_overlays_are_the_same_under_every_umask(tmp_path: Path, umask: int) -> None:
    usual, other = overlays(tmp_path / "usual", 0o022), overlays(tmp_path / "other", umask)
    assert usual.overlay.read_bytes() == other.overlay.read_bytes()
    assert usual.early_overlay.read_bytes() == other.early_overlay.read_bytes()
