"""Stores of OEM packages: publish archives under one signed index, renew it before it expires.

store/<id>/state -> states/<serial>          the switch, replaced by one rename
store/<id>/index.json, index.json.asc        fixed links through `state`
store/<id>/<name>_<version>-<sha256>.tar.xz  immutable, named by an index
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, NotFoundError
from coreimage.lib import files, trust
from coreimage.model.keyring import KeyringType
from coreimage.model.store import StoreIndex, StorePackage, check_store_id, index_path
from coreimage.systemimage.signing.policy import Purpose
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import editing, layout, renewal

ROOT = "/store/"
LIFETIME = timedelta(days=30)
"""How long an index may be used before whoever runs the store must renew it."""

_STATES_KEPT = 3
_LOCK_WAIT = 60.0
_NAMES = ("index.json", "index.json.asc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A finished archive of a package, ready to be published."""

    file: Path
    name: str
    version: str
    architecture: str
    description: str = ""


def read_store(workspace: Workspace, store: str) -> StoreIndex | None:
    """Return the visible index of a store, or None when nothing was published there."""
    path = _home(workspace, store) / "state/index.json"
    return StoreIndex.from_json(path.read_bytes()) if path.is_file() else None


def list_stores(workspace: Workspace) -> list[str]:
    """Return the stores that there are."""
    found = (workspace.channel_tree / "store").glob("*/state/index.json")
    return sorted(path.parents[1].name for path in found)


def publish(
    workspace: Workspace, store: str, archive: Archive, *, now: datetime
) -> tuple[StorePackage, bool]:
    """Publish an archive and return its entry, and whether it is new.

    The same archive again changes nothing; one that was withdrawn comes back. A version is never
    replaced by another content, not even a withdrawn one: raises CoreImageError.
    """
    digest = files.sha256_of(archive.file)
    entry = StorePackage(
        name=archive.name,
        version=archive.version,
        architecture=archive.architecture,
        path=f"/store/{check_store_id(store)}/{archive.name}_{archive.version}-{digest}.tar.xz",
        sha256=digest,
        size=archive.file.stat().st_size,
        description=archive.description,
    )
    home = _home(workspace, store)
    with files.lock(_lock(workspace, store), purpose="oem publish", wait=_LOCK_WAIT):
        before = read_store(workspace, store)
        known = before.find(entry.name, entry.version) if before else None
        withdrawn = dict(before.withdrawn) if before else {}
        if digest != (known.sha256 if known else withdrawn.pop(_version(entry), digest)):
            raise CoreImageError(
                f"store '{store}' has another {entry.name} {entry.version} already",
                hint="raise the version in meta/package.yaml: a published version never changes",
            )
        if known is not None:
            return known, False
        with files.scratch_directory(home) as scratch:
            staged = scratch / "package"
            shutil.copyfile(archive.file, staged)
            if files.sha256_of(staged) != digest:
                raise CoreImageError(f"'{archive.file}' has changed while it was published")
            _sign(workspace, staged, Purpose.PAYLOAD, name=entry.path)
            packages = [*(before.packages if before else ()), entry]
            _switch(workspace, store, packages, withdrawn, scratch, now, new={entry.path: staged})
    return entry, True


def withdraw(
    workspace: Workspace, store: str, name: str, version: str, *, now: datetime
) -> StorePackage:
    """Take a version out of the index and return what it was; its archive stays.

    Raises NotFoundError that names the versions there are.
    """
    with files.lock(_lock(workspace, store), purpose="oem withdraw", wait=_LOCK_WAIT):
        before = read_store(workspace, store)
        found = before.find(name, version) if before else None
        if before is None or found is None:
            known = [f"{each.name} {each.version}" for each in (before.packages if before else ())]
            raise NotFoundError(
                f"store '{store}' has no {name} {version}",
                hint=f"it has {', '.join(known) or 'nothing'}",
            )
        rest = [each for each in before.packages if each is not found]
        withdrawn = {**before.withdrawn, _version(found): found.sha256}
        with files.scratch_directory(_home(workspace, store)) as scratch:
            _switch(workspace, store, rest, withdrawn, scratch, now)
    return found


def refresh(workspace: Workspace, *, now: datetime, force: bool = False) -> list[str]:
    """Renew the indexes of which less than half the lifetime is left; return their stores."""
    renewed = []
    for store in list_stores(workspace):
        with files.lock(_lock(workspace, store), purpose="oem refresh", wait=_LOCK_WAIT):
            index = read_store(workspace, store)
            if index is None:
                continue
            if force or index.expires - now.timestamp() < LIFETIME.total_seconds() / 2:
                with files.scratch_directory(_home(workspace, store)) as scratch:
                    _switch(workspace, store, index.packages, index.withdrawn, scratch, now)
                renewed.append(store)
    return renewed


def _version(package: StorePackage) -> str:
    return f"{package.name} {package.version}"


def resign(workspace: Workspace, *, now: datetime, dry_run: bool = False) -> list[str]:
    """Sign what the present key has not signed in all stores; return the paths in the tree.

    Only what is signed well by another key of the published keyring is signed again.
    """
    level, found = KeyringType.IMAGE_SIGNING, []
    present = SigningService(workspace).fingerprint(level)
    for store in list_stores(workspace):
        home = _home(workspace, store)
        with (
            files.lock(_lock(workspace, store), purpose="image resign", wait=_LOCK_WAIT),
            layout.open_chain(workspace, now=now) as chain,
        ):
            for path in sorted([*home.glob("*.tar.xz"), *home.glob("states/*/index.json")]):
                signature = Path(f"{path}.asc")
                if layout.signer_of(path) == present:
                    continue
                if not trust.is_good(chain, path, signature, level=level):
                    continue
                name = f"/{path.relative_to(workspace.channel_tree)}"
                if dry_run or _renew(workspace, store, path, name):
                    found.append(name)
    return found


def _renew(workspace: Workspace, store: str, path: Path, name: str) -> bool:
    in_state = path.suffix == ".json"
    purpose = Purpose.RECORD if in_state else Purpose.PAYLOAD
    said = index_path(store) if in_state else name
    return renewal.renew(
        workspace,
        Path(f"{path}.asc"),
        sign=lambda made: _sign(workspace, path, purpose, name=said, signature=made),
        present=lambda: SigningService(workspace).fingerprint(KeyringType.IMAGE_SIGNING),
    )


def _home(workspace: Workspace, store: str) -> Path:
    return workspace.channel_tree / "store" / check_store_id(store)


def _lock(workspace: Workspace, store: str) -> Path:
    return workspace.state / f"locks/store-{store}.lock"


def _sign(
    workspace: Workspace,
    path: Path,
    purpose: Purpose,
    *,
    name: str,
    signature: Path | None = None,
) -> None:
    SigningService(workspace).sign(
        path,
        signature or Path(f"{path}.asc"),
        level=KeyringType.IMAGE_SIGNING,
        purpose=purpose,
        name=name,
    )


def _switch(
    workspace: Workspace,
    store: str,
    packages: Sequence[StorePackage],
    withdrawn: Mapping[str, str],
    scratch: Path,
    now: datetime,
    *,
    new: Mapping[str, Path] | None = None,
) -> None:
    """Publish a new state of the index: its files first, the link that names it last.

    `new` are signed archives, by the paths that they get in the tree.
    """
    home = _home(workspace, store)
    states = home / "states"
    states.mkdir(exist_ok=True)
    serials = sorted(int(path.name) for path in states.iterdir() if path.name.isdecimal())
    serial = max(serials, default=0) + 1
    index = StoreIndex(
        store=store,
        serial=serial,
        generated_at=int(now.timestamp()),
        expires=int((now + LIFETIME).timestamp()),
        packages=tuple(packages),
        withdrawn=withdrawn,
    )
    before = read_store(workspace, store)
    if before is not None:
        index = replace(index, extra=before.extra)
    text = index.to_json()
    StoreIndex.from_json(text)  # what clients would stumble over is refused here
    state = scratch / "state"
    state.mkdir()
    files.write_atomically(state / "index.json", text)
    _sign(workspace, state / "index.json", Purpose.RECORD, name=index_path(store))
    state.chmod(0o755)
    _show(workspace, store, state, serial, new or {})
    for old in serials[: -(_STATES_KEPT - 1)]:
        shutil.rmtree(states / str(old), ignore_errors=True)


def _show(
    workspace: Workspace, store: str, state: Path, serial: int, new: Mapping[str, Path]
) -> None:
    """Make a signed state visible, by the present key: it cannot go while we hold the tree."""
    home = _home(workspace, store)
    signed = {state / "index.json": (Purpose.RECORD, index_path(store))}
    signed |= {staged: (Purpose.PAYLOAD, path) for path, staged in new.items()}
    with editing.locked(workspace, purpose=f"store {store}"):
        present = SigningService(workspace).fingerprint(KeyringType.IMAGE_SIGNING)
        for data, (purpose, name) in signed.items():
            if layout.signer_of(data) != present:
                _sign(workspace, data, purpose, name=name)
        for path, staged in new.items():
            _move_in(staged, workspace.channel_tree / path[1:])
        files.fsync_tree(state)
        state.rename(home / "states" / str(serial))
        files.fsync_directory(home / "states")
        for name in _NAMES:
            if not (home / name).is_symlink():
                files.link_atomically(home / name, f"state/{name}")
        files.link_atomically(home / "state", f"states/{serial}")


def _move_in(staged: Path, final: Path) -> None:
    for source, target in ((Path(f"{staged}.asc"), Path(f"{final}.asc")), (staged, final)):
        with source.open("rb") as file:
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        source.rename(target)
    files.fsync_directory(final.parent)
