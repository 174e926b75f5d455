"""Editing the channel tree: one at a time, in transactions that readers see whole or not at all.

    state -> states/<serial>                       the switch, replaced by one rename
    states/<serial>/channels.json(.asc), gpg/      immutable
    channels.json, channels.json.asc, gpg          fixed links through `state`
    <channel>/<device>/index-<digest>.json(.asc)   immutable, named by channels.json
    <channel>/<device>/version-<N>.tar.xz(.asc)    immutable, named by an index
    pool/<prefix>-<sha256>.tar.xz(.asc)            immutable, named by an index

A reader that must have a pair of one state opens the directory `state` and reads both files
through it. Of an immutable file, the signature may be replaced by another one that is good, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.lib import files
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import followers
from coreimage.systemimage.tree.transaction import Edit

_LOCK_WAIT = 600.0


@contextmanager
def locked(workspace: Workspace, *, purpose: str) -> Iterator[None]:
    """Hold the tree, so that nobody else changes it; others wait for their turn."""
    with files.lock(workspace.state / "locks/system-image.lock", purpose=purpose, wait=_LOCK_WAIT):
        yield


@contextmanager
def edit(
    workspace: Workspace,
    *,
    now: datetime,
    purpose: str,
    dry_run: bool = False,
    signer: SigningService | None = None,
) -> Iterator[Edit]:
    """Yield a transaction; when the block ends well, its changes become visible in one step.

    Others wait for their turn. An exception in the block leaves the tree as it was. A block that
    changed nothing publishes nothing, and `dry_run` finds out what would change. `signer` is the
    workspace's unless another one is given.
    """
    tree = workspace.channel_tree
    tree.mkdir(parents=True, exist_ok=True)
    with locked(workspace, purpose=purpose), files.scratch_directory(tree) as scratch:
        _sweep_links(tree)
        transaction = Edit(
            workspace,
            scratch=scratch,
            now=now,
            signer=signer or SigningService(workspace),
            dry_run=dry_run,
        )
        yield transaction
        followers.bring_along(transaction)
        if not dry_run:
            transaction.commit()


def _sweep_links(tree: Path) -> None:
    """Remove links that a killed transaction had not yet renamed; we hold the lock."""
    for path in tree.glob(".scratch-*"):
        if path.is_symlink():
            path.unlink()
