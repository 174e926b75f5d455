"""Directories as values, to compare before and after."""

from pathlib import Path

from coreimage.lib import files


def snapshot(root: Path) -> dict[str, str]:
    """Return what every path below `root` is: a directory, a link's target, a file's digest."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = files.sha256_of(path)
    return found
