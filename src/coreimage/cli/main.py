"""The command `coreimage`: nouns and verbs."""

import sys
from typing import Annotated

import typer

from coreimage.cli import (
    build,
    channel,
    disk,
    flash,
    keyring,
    oem,
    offer,
    pipeline,
    publication,
    rootfs,
    schedule,
)
from coreimage.cli.boot import boot
from coreimage.cli.console import guarded
from coreimage.cli.doctor import doctor
from coreimage.cli.init import init
from coreimage.cli.serve import serve
from coreimage.cli.why import why

app = typer.Typer(
    name="coreimage",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build image-based Debian and Ubuntu systems and keep them up to date.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for noun in (build, channel, disk, flash, keyring, oem, pipeline, publication, rootfs, schedule):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])
offer.app.command()(why)
app.add_typer(offer.app, name="image")  # what cli.image has, and more
for verb in (boot, doctor, init, serve):
    app.command()(verb)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

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


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(app, "coreimage"))
