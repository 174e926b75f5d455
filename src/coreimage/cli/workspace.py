"""What commands on a workspace begin with."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreimage.config import Workspace


def find(explicit: Path | None) -> "tuple[Workspace, datetime]":
    """Return the workspace that a command is to work on, and the time at which it began."""
    from coreimage.config import find_root, load_workspace

    return load_workspace(find_root(Path.cwd(), explicit)), datetime.now(UTC)
