"""The command `ubuntu-device-flash`, with the options and the meaning that it always had."""

import os
import sys

import typer

from coreimage.cli import flash, flash_options
from coreimage.cli.console import guarded
from coreimage.cli.flash_query import query

app = typer.Typer(
    name="ubuntu-device-flash",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make bootable disk images from channels.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(flash.core)
app.command()(query)
_ASKING = ("revision", "server", "tls_skip_verify", "allow_unfresh")


@app.callback()
def _options(
    context: typer.Context,
    revision: flash_options.RevisionOption = None,
    server: flash_options.ServerOption = None,
    download_only: flash_options.DownloadOnlyOption = False,
    clean_cache: flash_options.CleanCacheOption = False,
    tls_skip_verify: flash_options.TlsOption = False,
    allow_unfresh: flash_options.UnfreshOption = False,
    verbose: flash_options.VerboseOption = False,
) -> None:
    given = {
        "revision": revision,
        "server": server,
        "download_only": download_only,
        "clean_cache": clean_cache,
        "tls_skip_verify": tls_skip_verify,
        "allow_unfresh": allow_unfresh,
        "verbose": verbose,
    }
    # What stands before the command is what the command takes where it says nothing itself; the
    # environment was looked at for that already, and comes after what was said.
    os.environ.pop(flash_options.SERVER_VARIABLE, None)
    defaults = {name: value for name, value in given.items() if value not in (None, False, [], ())}
    context.default_map = {
        "core": defaults,
        "query": {name: value for name, value in defaults.items() if name in _ASKING},
    }


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(app, "ubuntu-device-flash"))
