from pathlib import Path

import pytest
from typer.testing import CliRunner

from coreimage.cli.boot import AcceleratorChoice, choose_accelerator
from coreimage.cli.main import app
from coreimage.errors import CoreImageError, DataError, NotFoundError, UsageError


def fail(*words: str) -> CoreImageError:
    """Run the command line in this process and return the error that it raised."""
    error = CliRunner().invoke(app, ["boot", *words]).exception
    assert isinstance(error, CoreImageError)
    return error


def make_disk(folder: Path) -> str:
    disk = folder / "core.img"
    disk.write_bytes(b"\xfa" + bytes(509) + b"\x55\xaa")
    return str(disk)


@pytest.mark.parametrize("test", [[], ["--test"]])
def test_a_missing_disk(tmp_path: Path, test: list[str]) -> None:
    error = fail(str(tmp_path / "core.img"), "--accel", "tcg", *test)
    assert isinstance(error, NotFoundError)


def test_what_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "core.img").write_text("no disk")
    error = fail(str(tmp_path / "core.img"), "--test")
    assert isinstance(error, DataError)


def test_a_terminal_shows_one_machine(tmp_path: Path) -> None:
    error = fail(make_disk(tmp_path), "--firmware", "bios", "--firmware", "uefi")
    assert isinstance(error, UsageError)
    assert error.message == "a terminal shows one machine, but 2 boots are wanted"


def test_one_log_holds_one_console(tmp_path: Path) -> None:
    error = fail(make_disk(tmp_path), "--test", "--console-log", str(tmp_path / "log"))
    assert isinstance(error, UsageError)
    assert error.hint == "name one --firmware"


def test_an_accelerator_that_is_named_is_not_probed() -> None:
    chosen = choose_accelerator(AcceleratorChoice.KVM, "amd64")
    assert (chosen.name.value, chosen.reason) == ("kvm", "asked for")


def test_help_shows_an_example() -> None:
    result = CliRunner().invoke(app, ["boot", "--help"])
    assert result.exit_code == 0
    assert "coreimage boot core.img --test --firmware uefi" in result.output
