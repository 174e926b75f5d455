"""Unpacking: members go where their top-level name says, and hostile ones nowhere."""

import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.flasher.tree.staging import Kind, Limits, Staging
from coreimage.flasher.tree.unpack import Route, unpack

NO_LIMITS = Limits()


class Trees:
    def __init__(self, root: Path, *, limits: Limits = NO_LIMITS) -> None:
        self.system = Staging(root / "system", limits=limits)
        self.device = Staging(root / "device", limits=limits)
        self._routes = {
            "system": Route(staging=self.system),
            "assets": Route(staging=self.device, keep_name=True),
            "hardware.yaml": Route(staging=self.device, keep_name=True),
            "partitions": None,
        }

    def apply(self, *members: tarfile.TarInfo) -> None:
        unpack(BytesIO(archive(members)), archive="a.tar", routes=self._routes)


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


def archive(members: Iterable[tarfile.TarInfo]) -> bytes:
    target = BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, BytesIO(b"x" * member.size))
    return target.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def test_each_member_takes_its_route(trees: Trees) -> None:
    trees.apply(
        member("./", tarfile.DIRTYPE),
        member("system", tarfile.DIRTYPE, mode=0o711),
        member("system/bin/sh", size=3, mode=0o755, uid=1, gid=2, mtime=3),
        member("assets/vmlinuz", size=1),
        member("hardware.yaml", size=2),
        member("partitions/boot.img", size=4),
    )

    shell = trees.system.entries["bin/sh"]
    assert (shell.mode, shell.uid, shell.gid, shell.mtime) == (0o755, 1, 2, 3)
    assert trees.system.file("bin/sh").read_bytes() == b"xxx"
    assert trees.system.entries[""].mode == 0o711
    assert list(trees.device.entries) == ["", "assets", "assets/vmlinuz", "hardware.yaml"]


def test_links_and_attributes_are_kept(trees: Trees) -> None:
    trees.apply(
        member(
            "system/ping",
            mode=0o4755,
            pax_headers={"SCHILY.xattr.security.capability": "\x01\x00\udcff"},
        ),
        member("system/ping6", tarfile.LNKTYPE, linkname="./system/ping"),
        member("system/l", tarfile.SYMTYPE, linkname="../anywhere"),
    )

    entries = trees.system.entries
    assert entries["ping"].xattrs == {"security.capability": b"\x01\x00\xff"}
    assert entries["ping6"] is entries["ping"]
    assert (entries["l"].kind, entries["l"].target) == (Kind.SYMLINK, "../anywhere")


def test_later_archives_replace_what_earlier_ones_made(trees: Trees) -> None:
    trees.apply(
        member("system/lib", tarfile.SYMTYPE, linkname="usr/lib"),
        member("system/usr/lib", tarfile.DIRTYPE),
        member("system/x"),
    )
    trees.apply(
        member("system/lib", tarfile.DIRTYPE),
        member("system/lib/modules/m", size=1),
        member("system/x", tarfile.DIRTYPE),
    )

    assert trees.system.file("usr/lib/modules/m").read_bytes() == b"x"
    assert trees.system.entries["x"].kind is Kind.DIRECTORY


def test_devices_below_dev_are_left_to_the_kernel(trees: Trees) -> None:
    trees.apply(
        member("system/dev/null", tarfile.CHRTYPE),
        member("system/dev/sda", tarfile.BLKTYPE),
        member("system/dev/pipe", tarfile.FIFOTYPE),
    )

    assert list(trees.system.entries) == [""]


@pytest.mark.parametrize(
    "hostile",
    [
        member("etc/passwd"),
        member("../system/x"),
        member("/system/x"),
        member("system/../../x"),
        member("system/null", tarfile.CHRTYPE),
        member("system/devil/sda", tarfile.BLKTYPE),
        member("system/pipe", tarfile.FIFOTYPE),
        member("system/x", tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("system/x", tarfile.LNKTYPE, linkname="../etc/passwd"),
        member("system/x", tarfile.LNKTYPE, linkname="system/absent"),
        member("system/x", tarfile.LNKTYPE, linkname="assets/a"),
        member("system/x", tarfile.LNKTYPE, linkname="partitions/a"),
        member("system/x", tarfile.SYMTYPE, linkname=""),
        member("system/a\nb"),
        member("system/x", pax_headers={"mtime": "inf"}),
        member("system/x", pax_headers={"mtime": "nan"}),
        member("system/x", pax_headers={"uid": "-5"}),
        member("system/x", pax_headers={"SCHILY.xattr.a b": "x"}),
        member("system/" + "d/" * 1100),
        member("system"),
    ],
    ids=lambda each: f"{each.name[:20]!r}-{each.type.decode()}-{each.linkname}",
)
def test_hostile_members_are_refused_with_the_archive_named(
    trees: Trees, hostile: tarfile.TarInfo
) -> None:
    with pytest.raises(DataError, match=r"'a\.tar'"):
        trees.apply(member("assets/a"), member("partitions/a"), hostile)


def test_o1_a_file_through_a_symlink_stays_inside(trees: Trees, tmp_path: Path) -> None:
    trees.apply(
        member("system/exit", tarfile.SYMTYPE, linkname=str(tmp_path)),
        member("system/exit/evil", size=1),
    )

    assert not (tmp_path / "evil").exists()


def test_a_size_that_only_a_header_claims_is_refused_at_once(tmp_path: Path) -> None:
    trees = Trees(tmp_path, limits=Limits(size=1000))
    huge = member("system/x")
    huge.size = 100 << 30
    data = huge.tobuf(tarfile.GNU_FORMAT)

    with pytest.raises(DataError, match="larger than"):
        unpack(BytesIO(data), archive="a.tar", routes=trees._routes)


def test_a_truncated_archive_is_refused(trees: Trees) -> None:
    whole = archive([member("system/x", size=5000)])

    with pytest.raises(DataError, match=r"'a\.tar'"):
        unpack(BytesIO(whole[:2000]), archive="a.tar", routes=trees._routes)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6 * 512 - 1), st.binary(min_size=1, max_size=8))))
def test_damage_is_refused_or_harmless(damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(
        archive(
            [
                member("system/a", size=5),
                member("system/l", tarfile.SYMTYPE, linkname="a"),
                member("system/h", tarfile.LNKTYPE, linkname="system/a"),
            ]
        )
    )
    for offset, patch in damage:
        data[offset : offset + len(patch)] = patch
        header = offset // 512 * 512
        data[header + 148 : header + 156] = b" " * 8
        checksum = sum(data[header : header + 512])
        data[header + 148 : header + 156] = b"%06o\0 " % checksum

    with tempfile.TemporaryDirectory() as name:
        trees = Trees(Path(name), limits=Limits(size=1 << 20, entries=100))
        with suppress(DataError):
            unpack(BytesIO(bytes(data)), archive="a.tar", routes=trees._routes)
        assert sorted(path.name for path in Path(name).iterdir()) == ["device", "system"]
