"""Root file systems as images carry them."""

import io
import tarfile

import pytest

from coreimage.errors import DataError
from coreimage.systemimage.imports.generators import rootfs
from tests.support.publications import MTIME, member, rootfs_members, tarball


def rewrite(members: list[tuple[tarfile.TarInfo, bytes]]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(rewritten(members))) as tar:
        found = tar.getmembers()
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def rewritten(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    target = io.BytesIO()
    source = io.BytesIO(tarball(members, compressed=False))
    rootfs.write(source, target, name="x.tar.gz")
    return target.getvalue()


def test_everything_is_below_system() -> None:
    found = rewrite(rootfs_members())
    assert sorted(found) == [
        "system",
        "system/dev",
        "system/etc",
        "system/etc/motd",
        "system/etc/mtab",
        "system/lib",
        "system/usr",
        "system/usr/bin",
        "system/usr/bin/a",
        "system/usr/bin/b",
        "system/usr/bin/c",
        "system/usr/lib",
        "system/usr/lib/modules",
        "system/writable",
    ]
    assert found["system/usr/bin/b"].linkname == "system/usr/bin/a"
    assert found["system/usr/bin/b"].islnk()
    assert found["system/usr/bin/c"].linkname == "/usr/bin/a"
    assert found["system/usr/bin/a"].mode == 0o4755
    assert found["system/usr/bin/a"].size == 70000


def test_what_is_added_is_as_old_as_the_newest_member() -> None:
    found = rewrite(rootfs_members())
    mtab = found["system/etc/mtab"]
    assert (mtab.linkname, mtab.mode, mtab.mtime) == ("/proc/mounts", 0o444, MTIME + 5)
    assert mtab.issym()
    assert found["system/writable"].isdir()
    assert found["system/writable"].mode == 0o755


@pytest.mark.parametrize(
    ("lib", "modules"),
    [
        (member("lib", tarfile.DIRTYPE), "system/lib/modules"),
        (member("lib", tarfile.SYMTYPE, linkname="usr/lib"), "system/usr/lib/modules"),
        (member("lib", tarfile.SYMTYPE, linkname="/usr/lib"), "system/usr/lib/modules"),
        (member("lib", tarfile.SYMTYPE, linkname="../usr/lib/"), "system/usr/lib/modules"),
    ],
)
def test_modules_go_where_lib_leads(lib: tuple[tarfile.TarInfo, bytes], modules: str) -> None:
    found = rewrite([lib])
    assert [name for name in found if name.endswith("/modules")] == [modules]


def test_what_is_there_is_not_added_again() -> None:
    found = rewrite(
        [
            member("writable", tarfile.DIRTYPE, mode=0o700),
            member("usr/lib/modules", tarfile.DIRTYPE, mode=0o700),
            member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        ]
    )
    assert found["system/writable"].mode == 0o700
    assert found["system/usr/lib/modules"].mode == 0o700


def test_capabilities_are_kept_byte_for_byte() -> None:
    value = b"\x01\x00\x00\x02\x00\x20\xff\xfe\x00\x00".decode("utf-8", "surrogateescape")
    found = rewrite([member("bin/ping", data=b"x", xattrs={"security.capability": value})])
    kept = found["system/bin/ping"].pax_headers["SCHILY.xattr.security.capability"]
    assert kept == value


def test_names_of_any_bytes_and_lengths_are_kept() -> None:
    names = ["é" * 90, "long/" * 60 + "end", b"caf\xe9".decode("utf-8", "surrogateescape")]
    assert set(rewrite([member(name, data=b"x") for name in names])) >= {
        f"system/{name}" for name in names
    }


def test_old_readers_get_names_without_pax_headers() -> None:
    """The original wrote GNU format; readers of its time skip PAX headers."""
    names = ["usr/share/ca-certificates/Főtanúsítvány.crt", "long/" * 60 + "end"]
    data = rewritten([member(name, data=b"x") for name in names])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert not any(each.pax_headers for each in tar.getmembers())
    assert all(f"system/{name}".encode() in data for name in names)


def test_the_same_input_gives_the_same_bytes() -> None:
    assert rewritten(rootfs_members()) == rewritten(rootfs_members())


def test_names_of_owners_are_left_out() -> None:
    info, data = member("etc/motd", data=b"x")
    info.uid, info.gid, info.uname, info.gname = 1000, 8, "somebody", "mail"
    owner = rewrite([(info, data)])["system/etc/motd"]
    assert (owner.uid, owner.gid, owner.uname, owner.gname) == (1000, 8, "", "")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../b"])
def test_o1_members_outside_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="outside"):
        rewrite([member(name, data=b"x")])


def test_a_hard_link_to_what_is_left_out_is_refused() -> None:
    swap = member("SWAP.swap", data=b"x")
    with pytest.raises(DataError, match=r"'swap' is a hard link to 'SWAP\.swap'"):
        rewrite([swap, member("swap", tarfile.LNKTYPE, linkname="SWAP.swap")])
