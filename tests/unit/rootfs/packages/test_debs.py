"""Packages made by dpkg-deb, with each kind of compression that is used."""

from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.lib import run
from coreimage.rootfs.packages import debs
from coreimage.rootfs.packages.debs import Deb


def made(folder: Path, kind: str = "xz") -> Path:
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: hello\nVersion: 1:2\nArchitecture: all\nMaintainer: a <a@b.example>\n"
        "Depends: one (>= 2), two:any | three\nDescription: x\n"
    )
    for name in ("usr/share/doc/hello/copyright", "usr/share/doc/hello/README", "usr/bin/hello"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n" * 1000)
    target = folder / f"hello_{kind}.deb"
    run.run(
        ["dpkg-deb", "--build", "--root-owner-group", f"-Z{kind}", tree, target],
        env={"SOURCE_DATE_EPOCH": "1795392000"},
    )
    return target


@pytest.mark.parametrize("kind", ["xz", "gzip", "zstd", "none"])
def test_a_package_without_compression_is_the_same_package(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    (deb,) = debs.read_all([path])
    assert (deb.name, deb.fields["Version"], deb.time) == ("hello", "1:2", 1795392000)
    assert debs.built_at(path) == deb.time
    assert deb.relations("Depends") == [["one"], ["two", "three"]]
    (tmp_path / "plain").mkdir()
    debs.unpack(deb, tmp_path / "plain")
    plain = tmp_path / "plain" / path.name
    for option in ("--fsys-tarfile", "--ctrl-tarfile", "--field"):
        both = [run.run(["dpkg-deb", option, each]).stdout for each in (path, plain)]
        assert both[0] == both[1]
    listed = run.run(["ar", "t", plain]).stdout.decode() if run.find_program("ar") else None
    assert listed in (None, "debian-binary\ncontrol.tar\ndata.tar\n")


@pytest.mark.parametrize("size", [0, 5, 70, 300, -1])
def test_a_package_that_is_cut_short_is_named(tmp_path: Path, size: int) -> None:
    path = made(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(DataError, match=f"'{path.name}' is no package"):
        debs.unpack(debs.read_all([path])[0], tmp_path)


def test_what_path_filters_leave_out(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    path = made(tmp_path)
    debs.unpack(debs.read_all([path])[0], tmp_path / "plain")
    plain = [tmp_path / "plain" / path.name]
    doc = "./usr/share/doc/hello"
    found = debs.members_left_out(plain, ["/usr/share/doc/*"], ["/usr/share/doc/*/copyright"])
    assert {name.rstrip("/") for name in found} == {doc, f"{doc}/README", f"{doc}/copyright"}


def test_what_people_read_can_wait_but_not_its_folders(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    path = made(tmp_path)
    debs.unpack(debs.read_all([path])[0], tmp_path / "plain")
    found = debs.members_left_out([tmp_path / "plain" / path.name], [], [])
    assert found == [f"./usr/share/doc/hello/{name}" for name in ("README", "copyright")]


def deb(name: str, **fields: str) -> Deb:
    named = {key.replace("_", "-"): value for key, value in fields.items()}
    return Deb(path=Path(f"{name}.deb"), fields={"Package": name, **named}, time=0)


def names(group: list[Deb]) -> list[str]:
    return [each.name for each in group]


def test_essential_packages_come_with_what_they_need() -> None:
    found = [
        deb("base", Essential="yes", Depends="awk, lib (>= 1) | other"),
        deb("mawk", Provides="awk"),
        deb("gawk", Provides="awk", Depends="big"),
        deb("lib", Pre_Depends="libc"),
        deb("libc"),
        deb("other"),
        deb("big"),
    ]
    # Of two that provide a name, the first is taken; apt would have brought only one.
    assert names(debs.essentials(found)) == ["base", "big", "gawk", "lib", "libc"]


def test_what_is_named_in_pre_depends_comes_first() -> None:
    base = [deb("base", Essential="yes")]
    found = [
        *base,
        deb("app", Depends="lib", Pre_Depends="init"),
        deb("init", Pre_Depends="lib, base", Depends="data"),
        deb("lib", Pre_Depends="base"),
        deb("data", Depends="init"),
        deb("extra", Depends="app"),
    ]
    groups = debs.install_order(found, base)
    assert [names(group) for group in groups] == [["lib"], ["data", "init"], ["app", "extra"]]


def test_packages_that_pre_depend_in_a_circle_come_last_together() -> None:
    found = [deb("a", Pre_Depends="b"), deb("b", Pre_Depends="a"), deb("c")]
    assert [names(group) for group in debs.install_order(found, [])] == [["a", "b", "c"]]


def test_without_others_the_last_group_is_empty() -> None:
    base = [deb("base", Essential="yes")]
    assert debs.install_order(base, base) == [[]]
