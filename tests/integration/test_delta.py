"""Deltas applied by the shell, rm and tar, as recoveries do."""

import lzma
import os
import stat
from pathlib import Path

import pytest

from coreimage.lib.progress import Silent
from coreimage.systemimage.delta.image import Refusal, write_delta
from tests.support.tarballs import Member, directory, file, hard_link, symlink, tar_of_all
from tests.support.unpacking import BUSYBOX, GNU, apply, described

PLAIN = (
    [
        directory("system"),
        directory("system/gone"),
        file("system/gone/with a blank *", b"x"),
        directory("system/mode", mode=0o755),
        file("system/mode/kept", b"kept"),
        directory("system/lib"),
        file("system/lib/a", b"a"),
        symlink("system/usr", "lib"),
        file("system/same-size", b"kernel 1"),
        symlink("system/vmlinuz", "boot/vmlinuz-1"),
        file("system/one", b"linked"),
        hard_link("system/two", "system/one"),
        hard_link("system/three", "system/one"),
        file("system/blank in name", b"1"),
        Member(name="system/pipe", kind=b"6", mode=0o600),
    ],
    [
        directory("system"),
        directory("system/mode", mode=0o700),
        file("system/mode/kept", b"kept"),
        symlink("system/lib", "usr"),
        directory("system/usr", mtime=1_600_000_000),
        file("system/usr/a", b"a", mode=0o4755),
        directory("system/usr/new", mtime=1_600_000_001),
        file("system/same-size", b"kernel 2"),
        symlink("system/vmlinuz", "boot/vmlinuz-2"),
        file("system/one", b"linked"),
        hard_link("system/two", "system/one"),
        file("system/three", b"linked"),
        file("system/blank in name", b"2"),
        file("system/new * name", b"new"),
        Member(name="system/pipe", kind=b"6", mode=0o644),
    ],
)
EXTENDED = (
    [
        file("attributes", b"x", headers={"SCHILY.xattr.user.a": "1", "mtime": "1600000000.5"}),
        file("caf\udce9", b"1"),
    ],
    [
        file("attributes", b"x", headers={"SCHILY.xattr.user.a": "2", "mtime": "1600000000.25"}),
        file("caf\udce9", b"2"),
        file("long" * 60, headers={"SCHILY.xattr.user.b": "\udcff\x01"}),
    ],
)


def tarball(path: Path, members: list[Member]) -> Path:
    owned = [
        Member(**{**{name: getattr(each, name) for name in Member.__slots__}, "owner": os.getuid()})
        for each in members
    ]
    path.write_bytes(lzma.compress(tar_of_all(owned), check=lzma.CHECK_CRC32))
    return path


@pytest.mark.parametrize(
    ("pair", "tar"),
    [(PLAIN, GNU), (PLAIN, BUSYBOX), (EXTENDED, GNU)],
    ids=["tar", "busybox", "extended"],
)
def test_base_and_delta_make_the_target(
    pair: tuple[list[Member], list[Member]], tar: tuple[str, str, str], tmp_path: Path
) -> None:
    base, target = (
        tarball(tmp_path / f"{name}.tar.xz", tree)
        for name, tree in zip(("base", "target"), pair, strict=True)
    )
    output = tmp_path / "target.delta-base.tar.xz"
    found = write_delta(base=base, target=target, output=output, level=1, progress=Silent())
    assert not isinstance(found, Refusal)
    device, wanted = tmp_path / "device", tmp_path / "wanted"
    for folder, tarballs in ((device, (base, output)), (wanted, (target,))):
        folder.mkdir()
        apply(folder, tarballs, tar=tar)
    seen, expected = (_seen(folder, times=tar is GNU) for folder in (device, wanted))
    assert seen == expected


def _seen(folder: Path, *, times: bool) -> dict[str, object]:
    """Return what can be seen; busybox gives links, pipes and directories no times of theirs."""
    return {
        path: (mode, owner, time if times or stat.S_ISREG(mode) else None, *rest)
        for path, (mode, owner, time, *rest) in described(folder).items()
    }
