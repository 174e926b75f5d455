from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.archives.extra import ExtraArchive
from coreimage.rootfs.build import expected_files
from coreimage.rootfs.definitions.definition import read_sources, select
from coreimage.rootfs.describe import (
    describe_plan,
    describe_selection,
    plan_lines,
    selection_lines,
)
from coreimage.rootfs.plan import plan_build
from tests.support.definitions import BASE, KIOSK, write

ARCHIVE = Archive(suite="trixie", sources=["deb http://x.example trixie"], keyring=Path("/k.gpg"))
EXTRA = ExtraArchive(
    name="a",
    sources="Types: deb\nSigned-By:\n -----BEGIN\n .\nTrailer: x\n",
    preferences="Pin: release o=A\n",
    keys=("ABCD",),
)


def test_a_plan_says_archives_hooks_and_files_in_their_order(tmp_path: Path) -> None:
    write(
        tmp_path / "base",
        'subproject = "none"\n' + BASE,
        hooks__9_DOT_chroot="x",
        hooks__1_DOT_chroot="x",
        hooks__5_DOT_chroot_early="x",
        hooks__0_DOT_binary="x",
        preseed__p_DOT_cfg="x",
    )
    selection = select("base", None, "amd64", [tmp_path])
    archive = replace(ARCHIVE, extras=[EXTRA])
    planned = plan_build(
        selection,
        archive,
        as_root=True,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
        scratch=Path(),
        temporary=Path(),
    )
    described = describe_plan(selection, archive, planned, files=expected_files(selection))
    assert [(hook["kind"], hook["name"]) for hook in described["hooks"]] == [
        ("chroot_early", "5.chroot_early"),
        ("chroot", "1.chroot"),
        ("chroot", "9.chroot"),
        ("binary", "0.binary"),
    ]
    assert described["files"] == [
        "livecd.base.rootfs.tar.gz",
        "livecd.base.manifest",
        "livecd.base.cdx.json",
        "livecd.base.lock.json",
        "livecd.base.build.json",
    ]
    assert described["extra_archives"][0]["keys"] == ["ABCD"]
    hooks = [step["title"] for step in described["steps"] if step["title"][0].isdigit()]
    assert hooks == ["5.chroot_early", "1.chroot", "9.chroot", "0.binary"]
    assert "SOURCE_DATE_EPOCH" not in described["environment"]
    lines = list(plan_lines(described, ["a step\nof two lines"]))
    assert "  a, signed by ABCD" in lines
    assert "    Trailer: x" in lines
    assert "    Pin: release o=A" in lines
    assert not any("BEGIN" in line for line in lines)
    assert f"  preseed       {tmp_path}/base/preseed/p.cfg" in lines
    assert lines[lines.index("steps:") + 1 :][:2] == ["  a step", "  of two lines"]


def test_a_definition_says_where_everything_comes_from(tmp_path: Path) -> None:
    base = write(tmp_path / "base", BASE, hooks__1_DOT_chroot="x", ids__passwd="")
    lists = {"package-lists__l_DOT_list_DOT_chroot": "gpsd\n"}
    kiosk = write(tmp_path / "kiosk", KIOSK, hooks__1_DOT_chroot="x", **lists)
    selection = select("kiosk", None, "amd64", [tmp_path])
    described = describe_selection(selection, read_sources("kiosk", [tmp_path]))
    assert described["packages"] == {
        "dash": f"{base}/definition.toml:5",
        "firefox": f"{kiosk}/definition.toml:4",
        "gpsd": f"{kiosk}/package-lists/l.list.chroot",
        "linux-image-amd64": f"{base}/definition.toml:21",
        "new": f"{base}/definition.toml:12",
        "sed": f"{base}/definition.toml:5",
    }
    assert described["files"]["hooks/1.chroot"] == f"{kiosk}/hooks/1.chroot"
    assert described["ids"] == [f"{base}/ids/passwd"]
    assert described["keys"]["title"] == f"{kiosk}/definition.toml:2"
    lines = list(selection_lines(described))
    assert f"title = Kiosk\t{kiosk}/definition.toml:2" in lines
    assert f"releases = 13, 12\t{base}/definition.toml:8" in lines
    assert f"  firefox\t{kiosk}/definition.toml:4" in lines
