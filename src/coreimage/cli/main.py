"""The command `coreimage`: nouns and verbs."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from coreimage.cli.boot import boot
from coreimage.cli.console import guarded
from coreimage.cli.doctor import doctor

app = typer.Typer(
    name="coreimage",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build image-based Debian and Ubuntu systems and keep them up to date.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"coreimage {version('coreimage')}")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command()(boot)
app.command()(doctor)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(app, "coreimage"))
