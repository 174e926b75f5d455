import json
from pathlib import Path
from typing import cast

import pytest
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from coreimage.cli.main import app
from coreimage.cli.rootfs import app as rootfs
from coreimage.cli.rootfs_options import archive_settings, given_options
from coreimage.cli.space import host_arch
from coreimage.config import ArchiveSettings, Settings, Workspace
from coreimage.errors import CoreImageError, RightsError
from coreimage.rootfs.definitions.definition import definition_names, select, shipped_definitions
from tests.support.definitions import BASE, write


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "coreimage.toml").touch()
    write(tmp_path / "definitions/base", BASE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> None:
    app([*words], prog_name="coreimage", standalone_mode=False)


@pytest.mark.usefixtures("root")
def test_definitions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    call("rootfs", "list")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name\treleases\tarchitectures\ttitle"
    assert "base\t13 (trixie), 12 (bookworm)\tamd64\tBase" in lines
    call("rootfs", "list", "--json")
    found = {each["name"] for each in json.loads(capsys.readouterr().out)}
    assert found == {"base", *definition_names([shipped_definitions()])}


def test_without_a_workspace_the_shipped_ones_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call("rootfs", "list")
    assert "debian-core\t" in capsys.readouterr().out


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["bsae"], 66, "the definitions are base, "),
        (["base", "--release", "14"], 66, "its releases are 13 (trixie), 12 (bookworm)"),
        (["base", "--arch", "riscv64"], 66, "its architectures are amd64"),
        (["base", "--workspace", "absent"], 66, "make one with 'coreimage init"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(
    words: list[str], code: int, hint: str
) -> None:
    with pytest.raises(CoreImageError) as caught:
        call("rootfs", "build", *words, "--output", "out")
    assert caught.value.exit_code == code
    assert hint in caught.value.hint
    assert not Path("out").exists()


def test_a_mirror_on_the_command_line_wins(root: Path) -> None:
    selection = select("base", None, "amd64", [root / "definitions"])
    configured = ArchiveSettings(
        mirror="http://a.example", security_mirror="http://s.example", keyring=Path("/k")
    )
    workspace = Workspace(root=root, settings=Settings(archives={"debian": configured}))
    assert archive_settings(workspace, selection, None) == configured
    assert archive_settings(workspace, selection, "http://b.example") == ArchiveSettings(
        mirror="http://b.example", keyring=Path("/k")
    )
    assert archive_settings(None, selection, None) == ArchiveSettings()


def test_a_build_that_cannot_run_here_is_refused_before_anything_is_looked_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEB_HOST_ARCH", "m88k")
    monkeypatch.setattr("coreimage.lib.arches.QEMU", {})
    with pytest.raises(RightsError, match="amd64 do not run on this m88k machine") as caught:
        call("rootfs", "build", "base", "--arch", "amd64", "--output", "out")
    assert caught.value.hint == "build on a machine of amd64"
    assert {path.name for path in root.iterdir()} == {"coreimage.toml", "definitions"}


def test_defaults_are_no_options_that_were_given() -> None:
    group = get_command(rootfs)
    assert isinstance(group, TyperGroup)
    build = group.commands["build"]
    context = build.make_context("build", ["base", "--output", "x", "--arch", host_arch()])
    assert given_options(cast("Context", context), ("release", "arch", "device")) == {
        "arch": host_arch()
    }


def test_the_lines_that_pin_a_tree(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "tree/etc").mkdir(parents=True)
    (root / "tree/etc/passwd").write_text("sshd:*:101:65534::/run/sshd:/x\n")
    (root / "tree/etc/group").write_text("adm:*:4:core\n")
    call("rootfs", "ids", "tree")
    lines = ["# ids/passwd", "sshd:x:101:65534::/run/sshd:/x", "# ids/group", "adm:x:4:"]
    assert capsys.readouterr().out.splitlines() == lines
    call("rootfs", "ids", "tree", "--json")
    assert json.loads(capsys.readouterr().out) == {"passwd": lines[1:2], "group": lines[3:]}

    call("rootfs", "ids", "tree", "--output", "definitions/base/ids")
    assert capsys.readouterr().out == ""
    found = select("base", None, "amd64", [root / "definitions"]).pins()
    assert found is not None
    assert list(found.users) == ["sshd"]
    with pytest.raises(CoreImageError, match="is there already"):
        call("rootfs", "ids", "tree", "--output", "definitions/base/ids")
