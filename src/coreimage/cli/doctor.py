"""`coreimage doctor`: what this machine lacks, and how to mend it."""

import os
from pathlib import Path

import typer

from coreimage.checks.check import Check, Status, install_command, road_works
from coreimage.cli.console import JsonOption, WorkspaceOption, print_json, print_table
from coreimage.cli.space import host_arch
from coreimage.errors import NotFoundError, RightsError


def doctor(*, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check the programs and kernel features that building, flashing and booting need.

    \b
    Examples:
      coreimage doctor
      coreimage doctor --json

    Exit code 0 when everything needed is there (there may be warnings, and builds of other
    architectures are optional), 77 when something is
    missing. The last line is the command that installs the missing packages.
    """  # noqa: D301  \b keeps the lines of the examples apart
    from coreimage.checks.machine import examine

    checks = examine(_place(workspace), host=host_arch())
    install = install_command(checks, as_root=os.geteuid() == 0)
    works = road_works(checks)
    if as_json:
        document = {"works": works, "install": install}
        print_json({**document, "checks": [check.to_json() for check in checks]})
    else:
        _print_checks(checks, works=works, install=install)
    if not works:
        raise typer.Exit(RightsError.exit_code)


def _place(workspace: Path | None) -> Path:
    from coreimage.config import find_root

    try:
        return find_root(Path.cwd(), workspace)
    except NotFoundError:
        if workspace is not None:
            raise
        return Path.cwd()


def _print_checks(checks: list[Check], *, works: bool, install: str) -> None:
    rows = [[check.status.value, check.name, check.found, check.mend] for check in checks]
    print_table("This machine", ["status", "check", "found", "how to mend it"], rows)
    counts = {status: sum(check.status is status for check in checks) for status in Status}
    print(
        f"{'everything needed is there' if works else 'something needed is missing'}: "
        + ", ".join(f"{count} {status}" for status, count in counts.items())
    )
    if install:
        print(install)
