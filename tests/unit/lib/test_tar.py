import io
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.lib import run, tar

BINARY = b"\x01\x00\x00\x02\xff\xfe\n=\x00 caps"
CAPABILITY = "SCHILY.xattr.security.capability"


def archive(*members: tarfile.TarInfo, encoding: str = "utf-8") -> bytes:
    """Return a tar as the standard library writes it, whatever is in it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, encoding=encoding) as to:
        for member in members:
            to.addfile(member, io.BytesIO(b"x" * member.size))
    return output.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in fields.items():
        setattr(found, key, value)
    return found


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tar.reading(io.BytesIO(data), archive="a.tar") as opened:
        found = []
        for each in tar.members(opened, archive="a.tar"):
            content = opened.extractfile(each) if each.isreg() else None
            while content is not None and content.read(1 << 16):
                pass
            found.append(each)
        return found


def rewritten(data: bytes) -> bytes:
    output = io.BytesIO()
    with (
        tar.reading(io.BytesIO(data), archive="a.tar") as source,
        tar.writing(output) as target,
    ):
        for each in tar.members(source, archive="a.tar"):
            content = source.extractfile(each) if each.isreg() else None
            target.addfile(tar.plain(each), content)
    return output.getvalue()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        *((".", ""), ("./", ""), ("./a", "a"), ("a/", "a"), ("a//b/./c", "a/b/c")),
        *(
            ("a..b", "a..b"),
            ("...", "..."),
            ("-rf", "-rf"),
            ("a b\n", "a b\n"),
            ("\udce4", "\udce4"),
        ),
    ],
)
def test_names_are_relative_to_the_root(name: str, safe: str) -> None:
    assert tar.safe_name(name, archive="a.tar") == safe


@pytest.mark.parametrize(
    "name", ["/", "/etc/passwd", "..", "../a", "a/../b", "./..", "a/..", "//a", "a\0b"]
)
def test_o1_names_outside_the_root_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"'a\.tar' has a member"):
        tar.safe_name(name, archive="a.tar")
    link = member("link", tarfile.LNKTYPE, pax_headers={"linkpath": name})
    with pytest.raises(DataError, match=r"^'a\.tar' "):
        read(archive(member("good"), link))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b"])
def test_o1_a_member_outside_the_root_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"'a\.tar' has a member outside its root"):
        read(archive(member("good"), member(name)))


@pytest.mark.parametrize("target", ["", ".", "./"])
def test_a_hard_link_leads_somewhere(target: str) -> None:
    with pytest.raises(DataError, match="a link that leads nowhere: 'link'"):
        read(archive(member("link", tarfile.LNKTYPE, linkname=target)))


def test_a_link_without_end_is_refused() -> None:
    with pytest.raises(DataError, match="a link that leads nowhere: 'link'"):
        read(archive(member("link", tarfile.SYMTYPE, pax_headers={"linkpath": "a\0b"})))


def test_a_symlink_may_say_what_it_wants() -> None:
    (found,) = read(archive(member("link", tarfile.SYMTYPE, linkname="/../../etc//passwd")))
    assert found.linkname == "/../../etc//passwd"


@pytest.mark.parametrize("mtime", ["nan", "inf", "-inf", "1e400"])
def test_a_time_that_is_none_is_refused(mtime: str) -> None:
    with pytest.raises(DataError, match=r"'a\.tar' is not a readable tar archive"):
        rewritten(archive(member("a", pax_headers={"mtime": mtime})))


@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    good = archive(
        member("usr", tarfile.DIRTYPE, mode=0o755),
        member("usr/" + "long" * 40, size=700, pax_headers={"SCHILY.xattr.user.a": "b"}),
        member("usr/link", tarfile.LNKTYPE, linkname="usr/" + "long" * 40),
    )
    content = bytearray(good)
    flips = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(flips, min_size=1, max_size=8)):
        content[position] = value
    with suppress(DataError):
        rewritten(bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"text", b"x" * 2000])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"'a\.tar' is not a readable tar archive"):
        read(data)


def test_a_content_that_was_cut_short_is_refused() -> None:
    good = archive(member("a", size=5000))
    with pytest.raises(DataError, match="is not a readable tar archive"):
        read(good[:2000])


def test_what_we_write_is_plain() -> None:
    data = rewritten(
        archive(
            member(
                "./a",
                mtime=7.9,
                uname="me",
                gname="us",
                uid=1000,
                mode=0o4755,
                pax_headers={"comment": "x", "SCHILY.xattr.user.a": "b"},
            )
        )
    )
    (found,) = read(data)
    assert (found.name, found.mtime, found.uname, found.gname) == ("a", 7, "", "")
    assert (found.uid, found.mode) == (1000, 0o4755)
    assert set(found.pax_headers) == {"SCHILY.xattr.user.a"}
    assert rewritten(data) == data


def test_binary_attributes_survive() -> None:
    value = BINARY.decode("utf-8", "surrogateescape")
    data = rewritten(archive(member("ping", pax_headers={CAPABILITY: value})))
    (found,) = read(rewritten(data))
    assert tar.xattrs(found) == {"security.capability": BINARY}


def test_gnu_tar_reads_what_we_write(tmp_path: Path) -> None:
    names = ["a", "ä", "b\udcff", "long" * 60]
    headers = {"SCHILY.xattr.user.a": BINARY.decode("utf-8", "surrogateescape")}
    path = tmp_path / "a.tar"
    path.write_bytes(rewritten(archive(*(member(each, pax_headers=headers) for each in names))))
    listed = run.run(["tar", "--list", "--quoting-style=literal", "--file", path])
    assert [line.decode("utf-8", "surrogateescape") for line in listed.stdout.splitlines()] == names


def test_the_locale_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive(member("ä/\udcff"), member("€")))
    script = (
        "import io, sys\n"
        "from tests.unit.lib.test_tar import rewritten\n"
        "sys.stdout.buffer.write(rewritten(open(sys.argv[1], 'rb').read()))\n"
    )
    here = Path(__file__).parents[3]
    results = {
        run.run(
            [sys.executable, "-X", f"utf8={mode}", "-c", script, path],
            env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": f"{here}:{here}/src"},
        ).stdout
        for mode in (0, 1)
    }
    assert len(results) == 1


def test_our_own_members() -> None:
    made = tar.entry("link", mtime=7, mode=0o777, kind=tarfile.SYMTYPE, linkname="a")
    assert (made.uid, made.gid, made.uname, made.mtime) == (0, 0, "", 7)
