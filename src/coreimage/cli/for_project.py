"""The command `for-project`: run a command for one project."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from coreimage.cli.console import guarded

app = typer.Typer(
    name="for-project",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


# What follows the command is the command's, also what looks like an option of ours.
@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def for_project(
    project: Annotated[str, typer.Argument(help="The definition, such as ubuntu-core.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
) -> None:
    """Run a command for a project.

    The command finds the project's name in PROJECT and, with capitals, in CAPPROJECT. Programs of
    coreimage need not be in PATH.

    Example: for-project ubuntu-core cron.daily-preinstalled --live
    """
    from coreimage.farm.trigger import capitalised, project_name
    from coreimage.lib import run

    os.environ["PROJECT"] = project_name(project)
    os.environ["CAPPROJECT"] = capitalised(project)
    program, *words = command
    run.replace([_beside_us(program) or program, *words])


def _beside_us(program: str) -> Path | None:
    """Return the program of that name that was installed with this one, when PATH has none."""
    from coreimage.lib import run

    if "/" in program or run.find_program(program):
        return None
    for folder in (Path(sys.argv[0]).parent, Path(sys.executable).parent):
        if os.access(folder / program, os.X_OK):
            return (folder / program).absolute()
    return None


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(app, "for-project"))
