import tarfile
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.lib import compress
from coreimage.rootfs.diff.files import (
    FileChange,
    Scan,
    by_folder,
    compare_files,
    scan,
    unexplained,
)
from tests.unit.rootfs.tarballs.test_split import link, member, stream

Member = tuple[tarfile.TarInfo, bytes]


def tarball(path: Path, *members: Member) -> Path:
    with path.open("wb") as target, compress.compressing(target, kind="gz", level=1) as packed:
        packed.write(stream(list(members)).getvalue())
    return path


def changes(folder: Path, old: list[Member], new: list[Member]) -> list[FileChange]:
    scans = [scan(tarball(folder / name, *each)) for name, each in (("a", old), ("b", new))]
    return compare_files(scans[0], scans[1], {**scans[0].owners, **scans[1].owners})


def test_nothing_changes_by_its_time_or_order(tmp_path: Path) -> None:
    old = [member("etc/a", data=b"a"), member("etc/b", data=b"b")]
    new = [member("./etc/b", data=b"b", mtime=1), member("./etc/a", data=b"a")]
    assert changes(tmp_path, old, new) == []


def test_every_aspect_is_told(tmp_path: Path) -> None:
    old = [
        member("content", data=b"one"),
        member("mode", mode=0o755),
        member("owner"),
        member("attributes"),
        link("link", "a", tarfile.SYMTYPE),
        member("kind", data=b"x"),
        member("gone", data=b"xyz"),
        member("same", data=b"same"),
    ]
    new = [
        member("content", data=b"two"),
        member("mode", mode=0o4755),
        member("owner", gid=5),
        member("attributes"),
        link("link", "b", tarfile.SYMTYPE),
        link("kind", "content"),
        member("new", data=b"12345", mode=0o4755),
        member("same", data=b"same"),
    ]
    new[3][0].pax_headers = {"SCHILY.xattr.security.capability": "x"}
    found = {each.path: each for each in changes(tmp_path, old, new)}
    assert {path: each.aspects for path, each in found.items() if each.aspects} == {
        "attributes": ["attributes"],
        "content": ["content"],
        "kind": ["kind", "content"],
        "link": ["content"],
        "mode": ["mode"],
        "owner": ["owner"],
    }
    assert {path: each.presence for path, each in found.items() if not each.aspects} == {
        "gone": "removed",
        "new": "added",
    }
    assert (found["gone"].growth, found["new"].growth, found["content"].growth) == (-3, 5, 0)
    rights = {path for path, each in found.items() if each.gives_rights}
    assert rights == {"attributes", "mode", "owner", "new"}


def test_folders_are_summed_where_they_say_something(tmp_path: Path) -> None:
    old = [member("usr/bin/a", data=b"a"), member("etc/x/y", data=b"a"), member("usr/share/doc/z")]
    new = [member("usr/bin/a", data=b"b" * 5), member("usr/bin/b", data=b"b"), member("top")]
    found = by_folder(changes(tmp_path, old, new))
    assert [
        (each.folder, each.added, each.removed, each.changed, each.growth) for each in found
    ] == [
        ("usr/bin", 1, 0, 1, 5),
        ("etc", 0, 1, 0, -1),
        ("/", 1, 0, 0, 0),
        ("usr/share/doc", 0, 1, 0, 0),
    ]


def test_modules_of_another_kernel_are_compared_with_those_of_the_first(tmp_path: Path) -> None:
    def kernel(release: str, data: bytes) -> list[Member]:
        return [
            member(f"system/boot/config-{release}", data=b"config"),
            member(f"system/usr/lib/modules/{release}/a.ko", data=data),
        ]

    gone = member("system/usr/lib/modules/6.1.0-1-cloud/b.ko", data=b"b")
    old = [*kernel("6.1.0-1-cloud", b"a"), gone]
    found = changes(tmp_path, old, kernel("6.1.0-2-cloud", b"b"))
    assert [(each.path, each.presence) for each in found] == [
        ("system/usr/lib/modules/6.1.0-1-cloud/b.ko", "removed"),
        ("system/usr/lib/modules/6.1.0-2-cloud/a.ko", "changed"),
    ]


LIST = member("var/lib/dpkg/info/dash.list", data=b"/.\n/bin\n/bin/dash\n")
LIBC = member("var/lib/dpkg/info/libc6:amd64.list", data=b"/usr/lib/libc.so\n")


def test_what_no_changed_package_explains(tmp_path: Path) -> None:
    old = [LIST, LIBC, *(member(each, data=b"1") for each in ("usr/bin/dash", "etc/conf"))]
    new = [LIST, LIBC, *(member(each, data=b"2") for each in ("usr/bin/dash", "etc/conf"))]
    for name in ("usr/lib/libc.so", "var/lib/dpkg/status", "assets/initrd.img"):
        old.append(member(name, data=b"1"))
        new.append(member(name, data=b"2"))
    found = changes(tmp_path, old, new)
    assert {each.path: each.package for each in found} == {
        "assets/initrd.img": "",
        "etc/conf": "",
        "usr/bin/dash": "dash",
        "usr/lib/libc.so": "libc6",
        "var/lib/dpkg/status": "",
    }
    assert [each.path for each in unexplained(found, {"libc6"})] == ["etc/conf", "usr/bin/dash"]
    assert len(list(unexplained(found, set()))) == 5


def test_the_day_of_a_password_does_not_count(tmp_path: Path) -> None:
    def told(*lines: bytes) -> list[list[str]]:
        old = member("etc/shadow", data=b"root:*:20000:0:99999:7:::\nbin:!*:20000::::::\n")
        new = member("etc/shadow", data=b"\n".join([*lines, b""]))
        return [each.aspects for each in changes(tmp_path, [old], [new])]

    root, other = b"root:*:20300:0:99999:7:::", b"bin:!*:20300::::::"
    assert told(root, other) == []
    assert told(root, b"bin:!*:::::::") == []
    assert told(root.replace(b"*", b""), other) == [["content"]]
    assert told(root.replace(b"99999", b"90"), other) == [["content"]]
    assert told(root) == [["content"]]
    assert told(root, other, b"new:!*:20300::::::") == [["content"]]


def test_the_package_database_is_kept(tmp_path: Path) -> None:
    found = scan(tarball(tmp_path / "a", LIST, member("var/lib/dpkg/status", data=b"Package: a")))
    assert found.status == b"Package: a"
    assert found.owners["bin/dash"] == "dash"
    assert found.size == len(LIST[1]) + 10


def test_damage_is_told(tmp_path: Path) -> None:
    whole = tarball(tmp_path / "a", member("a", data=bytes(1 << 20)))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(DataError):
        scan(tmp_path / "cut")
    (tmp_path / "text").write_text("no tarball")
    with pytest.raises(DataError, match="'text' is not compressed"):
        scan(tmp_path / "text")


def test_content_is_not_kept_in_memory(tmp_path: Path) -> None:
    found = scan(tarball(tmp_path / "a", member("a", data=bytes(8 << 20))))
    assert found == Scan(
        entries={"a": found.entries["a"]}, size=8 << 20, status=b"", owners={}, kernels=set()
    )
    assert len(found.entries["a"].content) == 32
