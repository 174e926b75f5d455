"""Re-signing: every file of the tree, and each publication, is signed by the present keys.

Runs after a key change, while both the old and the new key are in the published keyrings: then
every signature, old or new, is good at any instant, and only signatures are replaced.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import BusyError, TrustError
from coreimage.lib import files, openpgp, trust
from coreimage.lib.gpg import Signer
from coreimage.lib.progress import Progress
from coreimage.model.keyring import KeyringType
from coreimage.systemimage import store
from coreimage.systemimage.keys import sums
from coreimage.systemimage.signing.service import SigningService
from coreimage.systemimage.tree import contents, editing, layout, pool, renewal

_ROUNDS = 20
_PAYLOAD = (KeyringType.DEVICE_SIGNING, KeyringType.IMAGE_SIGNING)


def resign_all(
    workspace: Workspace, *, now: datetime, progress: Progress, dry_run: bool = False
) -> list[str]:
    """Sign everything that the tree has with the present keys; return what was signed.

    What only earlier states name, or nothing any more, is signed too, if its signature is good:
    somebody may be reading it, and no file must keep an old key from being retired. Stores and the
    checksums of publications follow, as they are signed by image-signing too.

    Files that the present key has signed already are left alone, so that an interrupted run goes
    on where it stopped; channels.json is signed last, in a new state. Others may change the tree
    meanwhile: they sign with the present keys, too, and what they have signed is left alone.
    Raises TrustError when a present key is not in the published keyring yet, because clients would
    refuse what it signs, BusyError when others do not stop changing the tree.
    """
    signer = SigningService(workspace)
    if dry_run:
        due = _due(workspace, signer, now=now)
        return [*due, *_elsewhere(workspace, now=now, dry_run=True)]
    signed = _sign_until_done(workspace, signer, now=now, progress=progress)
    with editing.edit(workspace, now=now, purpose="image resign") as edit:
        edit.refresh()
    return [*signed, *_elsewhere(workspace, now=now)]


def _due(workspace: Workspace, signer: SigningService, *, now: datetime) -> dict[str, KeyringType]:
    """Return the files that the present key has not signed, with the level that signs them."""
    named = _levels(workspace)
    levels = {**_kept(workspace, named), **named}
    present = {level: signer.fingerprint(level) for level in set(levels.values())}
    _require_published(workspace, present, now=now)
    return {
        path: level
        for path, level in levels.items()
        if layout.signer_of(layout.local_path(workspace, path)) != present[level]
    }


def _sign_until_done(
    workspace: Workspace, signer: SigningService, *, now: datetime, progress: Progress
) -> list[str]:
    """Sign what is due. Whose key signs a file may change with any state, so it is found anew."""
    signed: list[str] = []
    for _ in range(_ROUNDS):
        serial = layout.current_serial(workspace)
        due = _due(workspace, signer, now=now)
        with progress.task("signing", len(due), unit="files") as task:
            for path, level in due.items():
                if _renew(workspace, path, level, signer, serial=serial):
                    signed.append(path)
                elif layout.current_serial(workspace) != serial:
                    break
                task.advance(1)
        if layout.current_serial(workspace) == serial:
            return signed
    raise BusyError(
        "the channels were changed again and again while everything was signed",
        hint="run it again when less is going on: what was signed stays so",
    )


def _renew(
    workspace: Workspace,
    path: str,
    level: KeyringType,
    signer: SigningService,
    *,
    serial: int | None,
) -> bool:
    data = layout.local_path(workspace, path)
    return renewal.renew(
        workspace,
        Path(f"{data}.asc"),
        sign=lambda made: signer.sign_published(data, made, level=level, path=path),
        present=lambda: signer.fingerprint(level),
        still=lambda: layout.current_serial(workspace) == serial,
    )


def _elsewhere(workspace: Workspace, *, now: datetime, dry_run: bool = False) -> list[str]:
    return [
        *store.resign(workspace, now=now, dry_run=dry_run),
        *sums.resign(workspace, now=now, dry_run=dry_run),
    ]


def _levels(workspace: Workspace) -> dict[str, KeyringType]:
    """Return every file that the current state names and the level that signs it.

    What several devices share is signed by the level that all of them trust.
    """
    levels: dict[str, KeyringType] = {}
    for path, level in _named(workspace):
        if levels.setdefault(path, level) is not level:
            levels[path] = KeyringType.IMAGE_SIGNING
    return levels


def _kept(workspace: Workspace, named: Mapping[str, KeyringType]) -> dict[str, KeyringType]:
    """Return the files that the current state does not name, with the level that has signed them.

    Those of stores are not among them, nor those that were not signed well.
    """
    root, levels = workspace.channel_tree, {}
    keys = Signer(workspace.gpg_home)
    owners = {each.fingerprint: level for level in _PAYLOAD for each in keys.keys(level)}
    for signature in layout.signatures(workspace):
        data = signature.with_suffix("")
        path = f"/{data.relative_to(root)}"
        level = owners.get(layout.signer_of(data))
        if path in named or path.startswith(store.ROOT) or level is None or not data.is_file():
            continue
        ring = keys.public_keyring(level)
        try:
            trust.verify(data, signature, keyring=ring, blacklist=None, what=path, level=level)
        except TrustError:
            continue
        levels[path] = level
    return levels


def _named(workspace: Workspace) -> Iterator[tuple[str, KeyringType]]:
    for channel in layout.read_channels(workspace).channels.values():
        for entry in channel.devices.values():
            level = layout.payload_level(entry)
            yield entry.index, level
            if entry.keyring is not None:
                yield entry.keyring["path"], KeyringType.IMAGE_SIGNING
            index = layout.local_path(workspace, entry.index)
            for path in {file.path for file in contents.named_files(index)}:
                yield path, level
                sidecar = pool.sidecar_path(path)
                if layout.local_path(workspace, sidecar).is_file():
                    yield sidecar, level


def _require_published(
    workspace: Workspace, present: Mapping[KeyringType, str], *, now: datetime
) -> None:
    """Refuse keys that clients do not know: the tree's, and those of devices' own keyrings."""
    with layout.open_chain(workspace, now=now) as chain:
        common = chain.keyring(KeyringType.IMAGE_SIGNING).fingerprints
    known = {KeyringType.IMAGE_SIGNING: [common], KeyringType.DEVICE_SIGNING: []}
    for channel in layout.read_channels(workspace).channels.values():
        for entry in channel.devices.values():
            if entry.keyring is not None:
                tarball = layout.local_path(workspace, entry.keyring["path"])
                known[KeyringType.DEVICE_SIGNING].append(_keys(workspace, tarball))
    for level, fingerprint in present.items():
        if not all(fingerprint in keys for keys in known[level]):
            raise TrustError(
                f"the present '{level}' key {openpgp.key_id(fingerprint)} is not in the published "
                "keyring",
                hint="publish the keyring with the old and the new key first",
            )


def _keys(workspace: Workspace, tarball: Path) -> tuple[str, ...]:
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with files.scratch_directory(workspace.cache) as scratch:
        level = KeyringType.DEVICE_SIGNING
        return trust.inspect_keyring(tarball, expected=level, directory=scratch).fingerprints
