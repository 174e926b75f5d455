from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.rootfs.archive import Archive
from coreimage.rootfs.definition import select
from coreimage.rootfs.extra import ExtraArchive
from coreimage.rootfs.plan import RootfsPlan, plan_build
from tests.support.definitions import BASE, write

WHEN = datetime(2026, 11, 23, 14, 46, 23, tzinfo=UTC)
ARCHIVE = Archive(
    suite="trixie",
    sources=["deb [signed-by=/k.gpg] http://mirror.example/debian trixie main"],
    keyring=Path("/k.gpg"),
)


def plan(place: Path, *, as_root: bool = False, **files: str) -> RootfsPlan:
    write(place / "base", BASE, **files)
    return plan_build(
        select("base", None, "amd64", [place]),
        ARCHIVE,
        as_root=as_root,
        published_at=WHEN,
        scratch=Path("/scratch"),
        temporary=Path("/room"),
    )


def test_the_command_is_data(tmp_path: Path) -> None:
    made = plan(tmp_path, hooks__10_DOT_chroot="x", hooks__05_DOT_binary="x")
    assert made.argv == [
        "mmdebstrap",
        "--mode=unshare",
        "--variant=minbase",
        "--format=tar",
        "--architectures=amd64",
        "--components=main",
        "--include=dash,linux-image-amd64,new,sed",
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--essential-hook=tar-in early.tar /",
        "--customize-hook=tar-in overlay.tar /",
        '--customize-hook=env --chdir="$1" chroot "$1" /.coreimage-build/10.chroot',
        '--customize-hook=mv "$1/.coreimage-build" "$1.coreimage-build"',
        '--customize-hook=env --chdir="$1" "$1.coreimage-build"/05.binary "$1"',
        '--customize-hook=rm -rf "$1.coreimage-build"',
        "trixie",
        "-",
        "deb [signed-by=/k.gpg] http://mirror.example/debian trixie main",
    ]
    assert made.env == {
        "SOURCE_DATE_EPOCH": "1795445183",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/room",
        "COREIMAGE_DEFINITION": "base",
        "COREIMAGE_TITLE": "Base",
        "COREIMAGE_RELEASE": "13",
        "COREIMAGE_SERIES": "trixie",
        "COREIMAGE_ARCH": "amd64",
        "COREIMAGE_DEVICE": "generic_amd64",
    }
    assert made.early_overlay == Path("/scratch/early.tar")


def test_root_needs_no_namespace(tmp_path: Path) -> None:
    assert plan(tmp_path, as_root=True).argv[1] == "--mode=root"


@pytest.mark.parametrize("name", ["10 a; b.chroot", "$(x).chroot", "sub/10.chroot"])
def test_a_hooks_name_is_one_word(tmp_path: Path, name: str) -> None:
    hook = tmp_path / "base/hooks" / name
    hook.parent.mkdir(parents=True)
    hook.touch(mode=0o755)
    (command,) = (word for word in plan(tmp_path).argv if "env --chdir" in word)
    quoted = f"/.coreimage-build/{name}" if "/" in name else f"'/.coreimage-build/{name}'"
    assert command == f'--customize-hook=env --chdir="$1" chroot "$1" {quoted}'


def commands(made: RootfsPlan, kind: str) -> list[str]:
    return [word.partition("=")[2] for word in made.argv if word.startswith(f"--{kind}-hook=")]


def test_early_steps_come_after_the_overlay_in_their_order(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        hooks__20_DOT_chroot_early="x",
        hooks__10_DOT_chroot_early="x",
        preseed__a_DOT_cfg="x",
        ids__passwd="",
    )
    inside = 'env --chdir="$1" chroot "$1"'
    assert commands(made, "essential") == [
        "tar-in early.tar /",
        f"{inside} sh /.coreimage-build/pin-ids",
        f"{inside} debconf-set-selections /.coreimage-build/preseed/a.cfg",
        f"{inside} /.coreimage-build/10.chroot_early",
        f"{inside} /.coreimage-build/20.chroot_early",
    ]
    assert commands(made, "customize") == [
        "tar-in overlay.tar /",
        'rm -rf "$1/.coreimage-build"',
    ]


def test_extra_archives_are_there_before_apt_looks_and_gone_at_the_end(tmp_path: Path) -> None:
    write(tmp_path / "base", BASE, archives__a_DOT_pref_DOT_chroot="Package: x\n")
    extra = ExtraArchive(name="a", sources="Types: deb\n", preferences="Package: x\n")
    made = plan_build(
        select("base", None, "amd64", [tmp_path]),
        replace(ARCHIVE, extras=[extra]),
        as_root=True,
        published_at=WHEN,
        scratch=Path("/scratch"),
        temporary=Path("/room"),
    )
    assert made.archives_overlay == Path("/scratch/archives.tar")
    apt = "$1/etc/apt"
    assert commands(made, "setup") == ["tar-in archives.tar /"]
    assert commands(made, "customize")[1:] == [
        f'rm -f "{apt}/sources.list.d/coreimage-a.sources" "{apt}/preferences.d/coreimage-a.pref"',
        'rm -rf "$1/.coreimage-build"',
    ]
