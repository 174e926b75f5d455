import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.own.app import AppPackage, read_app
from coreimage.flasher.tree.staging import Kind, Staging
from coreimage.lib import run

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
