"""coreimage init: make a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from coreimage.cli.console import progress


def init(
    directory: Annotated[Path, typer.Argument(help="The folder to be made.")],
) -> None:
    """Make a workspace: coreimage.toml, fresh signing keys, empty trees.

    Example: coreimage init workspace
    """
    from coreimage.workspace import make_workspace

    workspace = make_workspace(directory, progress=progress())
    print(f"workspace '{workspace.root}' is ready")
