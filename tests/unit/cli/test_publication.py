import json
from pathlib import Path

import pytest

from coreimage.cli import console
from coreimage.cli.main import app
from coreimage.errors import CoreImageError

PARENT = "www/cdimage/core/trixie/daily-preinstalled"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "coreimage.toml").touch()
    for version in ("20261123.9", "20261123.10"):
        (tmp_path / PARENT / version).mkdir(parents=True)
    (tmp_path / PARENT / "pending").symlink_to("20261123.10")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> None:
    app([*words], prog_name="coreimage", standalone_mode=False)


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(CoreImageError) as caught:
        call(*words)
    code = console.report(caught.value)
    return code, capsys.readouterr().err


@pytest.mark.usefixtures("root")
def test_publications_are_listed_with_their_marks(capsys: pytest.CaptureFixture[str]) -> None:
    call("publication", "mark-good", "core/trixie/20261123.9")
    assert "'core/trixie/daily-preinstalled/20261123.9' is marked good" in capsys.readouterr().out
    call("publication", "list")
    assert capsys.readouterr().out.splitlines() == [
        "project\tseries\tbuild id\tmarks",
        "core\ttrixie\t20261123.9\tcurrent, good",
        "core\ttrixie\t20261123.10\tpending",
    ]


def test_publications_for_machines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("publication", "list", "--json")
    assert json.loads(capsys.readouterr().out)[1] == {
        "project": "core",
        "series": "trixie",
        "version": "20261123.10",
        "path": str(root / PARENT / "20261123.10"),
        "marks": ["pending"],
    }


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "name",
    ["", "20261123", "core/20261123", "core/trixie/pending", "../trixie/20261123", "a//20261123"],
)
def test_what_names_no_publication_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, err = fail(capsys, "publication", "mark-good", name)
    assert code == 2
    assert f"'{name}' does not name a publication" in err
    assert "hint: name it as in debian-core/trixie/20261123" in err


@pytest.mark.usefixtures("root")
def test_an_unknown_publication_is_answered_with_the_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, err = fail(capsys, "publication", "mark-good", "core/trixie/20261124")
    assert code == 66
    assert "hint: the build ids are 20261123.9, 20261123.10" in err


def test_without_a_workspace_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = fail(capsys, "publication", "list")
    assert code == 66
    assert "make one with 'coreimage init DIR'" in err
