import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from coreimage.errors import CommandError, NoSpaceError
from coreimage.lib import run, tar
from coreimage.lib.progress import Silent
from coreimage.rootfs.plan import Layout, RootfsPlan, Step, Where, pack_argv
from coreimage.rootfs.tarballs.split import split
from coreimage.rootfs.tree import steps as stage

# user::rwx, user:4:r-x, group::r-x, mask::r-x, other::r-x; see acl(5) and the kernel's
# posix_acl_xattr.h.
ACL = bytes.fromhex(
    "02000000 0100 0700 ffffffff 0200 0500 04000000 0400 0500 ffffffff"
    "1000 0500 ffffffff 2000 0500 ffffffff"
)


class Here:
    """In place of a chamber: programs run as they are."""

    def beside(self, argv: Sequence[str]) -> list[str]:
        return list(argv)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RootfsPlan:
    monkeypatch.setattr(stage, "chamber_of", lambda _: Here())
    layout = Layout(scratch=tmp_path, tree=tmp_path / "tree")
    return RootfsPlan(
        essential=[], packages=[], late=[], env={}, layout=layout, as_root=False, epoch=0
    )


def step(title: str, script: str, *, together: bool = False) -> Step:
    argv = ["timeout", "30", "sh", "-c", script]
    return Step(title=title, argv=argv, where=Where.BESIDE, together=together)


def test_steps_run_together_when_they_say_so(tmp_path: Path, plan: RootfsPlan) -> None:
    for name in ("there", "back"):
        os.mkfifo(tmp_path / name)
    there, back, done = (tmp_path / name for name in ("there", "back", "done"))
    steps = [
        step("ask", f"echo > {there}; cat {back}"),
        step("answer", f"cat {there}; echo > {back}", together=True),
        step("go on", f"touch {done}"),
    ]
    stage.run_steps(plan, steps, progress=Silent())
    assert done.exists()


@pytest.mark.parametrize("codes", [(0, 3), (3, 0)])
def test_a_step_that_fails_is_named_and_is_the_last_one(
    tmp_path: Path, plan: RootfsPlan, codes: tuple[int, int]
) -> None:
    done = tmp_path / "done"
    titles = [f"code {code}" for code in codes]
    steps = [
        step(titles[0], f"exit {codes[0]}"),
        step(titles[1], f"exit {codes[1]}", together=True),
        step("go on", f"touch {done}"),
    ]
    with pytest.raises(CommandError, match=r"'code 3' failed"):
        stage.run_steps(plan, steps, progress=Silent())
    assert not done.exists()


def hook(folder: Path, text: str, *, mode: int = 0o755) -> Path:
    path = folder / "60-bad.chroot"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("first", "status", "reason"),
    [
        ("#!/bin/sh\r", 127, "its interpreter '/bin/sh\\r' is not there: its lines end with CR LF"),
        ("#! /usr/bin/env sh\r", 127, "its interpreter '/usr/bin/env sh\\r' is not there"),
        ("#!/usr/bin/python3 -E", 127, "its interpreter '/usr/bin/python3' is not in the system"),
        ("#!/loop", 127, "its interpreter '/loop' is not in the system"),
        ("#!/bin/away", 127, "its interpreter '/bin/away' is not in the system"),
        ("true", 126, "it does not begin with '#!'"),
        ("#!/bin/sh", 127, ""),
        ("#!/bin/absolute", 127, ""),
        ("#!/usr/bin/python3", 1, ""),
    ],
)
def test_a_hook_is_told_by_its_file_and_why_it_did_not_start(
    tmp_path: Path, plan: RootfsPlan, first: str, status: int, reason: str
) -> None:
    tree = plan.layout.tree
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "loop").symlink_to("loop")
    (tree / "usr/bin/dash").touch()
    (tree / "usr/bin/sh").symlink_to("dash")
    (tree / "usr/bin/absolute").symlink_to("/../bin/sh")
    (tree / "usr/bin/away").symlink_to(tmp_path)
    path = hook(tmp_path, f"{first}\ntrue\n")
    step = Step(title=path.name, argv=["/x"], source=path)
    told = stage.about_hook(step, status, tree)
    assert told.startswith(f"{path}: {reason}" if reason else f"{path}")
    assert reason or told == str(path)


def test_a_hook_that_is_not_executable(tmp_path: Path, plan: RootfsPlan) -> None:
    path = hook(tmp_path, "#!/bin/sh\n", mode=0o644)
    step = Step(title=path.name, argv=["/x"], source=path)
    assert stage.about_hook(step, 126, plan.layout.tree) == f"{path}: it is not executable"


def test_the_file_of_a_hook_that_fails_is_named(tmp_path: Path, plan: RootfsPlan) -> None:
    path = hook(tmp_path, "#!/absent/sh\n")
    argv = ["sh", "-c", "exit 127"]
    step = Step(title=path.name, argv=argv, where=Where.BESIDE, source=path)
    with pytest.raises(CommandError) as caught:
        stage.run_steps(plan, [step], progress=Silent())
    assert caught.value.message == (
        f"'60-bad.chroot' failed, exit status 127: {path}: its interpreter '/absent/sh' is not here"
    )


def test_a_signal_is_named(tmp_path: Path) -> None:
    told = stage.failure("a hook", 143, tmp_path).message
    assert told == "'a hook' failed, exit status 143 (killed by SIGTERM)"


def test_a_step_that_fails_where_the_disk_is_full_is_not_to_blame(
    tmp_path: Path, plan: RootfsPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(NoSpaceError, match=f"'one' failed: no space is left in '{tmp_path}'"):
        stage.run_steps(plan, [step("one", "exit 1")], progress=Silent())


def test_access_control_lists_survive_packing(tmp_path: Path) -> None:
    journal = tmp_path / "tree/var/log/journal"
    journal.mkdir(parents=True)
    os.setxattr(journal, "system.posix_acl_default", ACL)
    with run.start(pack_argv(0), cwd=tmp_path / "tree", stdout=run.PIPE) as process:
        assert process.stdout is not None
        rootfs = tmp_path / "rootfs.tar.gz"
        split(process.stdout, rootfs=rootfs, device=None, bootloader="grub", level=1)
    with tarfile.open(rootfs) as archive:
        found = tar.xattrs(archive.getmember("var/log/journal"))
    assert found == {"system.posix_acl_default": ACL}
