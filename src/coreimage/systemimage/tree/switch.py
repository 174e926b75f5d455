"""The switch: the one link that decides which state of a channel tree readers see."""

import shutil
from pathlib import Path

from coreimage.lib import files

LINKS = {
    "channels.json": "state/channels.json",
    "channels.json.asc": "state/channels.json.asc",
    "gpg": "state/gpg",
}


def current_serial(root: Path) -> int | None:
    """Return the number of the state that a tree shows, None when it never showed one."""
    link = root / "state"
    return int(link.readlink().name) if link.is_symlink() else None


def show(root: Path, state: Path, serial: int) -> None:
    """Make a finished state the one that readers of a tree see, in one step.

    `state`, a folder on the same file system, is moved. What it names must be there and written
    through. Another of this number, of a run that was killed before its switch, is replaced.
    """
    for folder in (state, state / "gpg"):
        folder.chmod(0o755)
    files.fsync_tree(state)
    final = root / "states" / str(serial)
    final.parent.mkdir(exist_ok=True)
    if final.exists():
        shutil.rmtree(final)
    state.rename(final)
    files.fsync_directory(final.parent)
    files.fsync_directory(root)
    for name, target in LINKS.items():
        if not (root / name).is_symlink() or (root / name).readlink() != Path(target):
            files.link_atomically(root / name, target)
    files.link_atomically(root / "state", f"states/{serial}")
