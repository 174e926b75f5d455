"""What may be in a tarball that we sign: attack group O1, and bounds on what it takes."""

import io
import tarfile
import tracemalloc

import pytest

from coreimage.errors import DataError
from coreimage.systemimage.imports.generators import device, inspection, rootfs
from tests.support.publications import member, tarball

Members = list[tuple[tarfile.TarInfo, bytes]]


def copied(data: bytes) -> bytes:
    target = io.BytesIO()
    device.write(io.BytesIO(data), target, name="x.tar.gz")
    return target.getvalue()


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, linkname=target)


EVIL: list[tuple[str, Members, str]] = [
    ("absolute name", [member("/etc/passwd", data=b"x")], "outside its root"),
    ("name that climbs", [member("system/../../etc/passwd", data=b"x")], "outside its root"),
    (
        "file through a symlink",
        [link("system/a", "/etc"), member("system/a/passwd", data=b"x")],
        "behind the symlink 'system/a'",
    ),
    (
        "file through a symlink further up",
        [link("system/a", ".."), member("system/a/b/c", data=b"x")],
        "behind the symlink",
    ),
    ("hard link outside", [hard("system/a", "/etc/shadow")], "outside its root"),
    ("hard link to nothing", [hard("system/a", "system/b")], "no file yet"),
    (
        "hard link to a symlink",
        [link("system/a", "/etc/shadow"), hard("system/b", "system/a")],
        "no file yet",
    ),
    ("device node", [member("system/sda", tarfile.BLKTYPE)], "neither file, directory nor link"),
    ("pipe", [member("system/p", tarfile.FIFOTYPE)], "neither file, directory nor link"),
    (
        "file twice",
        [member("system/a", data=b"1"), member("system/./a", data=b"2")],
        "there twice",
    ),
    (
        "symlink, then file",
        [link("system/a", "/etc/x"), member("system/a", data=b"2")],
        "there twice",
    ),
    (
        "directory, then symlink",
        [member("system/a", tarfile.DIRTYPE), link("system/a", "/etc")],
        "a directory and something else",
    ),
    (
        "file below a file",
        [member("system/a", data=b"1"), member("system/a/b", data=b"2")],
        "which is a file",
    ),
    ("long name", [member("system/" + "a" * 256, data=b"x")], "too long"),
    ("deep name", [member("system/" + "a/" * 200 + "b", data=b"x")], "too long"),
]


@pytest.mark.parametrize(
    ("members", "complaint"), [each[1:] for each in EVIL], ids=[each[0] for each in EVIL]
)
def test_what_would_harm_whoever_unpacks_it_is_refused(members: Members, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        copied(tarball(members, compressed=False))


@pytest.mark.parametrize(
    ("members", "complaint"), [each[1:] for each in EVIL], ids=[each[0] for each in EVIL]
)
def test_root_file_systems_are_held_to_the_same(members: Members, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint.replace("'system/a'", "")):
        rootfs.write(io.BytesIO(tarball(members, compressed=False)), io.BytesIO(), name="x.tar.gz")


def test_what_is_plain_is_copied_byte_for_byte() -> None:
    data = tarball(
        [
            member("./", tarfile.DIRTYPE, mode=0o755),
            member("system/dev/null", tarfile.CHRTYPE),
            member("system/a", data=b"x" * 50_000),
            member("system/d", tarfile.DIRTYPE),
            member("system/d", tarfile.DIRTYPE),
            hard("system/b", "system/a"),
            member("hardware.yaml", data=b"kernel: x\n"),
        ],
        compressed=False,
    )
    assert copied(data) == data


def test_folders_that_no_client_knows_are_refused_unless_raw() -> None:
    data = tarball([member("boot/vmlinuz", data=b"x")], compressed=False)
    with pytest.raises(DataError, match="'boot/vmlinuz' is in none of the folders"):
        copied(data)
    target = io.BytesIO()
    device.write_raw(io.BytesIO(data), target, name="x.tar.gz")
    assert target.getvalue() == data


@pytest.mark.parametrize("path", ["a/" * 200 + "b", "a" * 256, "/".join(["a" * 250] * 9)])
def test_h4_paths_are_neither_deep_nor_long(path: str) -> None:
    with pytest.raises(DataError, match="too long"):
        copied(tarball([member(f"system/{path}", data=b"x")], compressed=False))


@pytest.mark.parametrize("gap", [512, 1024, 10240, 1 << 20])
def test_nothing_is_hidden_after_the_end(gap: int) -> None:
    first = tarball([member("system/a", data=b"x")], compressed=False)
    start = first[: 512 * 2]  # header and content, without the blocks of the end
    hidden = tarball([member("/etc/cron.d/x", data=b"x")], compressed=False)
    with pytest.raises(DataError, match="goes on after its end"):
        copied(start + b"\0" * gap + hidden)


def test_an_archive_that_is_cut_short_is_refused() -> None:
    data = tarball([member("system/a", data=b"x" * 50_000)], compressed=False)
    with pytest.raises(DataError, match="is not a readable tar"):
        copied(data[:30_000])


class _Many(io.RawIOBase):
    """A tar stream of ever more members, as long as it is read."""

    def __init__(self, count: int, size: int = 0) -> None:
        self._left, self._number, self._size = count, 0, size

    def read(self, size: int = -1, /) -> bytes:
        blocks: list[bytes] = []
        while len(blocks) * 512 < size and self._left:
            self._left -= 1
            self._number += 1
            info = tarfile.TarInfo(f"system/{self._number}")
            info.size = self._size
            blocks.append(info.tobuf(tarfile.GNU_FORMAT))
        return b"".join(blocks) or b"\0" * size


def test_h4_a_million_members_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_MOST_MEMBERS", 20_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 20000 members"):
        inspection.inspect(_Many(30_000), archive="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 250 + (4 << 20)


def test_h4_a_huge_member_is_refused_before_it_is_read() -> None:
    with pytest.raises(DataError, match="unpacks to more than 64 GiB"):
        inspection.inspect(_Many(1, size=65 << 30), archive="x")


def test_h4_a_sparse_member_counts_as_what_it_unpacks_to() -> None:
    info = tarfile.TarInfo("system/hole")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "system/hole",
        "GNU.sparse.realsize": str(100 << 30),
    }
    data = b"0\n".ljust(512, b"\0")
    info.size = len(data)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="unpacks to more than 64 GiB"):
        rootfs.write(io.BytesIO(buffer.getvalue()), io.BytesIO(), name="x")
