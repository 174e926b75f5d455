import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.own.app import AppPackage, read_app
from coreimage.flasher.tree.staging import Kind, Staging
from coreimage.lib import run
from tests.support.clicks import SIGNATURE, click, members_of

YAML = """\
name: hello
version: "1.0"
services:
  - name: greeter
    description: says
      hello
    start: bin/greet "a word" $HOME 100%
    poststop: bin/greet ended
binaries:
  - name: greet
"""
HOME = "system-data/var/lib/coreimage"


def package(root: Path, text: str = YAML) -> Path:
    for folder in ("meta", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "meta/package.yaml").write_text(text)
    (root / "bin/greet").write_text("#!/bin/sh\necho hello\n")
    (root / "bin/greet").chmod(0o755)
    (root / "data").write_text("data")
    return root


def link(name: str, target: str, *, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def read(path: Path, tmp_path: Path, *, arch: str = "amd64") -> AppPackage:
    return read_app(path, arch=arch, scratch=tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}")


def test_a_folder_and_its_archive_are_the_same_package(tmp_path: Path) -> None:
    root = package(tmp_path / "hello")
    with tarfile.open(tmp_path / "hello.tar.xz", "w:xz") as archive:
        archive.add(root, ".")
    folder, packed = read(root, tmp_path), read(tmp_path / "hello.tar.xz", tmp_path)
    assert folder.digest == packed.digest
    assert folder.label == "hello 1.0"
    (root / "data").write_text("other")
    assert read(root, tmp_path).digest != folder.digest


@pytest.mark.parametrize("extra", [{}, SIGNATURE])
def test_so_is_a_container_of_2015(tmp_path: Path, extra: dict[str, bytes]) -> None:
    root = package(tmp_path / "hello")
    snap = tmp_path / "hello_1.0_all.snap"
    snap.write_bytes(click({**members_of(root), **extra}))
    assert read(snap, tmp_path).digest == read(root, tmp_path).digest


def test_dpkg_reads_the_same_container(tmp_path: Path) -> None:
    root, snap = package(tmp_path / "hello"), tmp_path / "hello.snap"
    snap.write_bytes(click(members_of(root)))
    assert run.run(["dpkg-deb", "--field", snap, "Click-Version"]).stdout == b"0.4\n"
    run.run(["dpkg-deb", "--extract", snap, tmp_path / "unpacked"])
    assert read(tmp_path / "unpacked", tmp_path).digest == read(snap, tmp_path).digest


def changed(root: Path, **members: bytes | None) -> bytes:
    """Return a container with other members; None takes one away."""
    plain = {name.replace(".", "_").replace("-", "_"): name for name in members_of(root)}
    found = members_of(root) | {plain.get(key, key): data for key, data in members.items() if data}
    gone = {plain[key] for key, data in members.items() if data is None}
    return click({name: data for name, data in found.items() if name not in gone})


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"_click_binary": None}, "no '_click-binary'"),
        ({"debian_binary": None}, "its first member is not 'debian-binary'"),
        ({"debian_binary": b"3.0\n"}, "its first member is not 'debian-binary' of version 2"),
        ({"data_tar_gz": None}, r"0 members 'data.tar.\*'"),
        ({"control_tar_gz": None}, r"0 members 'control.tar.\*'"),
        ({"data.tar.xz": b"x"}, r"2 members 'data.tar.\*'"),
        ({"evil": b"x"}, "nobody knows its member 'evil'"),
        ({f"_{number}": b"x" for number in range(40)}, "more than 32 members"),
        ({"data_tar_gz": b"noise"}, "data.tar.gz' is not compressed"),
        ({"data_tar_gz": b"\x1f\x8bnoise"}, "is (damaged|not a readable tar)"),
    ],
)
def test_other_containers_are_refused(
    tmp_path: Path, members: dict[str, bytes | None], says: str
) -> None:
    snap = tmp_path / "hello.snap"
    snap.write_bytes(changed(package(tmp_path / "hello"), **members))
    with pytest.raises(DataError, match=f"{snap}.*{says}"):
        read(snap, tmp_path)


def test_a_container_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    snap = tmp_path / "hello.snap"
    whole = click(members_of(package(tmp_path / "hello")))
    for size in (len(whole) - 2, len(whole) - 100, 300, 100, 8):
        snap.write_bytes(whole[:size])
        with pytest.raises(DataError, match=str(snap)):
            read(snap, tmp_path)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (tarfile.TarInfo("./../outside"), "outside its root"),
        (tarfile.TarInfo("/outside"), "outside its root"),
        (link("./way", "/etc"), "leads out of it"),
        (
            link("./way", "bin/greet", kind=tarfile.LNKTYPE),
            "leads to 'bin/greet', which is no file",
        ),
        (link("./node", "", kind=tarfile.CHRTYPE), "neither file, directory nor link"),
    ],
    ids=["parent", "absolute", "symlink", "hard link", "device"],
)
def test_what_is_refused_of_a_tar_is_refused_in_a_container(
    tmp_path: Path, member: tarfile.TarInfo, says: str
) -> None:
    root, snap = package(tmp_path / "hello"), tmp_path / "hello.snap"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(root / "meta", "./meta")
        archive.addfile(member)
    snap.write_bytes(changed(root, data_tar_gz=buffer.getvalue()))
    with pytest.raises((DataError, NotFoundError), match=says):
        read(snap, tmp_path)
    assert not (tmp_path.parent / "outside").exists()


def test_a_snap_of_today_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "hello.snap").write_bytes(b"hsqs" + bytes(4096))
    with pytest.raises(DataError, match="snap' is a squashfs") as raised:
        read(tmp_path / "hello.snap", tmp_path)
    assert "unsquashfs" in raised.value.hint


def test_a_package_of_debian_is_none_of_ours(tmp_path: Path) -> None:
    root = package(tmp_path / "hello")
    (root / "DEBIAN").mkdir()
    control = "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    (root / "DEBIAN/control").write_text(control)
    run.run(["dpkg-deb", "--build", root, tmp_path / "hello.deb"])
    with pytest.raises(DataError, match="as packages of Debian do not"):
        read(tmp_path / "hello.deb", tmp_path)


def test_a_binary_may_be_named_by_its_path(tmp_path: Path) -> None:
    """As in most packages of 2015."""
    tree = Staging(tmp_path / "tree")
    read(
        package(tmp_path / "hello", YAML.replace("- name: greet\n", "- name: bin/greet\n")),
        tmp_path,
    ).install(tree)
    assert tree.file("apps/bin/hello.greet").read_bytes().startswith(b"#!/bin/sh")
    twice = YAML + "  - name: bin/greet\n"
    with pytest.raises(DataError, match="two of one name"):
        read(package(tmp_path / "other", twice), tmp_path)


def test_it_is_installed_with_a_link_and_enabled_units(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    read(package(tmp_path / "hello"), tmp_path).install(tree)
    entries = tree.entries
    assert entries["apps/hello/current"].target == "1.0"
    assert entries["apps/hello/1.0/bin/greet"].mode == 0o755
    assert entries["apps/hello/1.0/data"].mode == 0o644
    assert tree.file("apps/bin/hello.greet").read_bytes().startswith(b"#!/bin/sh")
    wants = entries[f"{HOME}/units/multi-user.target.wants/hello_greeter.service"]
    assert (wants.kind, wants.target) == (Kind.SYMLINK, "../hello_greeter.service")
    unit = tree.file(f"{HOME}/units/hello_greeter.service").read_text().splitlines()
    home = "/writable/apps/hello/current"
    assert f'ExecStart="{home}/bin/greet" "a word" "$$HOME" "100%%"' in unit
    assert f'ExecStopPost="{home}/bin/greet" "ended"' in unit
    assert "Description=says hello" in unit
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "DynamicUser=yes",
    ):
        assert line in unit


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    tree = Staging(tmp_path / "tree")
    text = YAML.replace("poststop", "stop-timeout: 1m\n    caps: []\n    poststop")
    read(package(tmp_path / "hello", text), tmp_path).install(tree)
    unit = tree.file(f"{HOME}/units/hello_greeter.service").read_text()
    assert "PrivateNetwork=yes" in unit
    assert "TimeoutStopSec=60" in unit
    # The programs are looked for where they are here.
    here = unit.replace("/writable/apps/hello/current", str(tree.root / "apps/hello/1.0"))
    (tree.root / "apps/hello/1.0/bin/greet").chmod(0o755)
    (tmp_path / "hello_greeter.service").write_text(here)
    done = run.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "hello_greeter.service"], check=False
    )
    complaints = [line for line in done.stderr.decode().splitlines() if "hello_greeter" in line]
    assert complaints == []


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        (("services:", "servces:"), "'servces' is not a key", "services"),
        (("    start:", "    strat:"), "services.0.strat' is not a key", "start"),
        (('version: "1.0"', "version: 1.0"), "'version'", "quotes"),
        (("name: hello", "name: ../hello"), "'name'", ""),
        (("name: greeter", "name: a/b"), "services.0.name", ""),
        (("bin/greet ended", "/bin/sh"), "no path of a file of the package", ""),
        (("bin/greet ended", "../x"), "no path of a file of the package", ""),
        (("bin/greet ended", "bin/nothing"), "has no file 'bin/nothing'", ""),
        (("bin/greet ended", "data x"), "'data' is not executable", "chmod"),
        (("bin/greet ended", "bin/greet 'open"), "is no command", ""),
        (("binaries:", "type: oem\nbinaries:"), "'type'", ""),
        (("binaries:", "architecture: armhf\nbinaries:"), "is not for amd64", ""),
        (("  - name: greet\n", "  - name: greet\n  - name: greet\n"), "two of one name", ""),
        (("name: hello", "name: [hello"), "not YAML", ""),
    ],
)
def test_what_is_malformed_is_refused_by_file_and_key(
    tmp_path: Path, change: tuple[str, str], says: str, hint: str
) -> None:
    text = YAML.replace(*change, 1)
    assert text != YAML
    root = package(tmp_path / "hello", text)
    with pytest.raises(DataError) as raised:
        read(root, tmp_path)
    assert says in raised.value.message
    assert "hello: meta/package.yaml" in raised.value.message
    assert hint in (raised.value.hint or "")


def link_out(root: Path) -> None:
    (root / "out").symlink_to("/etc")


def link_up(root: Path) -> None:
    (root / "meta/up").symlink_to("../../x")


def set_user_id(root: Path) -> None:
    (root / "bin/greet").chmod(0o4755)


def pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def nothing(root: Path) -> None:
    (root / "meta/package.yaml").unlink()


@pytest.mark.parametrize("change", [link_out, link_up, set_user_id, pipe, nothing])
def test_files_that_no_package_may_have(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = package(tmp_path / "hello")
    change(root)
    with pytest.raises(DataError, match="hello"):
        read(root, tmp_path)


def test_a_link_inside_stays(tmp_path: Path) -> None:
    root = package(tmp_path / "hello")
    (root / "meta/program").symlink_to("../bin/greet")
    tree = Staging(tmp_path / "tree")
    read(root, tmp_path).install(tree)
    assert tree.entries["apps/hello/1.0/meta/program"].target == "../bin/greet"


def test_a_name_is_not_a_package(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        read(Path("webdm"), tmp_path)
    assert "path" in raised.value.hint
