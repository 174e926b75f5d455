"""Orphans: states, indexes and files that nothing names any more, removed after a grace time."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import DataError
from coreimage.lib import files
from coreimage.systemimage.tree import contents, editing, layout, pool

# Only what the tree makes itself is ever removed. In the pool that is everything.
_OURS = re.compile(
    r"(index-[0-9a-f]+\.json|version-[0-9]+\.(tar\.xz|json)|device-signing-[0-9a-f]+\.tar\.xz)"
    r"(\.asc)?\Z"
)
_SKIPPED = frozenset({"states", "gpg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is to be removed: states by number, files by path on disk, and their size in bytes."""

    states: Sequence[int]
    files: Sequence[Path]
    size: int


def collect(
    workspace: Workspace,
    *,
    now: datetime,
    grace: timedelta | None = None,
    dry_run: bool = False,
) -> Collection:
    """Remove what no state of the last `grace` names, and return it; `dry_run` only looks.

    The default of `grace` is that of coreimage.toml. A file that nothing names stays until it is
    older than that, too. Raises DataError, and removes nothing, when an index cannot be read.
    """
    if grace is None:
        grace = timedelta(days=workspace.settings.tree.grace_days)
    workspace.channel_tree.mkdir(parents=True, exist_ok=True)
    with editing.locked(workspace, purpose="image gc"):
        found = _plan(workspace, now=now, grace=grace)
        if not dry_run:
            _remove(workspace, found)
    return found


def _plan(workspace: Workspace, *, now: datetime, grace: timedelta) -> Collection:
    live = contents.live_states(workspace, now=now, grace=grace)
    serials = {state.serial for state in live}
    named = _named(workspace, live)
    border = (now - grace).timestamp()
    stray, size = [], 0
    for path in _files(workspace.channel_tree):
        found = path.stat()
        name = str(path.relative_to(workspace.channel_tree)).removesuffix(".asc")
        if name not in named and found.st_mtime <= border:
            stray.append(path)
            size += found.st_size
    current = max(serials, default=0)
    states = [each for each in layout.serials(workspace) if each not in serials and each < current]
    return Collection(states=states, files=stray, size=size)


def _named(workspace: Workspace, live: Sequence[layout.State]) -> set[str]:
    """Return everything that the states name, as paths below the tree, without signatures."""
    named: set[str] = set()
    for state in live:
        for entry in contents.entries(state):
            if entry.keyring:
                named.add(entry.keyring[1:])
            if entry.index[1:] in named:
                continue
            named.add(entry.index[1:])
            try:
                for file in contents.named_files(layout.local_path(workspace, entry.index)):
                    named.update((file.path[1:], pool.sidecar_path(file.path)[1:]))
            except FileNotFoundError as error:
                raise DataError(
                    f"state {state.serial} names '{entry.index}', which is not there",
                    hint="look at what else is missing with 'coreimage image missing'",
                ) from error
    return named


def _files(root: Path) -> Iterator[Path]:
    """Yield the files that the tree has made, in the pool and in the folders of devices."""
    for place, names, found in os.walk(root):
        folder = Path(place)
        names[:] = [name for name in names if not name.startswith(".")]
        if folder == root:
            names[:] = [name for name in names if name not in _SKIPPED]
        in_pool = folder.is_relative_to(root / "pool")
        for name in found:
            path = folder / name
            if (
                not name.startswith(".")
                and (in_pool or _OURS.match(name))
                and not path.is_symlink()
            ):
                yield path


def _remove(workspace: Workspace, found: Collection) -> None:
    root = workspace.channel_tree
    with files.scratch_directory(root) as scratch:
        for serial in found.states:
            # Moved first, so that a state is there as a whole or not at all.
            (root / "states" / str(serial)).rename(scratch / str(serial))
    folders = set()
    for path in found.files:
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    for folder in sorted(folders, reverse=True):
        files.remove_empty(folder, keep=[root, root / "pool"])
