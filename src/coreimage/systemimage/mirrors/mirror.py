"""Mirrors: a copy of a channel tree, or of some of its channels, that is valid at every instant.

What clients are led to comes before what leads them there: payload, indexes, and last the switch
of the link `state`. Everything is verified on the way, from the pinned archive-master; the signed
`channels.json` stays as it is. Nothing that clients of an earlier state may still ask for is
removed before a grace time is over.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.errors import CoreImageError, TrustError
from coreimage.lib import files, trust
from coreimage.lib.fetch import is_url
from coreimage.lib.progress import Progress
from coreimage.model.channels import Channels
from coreimage.model.index import ImageFile
from coreimage.systemimage.mirrors.plan import MirrorPlan, Wish, make_plan
from coreimage.systemimage.mirrors.remote import Remote, open_remote
from coreimage.systemimage.tree import switch

_RECORD = ".mirror"
_DOWNLOADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorResult:
    """What a mirror has now: the number of its state, what came, what went, what it lacks.

    `left_out` are the devices, as channel and device, that channels.json names and the mirror
    does not have; their clients must ask the origin.
    """

    serial: int
    changed: bool
    fetched: int
    fetched_bytes: int
    removed: int
    left_out: Sequence[tuple[str, str]]


def mirror(
    source: str,
    target: Path,
    *,
    archive_master: Path,
    wish: Wish,
    grace: timedelta,
    progress: Progress,
    now: datetime,
    check: bool = False,
    allow_unfresh: bool = False,
    dry_run: bool = False,
) -> MirrorResult:
    """Make `target`, a folder, show what `source`, a server or a folder, shows now.

    A run that broke off goes on where it stopped. What is there already was verified when it
    came; `check` verifies all of it again. With `dry_run` the result tells what would be done, and
    nothing of it is. Raises NotFoundError for channels and devices that
    there are not, TrustError for what cannot be traced to `archive_master`, is older than what
    the mirror has, or has expired; UnavailableError; the mirror is as before then.
    """
    _require_ours(target)
    with _held(target, source, dry_run=dry_run) as scratch:
        tree = open_remote(
            source,
            archive_master=archive_master,
            scratch=scratch,
            now=now,
            allow_unfresh=allow_unfresh,
        )
        serial = _next_state(tree.channels, tree.copy_of("/channels.json"), target)
        check = check or _keys_changed(tree.channels, target)
        plan = make_plan(tree, target, wish, check=check)
        changed, removed = serial != switch.current_serial(target), 0
        if not dry_run:
            _bring_payload(tree, target, plan, progress)
            for final, signature in _bring_signatures(tree, target, plan, scratch).items():
                signature.replace(final)
            _bring_metadata(target, plan)
            _switch(tree, target, serial, scratch)
            removed = _remove_orphans(target, plan.wanted, serial, grace=grace, now=now)
    return MirrorResult(
        serial=serial,
        changed=changed,
        fetched=len(plan.payload),
        fetched_bytes=sum(file.size for file, _ in plan.payload),
        removed=removed,
        left_out=plan.left_out,
    )


@contextmanager
def _held(target: Path, source: str, *, dry_run: bool) -> Iterator[Path]:
    """Yield a scratch folder, in a mirror that is ours alone; `dry_run` leaves the mirror alone."""
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    record = target / _RECORD
    record.mkdir(parents=True, exist_ok=True)
    with (
        files.lock(record / "lock", purpose=f"mirror of {source}"),
        files.scratch_directory(target) as scratch_beside,
    ):
        yield scratch_beside


def _require_ours(target: Path) -> None:
    """Refuse a folder that was not made by us: what we do not know of there would be removed."""
    if target.exists() and any(target.iterdir()) and not (target / _RECORD).is_dir():
        raise CoreImageError(
            f"'{target}' is not a mirror, and not empty",
            hint="choose another folder: in a mirror, files that the origin does not have go away",
        )


def _next_state(channels: Channels, copy: Path, target: Path) -> int:
    """Return the number of the state to show; raises TrustError for one older than we show."""
    current = switch.current_serial(target) or 0
    shown = target / "state/channels.json"
    same = current > 0 and shown.read_bytes() == copy.read_bytes()
    if channels.serial is None:  # an old server's: they are counted here
        return current if same else current + 1
    if channels.serial < current:
        raise TrustError(
            f"the origin offers state {channels.serial}, but '{target}' has state {current}",
            hint="it is replayed, or was set up anew; then mirror it into an empty folder",
        )
    if channels.serial == current and not same:
        raise TrustError(
            f"the origin offers another state {current} than the one in '{target}'",
            hint="two servers sign with the same keys, or a state was published twice",
        )
    return channels.serial


def _keys_changed(channels: Channels, target: Path) -> bool:
    """Tell whether signatures that are there may have become bad."""
    shown = target / "state/channels.json"
    if not shown.exists():
        return False
    return Channels.from_json(shown.read_bytes()).keyrings != channels.keyrings


def _bring_payload(tree: Remote, target: Path, plan: MirrorPlan, progress: Progress) -> None:
    """Bring the files that are missing, several at a time from a server."""
    total = sum(file.size for file, _ in plan.payload)
    files.require_space(target, total, purpose="the mirror")
    parts = target / _RECORD / "parts"
    parts.mkdir(exist_ok=True)
    workers = _DOWNLOADS if is_url(tree.name) else 1
    with (
        progress.task(f"bringing {len(plan.payload)} files", total) as task,
        ThreadPoolExecutor(workers) as pool,
    ):

        def bring(file: ImageFile, chain: trust.Chain) -> None:
            part = parts / file.checksum
            tree.payload(file, part, chain, task=task)
            final = target / file.path[1:]
            final.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{part}.asc").replace(f"{final}.asc")
            part.replace(final)
            files.fsync_directory(final.parent)

        try:
            for done in [pool.submit(bring, *each) for each in plan.payload]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shutil.rmtree(parts)


def _bring_signatures(
    tree: Remote, target: Path, plan: MirrorPlan, scratch: Path
) -> dict[Path, Path]:
    """Bring the signatures of files that were signed anew; return where they belong and are.

    Clients of the state that is visible may not know their keys: they are put there at the end.
    """
    brought = {}
    for number, (file, chain) in enumerate(plan.signatures):
        data, signature = target / file.path[1:], scratch / f"signature-{number}.asc"
        tree.signature(file, data, signature, chain)
        brought[Path(f"{data}.asc")] = signature
    return brought


def _bring_metadata(target: Path, plan: MirrorPlan) -> None:
    """Bring indexes and the keyrings of devices, signatures first."""
    for path in sorted(plan.metadata, key=lambda each: not each.endswith(".asc")):
        _place(plan.metadata[path], target / path[1:])


def _place(copy: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(final, copy.read_bytes())


def _switch(tree: Remote, target: Path, serial: int, scratch: Path) -> None:
    """Show the new state in one step, if it is another one than before."""
    if serial == switch.current_serial(target):
        return
    state = scratch / "state"
    (state / "gpg").mkdir(parents=True)
    for path in tree.state_files():
        _place(tree.copy_of(path), state / path[1:])
    switch.show(target, state, serial)


def _remove_orphans(
    target: Path, wanted: frozenset[str], serial: int, *, grace: timedelta, now: datetime
) -> int:
    """Remove what no index names for longer than the grace time; return how many files went."""
    record = target / _RECORD / "orphans.json"
    try:
        known = {str(path): float(since) for path, since in json.loads(record.read_bytes()).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        known = {}
    found = {
        path: known.get(path, now.timestamp())
        for path in _published(target)
        if path not in wanted and not path.startswith(f"/states/{serial}/")
    }
    limit = (now - grace).timestamp()
    due = [path for path, since in found.items() if since <= limit]
    for path in due:
        (target / path[1:]).unlink(missing_ok=True)
        files.remove_empty((target / path[1:]).parent, keep=[target])
    files.write_atomically(
        record, json.dumps({path: found[path] for path in found if path not in due})
    )
    return len(due)


def _published(target: Path) -> Iterator[str]:
    """Yield the root-relative paths of the files that clients can ask for."""
    for path in target.rglob("*"):
        inside = path.relative_to(target)
        if path.is_file() and not path.is_symlink() and not inside.parts[0].startswith("."):
            yield f"/{inside}"
