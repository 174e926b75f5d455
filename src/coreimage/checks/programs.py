"""Programs: is it installed, and is it new enough."""

import platform
import re
from dataclasses import dataclass

from coreimage.checks.check import Check, Status
from coreimage.errors import CommandError
from coreimage.lib import run

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_PATIENCE = 20.0
_PYTHON = "3.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that the road needs; `below` is the status when it is older than `minimum`."""

    name: str
    package: str
    ask: tuple[str, ...] = ("--version",)
    minimum: str = ""
    below: Status = Status.MISSING
    why: str = ""


_E2FSPROGS = "file systems are made and read as e2fsprogs 1.47 does it"

PROGRAMS = (
    Program(name="mmdebstrap", package="mmdebstrap"),
    Program(name="apt-get", package="apt"),
    Program(name="pigz", package="pigz"),
    Program(
        name="xz",
        package="xz-utils",
        minimum="5.4",
        below=Status.WARNING,
        why="older ones decompress on one processor only",
    ),
    Program(name="zstd", package="zstd"),
    Program(name="gpg", package="gpg", minimum="2.2"),
    Program(name="gpgv", package="gpgv", minimum="2.2"),
    Program(name="mke2fs", package="e2fsprogs", ask=("-V",), minimum="1.47", why=_E2FSPROGS),
    Program(name="debugfs", package="e2fsprogs", ask=("-V",), minimum="1.47", why=_E2FSPROGS),
    Program(name="e2fsck", package="e2fsprogs", ask=("-V",), minimum="1.47", why=_E2FSPROGS),
    # It tells its version only together with an error.
    Program(name="mkfs.vfat", package="dosfstools", ask=()),
    Program(name="mcopy", package="mtools"),
    Program(name="mmd", package="mtools"),
    Program(name="grub-mkimage", package="grub-common"),
    Program(name="qemu-system-x86_64", package="qemu-system-x86"),
    Program(name="setpriv", package="util-linux"),
    Program(name="unshare", package="util-linux", minimum="2.38", why="it needs --map-auto"),
)


def version_in(text: str) -> str:
    """Return the first version number with a dot in what a program says, or the empty string."""
    match = _VERSION.search(text)
    return match[0] if match else ""


def older(version: str, minimum: str) -> bool:
    """Tell whether a version comes before another; `1.47` and `1.47.0` are the same."""
    return _numbers(version) < _numbers(minimum)


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def check_program(program: Program) -> Check:
    """Return whether a program is there and new enough."""
    path = run.find_program(program.name)
    if path is None:
        return Check(
            name=program.name,
            status=Status.MISSING,
            found="not installed",
            mend=f"install the package {program.package}",
            packages=(program.package,),
        )
    version = version_in(_ask(path, program.ask)) if program.ask else ""
    if not program.minimum or (version and not older(version, program.minimum)):
        return Check(name=program.name, status=Status.OK, found=version or path)
    return Check(
        name=program.name,
        status=program.below,
        found=f"{version or 'unknown version'}, expected {program.minimum} or newer: {program.why}",
        mend=f"upgrade the package {program.package}, or the distribution",
        packages=(program.package,),
    )


def _ask(path: str, arguments: tuple[str, ...]) -> str:
    try:
        said = run.run([path, *arguments], check=False, timeout=_PATIENCE)
    except CommandError:
        return ""
    return (said.stdout + b"\n" + said.stderr).decode(errors="replace")


def check_python() -> Check:
    """Return whether this Python is new enough."""
    version = platform.python_version()
    if older(version_in(version), _PYTHON):
        mend = f"install Python {_PYTHON} or newer"
        return Check(name="python", status=Status.MISSING, found=version, mend=mend)
    return Check(name="python", status=Status.OK, found=version)
