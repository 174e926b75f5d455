import os
import re
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coreimage.lib import run, tar
from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.archives.extra import ExtraArchive
from coreimage.rootfs.definitions.definition import select
from coreimage.rootfs.plan import _DATE, RootfsPlan, Step, Where, plan_build, step_lines
from tests.support.definitions import BASE, write

WHEN = datetime(2026, 11, 23, 14, 46, 23, tzinfo=UTC)
ARCHIVE = Archive(
    suite="trixie",
    sources=["deb [signed-by=/k.gpg] http://mirror.example/debian trixie main"],
    keyring=Path("/k.gpg"),
)


def plan(place: Path, archive: Archive = ARCHIVE, **files: str) -> RootfsPlan:
    write(place / "base", BASE, **files)
    return plan_build(
        select("base", None, "amd64", [place]),
        archive,
        as_root=False,
        published_at=WHEN,
        scratch=Path("/scratch"),
        temporary=Path("/room"),
    )


def titles(steps: list[Step] | tuple[Step, ...]) -> list[str]:
    return [step.title for step in steps]


def test_a_plan_is_data(tmp_path: Path) -> None:
    made = plan(tmp_path, hooks__10_DOT_chroot="x", hooks__05_DOT_binary="x")
    assert made.env == {
        "SOURCE_DATE_EPOCH": "1795445183",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "COREIMAGE_DEFINITION": "base",
        "COREIMAGE_TITLE": "Base",
        "COREIMAGE_RELEASE": "13",
        "COREIMAGE_SERIES": "trixie",
        "COREIMAGE_ARCH": "amd64",
        "COREIMAGE_DEVICE": "generic_amd64",
        "COREIMAGE_SUBPROJECT": "system-image",
    }
    assert made.epoch == 1795445183
    assert "--mtime=@1795445183" in made.pack
    assert titles(list(made.late)) == [
        "includes",
        "let hooks use the network",
        "10.chroot",
        "forget this machine's network",
        "remove what the build needed",
        "05.binary",
        "date what belongs to the kernel",
        "clear up",
    ]
    (outside,) = (step for step in made.late if step.where is Where.BESIDE)
    assert outside.argv == ["/scratch/binary-hooks/05.binary", "/room/tree"]
    assert made.late[0].stdin == Path("/scratch/late.tar")


@pytest.mark.parametrize("name", ["10 a; b.chroot", "$(x).chroot", "sub/10.chroot"])
def test_a_hooks_name_is_one_word(tmp_path: Path, name: str) -> None:
    hook = tmp_path / "base/hooks" / name
    hook.parent.mkdir(parents=True)
    hook.touch(mode=0o755)
    (step,) = (each for each in plan(tmp_path).late if each.title == name)
    assert step.argv == [f"/.coreimage-build/{name}"]


def test_early_steps_come_between_the_essential_packages_and_the_others(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        hooks__20_DOT_chroot_early="x",
        hooks__10_DOT_chroot_early="x",
        preseed__a_DOT_cfg="x",
        ids__passwd="",
    )
    names = titles([*made.essential, *made.packages])
    begin = names.index("includes before packages")
    assert names[begin - 1] == "install the essential packages"
    assert names[begin + 1 : begin + 7] == [
        "pin users and groups",
        "preseed a.cfg",
        "let hooks use the network",
        "10.chroot_early",
        "20.chroot_early",
        "forget this machine's network",
    ]
    assert names[begin + 7] == "install what others need first"
    assert titles(list(made.late)) == [
        "includes",
        "remove what the build needed",
        "date what belongs to the kernel",
        "clear up",
    ]


def test_what_many_packages_ask_for_is_put_off_until_all_packages_are_set_up(
    tmp_path: Path,
) -> None:
    steps = plan(tmp_path).packages
    names = titles(list(steps))
    configure = steps[names.index("set up the packages")]
    assert configure.binds == {
        "/usr/bin/py3compile": Path("/scratch/stub-py3compile"),
        "/usr/sbin/update-initramfs": Path("/scratch/stub-update-initramfs"),
    }
    begin = names.index("set up the packages")
    assert names[begin + 1 : begin + 3] == ["compile Python modules", "make the initramfs"]
    assert [step.title for step in steps if step.together] == ["make the initramfs"]


@pytest.mark.parametrize("names", [[], ["a.deb", "b.deb"]])
def test_there_may_be_nothing_left_to_unpack(tmp_path: Path, names: list[str]) -> None:
    (step,) = (
        each for each in plan(tmp_path).packages if each.title == "unpack the other packages"
    )
    last = tmp_path / "debs/last"
    last.mkdir(parents=True)
    for name in names:
        (last / name).touch()
    script = step.argv[-1].replace("/var/cache/apt/archives", str(tmp_path / "debs"))
    said = run.run([*step.argv[:-1], script.replace("dpkg --force-unsafe-io", "echo")]).stdout
    expected = " ".join(["--unpack", *(str(last / name) for name in names)]) if names else ""
    assert said.decode().strip() == expected


def test_an_empty_folder_is_laid_over_none_that_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    (tree / "private").mkdir(mode=0o700)
    names = ["lib", "lib/new", "private", "var/empty"]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in names:
            archive.addfile(tar.entry(name, mtime=0, mode=0o755, kind=tarfile.DIRTYPE))
    argv = plan(tmp_path).late[0].argv
    with (tmp_path / "x.tar").open("rb") as file:
        run.run([word.replace("--directory=/", f"--directory={tree}") for word in argv], stdin=file)
    assert (tree / "lib").is_symlink()
    assert (tree / "usr/lib/new").is_dir()
    assert (tree / "private").stat().st_mode & 0o777 == 0o700
    assert (tree / "var/empty").stat().st_mode & 0o777 == 0o755


def test_extra_archives_are_gone_at_the_end(tmp_path: Path) -> None:
    extra = ExtraArchive(name="a", sources="Types: deb\n", preferences="Package: x\n")
    made = plan(tmp_path, replace(ARCHIVE, extras=[extra]))
    (step,) = (each for each in made.late if each.title == "remove what the build needed")
    assert step.argv == [
        "rm",
        "-rf",
        "/.coreimage-build",
        "/etc/apt/sources.list.d/coreimage-a.sources",
        "/etc/apt/preferences.d/coreimage-a.pref",
    ]


def test_steps_as_text(tmp_path: Path) -> None:
    lines = list(step_lines(plan(tmp_path)))
    assert "inside  make the initramfs (meanwhile): " in "\n".join(lines)
    late = lines[lines.index("") + 1]
    assert late.startswith("inside  includes: tar --extract --file=- --directory=/ --no-")
    assert late.endswith(" < /scratch/late.tar")


def test_what_belongs_to_the_kernel_has_no_later_time(tmp_path: Path) -> None:
    times = {
        "boot/vmlinuz-6.1": 3000,
        "boot/initrd.img-6.1": 4000,
        "boot/System.map-6.1": 2000,
        "usr/lib/modules/6.1/modules.dep": 4000,
        "usr/lib/modules/6.1/kernel/a.ko": 1000,
        "usr/lib/linux-image-6.1/board.dtb": 5000,
        "usr/lib/other": 5000,
    }
    for name, time in times.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time, time))
    (tmp_path / "lib").symlink_to("usr/lib")
    script = re.sub(r"(?<=\s)/(?=boot|usr|lib)", f"{tmp_path}/", _DATE)
    run.run(["sh", "-ec", script])
    found = {name: int((tmp_path / name).stat().st_mtime) for name in times}
    assert found == {
        name: time if name == "usr/lib/other" else min(time, 3000) for name, time in times.items()
    }
    assert (tmp_path / "usr/lib/modules/6.1/kernel").stat().st_mtime == 3000
