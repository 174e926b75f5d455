import pytest

from coreimage.checks.check import Status
from coreimage.checks.programs import (
    PROGRAMS,
    Program,
    check_program,
    check_python,
    older,
    version_in,
)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("mmdebstrap 1.3.5", "1.3.5"),
        ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", "1.5.4"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("/usr/bin/grub-mkimage (GRUB) 2.06-13+deb12u2", "2.06"),
        ("mke2fs 1.47.0 (5-Feb-2023)", "1.47.0"),
        ("gpg (GnuPG) 2.2.40\nlibgcrypt 1.10.1", "2.2.40"),
        ("usage: x FILE", ""),
    ],
)
def test_the_version_in_what_a_program_says(said: str, version: str) -> None:
    assert version_in(said) == version


@pytest.mark.parametrize(
    ("version", "minimum", "expected"),
    [
        ("5.2.5", "5.4", True),
        ("5.4.1", "5.4", False),
        ("5.10", "5.4", False),
        ("1.47", "1.47.0", False),
        ("1.46.99", "1.47", True),
        ("10.0", "9.9", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, minimum: str, expected: bool) -> None:  # noqa: FBT001
    assert older(version, minimum) is expected


def test_a_program_that_is_not_installed() -> None:
    check = check_program(Program(name="no-such-program", package="some-package"))
    assert check.status is Status.MISSING
    assert check.packages == ("some-package",)
    assert check.mend == "install the package some-package"


def test_a_real_program_that_is_new_enough() -> None:
    check = check_program(Program(name="tar", package="tar", minimum="1.0"))
    assert check.status is Status.OK
    assert check.found.count(".") >= 1


@pytest.mark.parametrize("below", [Status.WARNING, Status.MISSING])
def test_a_real_program_that_is_too_old(below: Status) -> None:
    program = Program(name="tar", package="tar", minimum="999.0", below=below, why="it is old")
    check = check_program(program)
    assert check.status is below
    assert check.found.endswith("expected 999.0 or newer: it is old")


def test_a_program_that_tells_no_version_is_not_trusted_to_be_new() -> None:
    check = check_program(Program(name="true", package="coreutils", ask=("x",), minimum="1.0"))
    assert check.status is Status.MISSING
    assert check.found.startswith("unknown version")


def test_this_python_is_new_enough() -> None:
    assert check_python().status is Status.OK


def test_each_program_is_listed_once() -> None:
    names = [program.name for program in PROGRAMS]
    assert len(names) == len(set(names))
