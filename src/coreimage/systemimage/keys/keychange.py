"""A change of keyrings: published in one transaction, or prepared here and signed elsewhere.

What a prepared change will publish stays in the workspace, in `state/keyring-change`; the folder
that goes to the machine with the key has copies, and only signatures are taken back from it.
"""

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, UsageError
from coreimage.lib import files, openpgp
from coreimage.lib.gpg import Signer
from coreimage.model.document import parse_object
from coreimage.model.keyring import SIGNED_BY, KeyringType
from coreimage.systemimage.keys import keyrings, usage
from coreimage.systemimage.keys.asked import Asked, Verb, require_prepared
from coreimage.systemimage.signing.service import SigningService

_RECORD = "change.json"
_SCRIPT = "sign.sh"
_MAX_SIGNATURE = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Keyrings to publish together, and what becomes of our own keys when they are visible.

    `signers` names, for a level, the key that signs in this change when it is not the usual one;
    `retire` the key that leaves each level; `promote` the levels whose next key signs from now on;
    `unused` are keys by which nothing published may be signed; `ban` is the public half of a key
    that is revoked.
    """

    asked: Asked
    tarballs: Mapping[KeyringType, bytes]
    signers: Mapping[KeyringType, str] = field(default_factory=dict)
    promote: Sequence[KeyringType] = ()
    retire: Mapping[KeyringType, str] = field(default_factory=dict)
    unused: Mapping[KeyringType, str] = field(default_factory=dict)
    ban: bytes = b""

    @property
    def purpose(self) -> str:
        """The command in one line."""
        return self.asked.purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSign:
    """A file that must be signed elsewhere, and by which key."""

    name: str
    level: KeyringType
    fingerprint: str

    @property
    def command(self) -> str:
        """The line for the machine with the key."""
        key = shlex.quote(f"{self.fingerprint}!")
        return (
            f"gpg --digest-algo SHA512 --armor --yes --local-user {key} "
            f"--output {self.name}.asc --detach-sign {self.name}"
        )


def apply(
    workspace: Workspace,
    change: Change,
    *,
    now: datetime,
    prepared: Mapping[str, bytes] | None = None,
) -> None:
    """Publish a change; afterwards our own keys follow, or at the next run if we are killed.

    Only what is revoked is remembered first: whatever happens then, it is never forgotten.
    """

    def begin() -> None:
        usage.require_unused(workspace, change.unused)
        _ban(workspace, change)

    keyrings.publish(
        workspace,
        change.tarballs,
        now=now,
        purpose=change.purpose,
        signer=SigningService(workspace, keys=change.signers, prepared=prepared),
        begin=begin,
    )
    store = Signer(workspace.gpg_home)
    for level in change.promote:
        store.promote(level)
    for level, fingerprint in change.retire.items():
        store.retire(level, fingerprint)


def carry_out(
    workspace: Workspace, make: Callable[[], Change], *, directory: Path | None, now: datetime
) -> tuple[Change, Sequence[ToSign]]:
    """Make a change with the keys locked, and publish it, or prepare it in a folder.

    Returns the change and what must be signed elsewhere.
    """
    with keyrings.locked(workspace, "keyring"):
        keyrings.pin_published(workspace, now=now)
        change = make()
        if directory is not None:
            return change, prepare(workspace, change, directory)
        apply(workspace, change, now=now)
        return change, ()


def _ban(workspace: Workspace, change: Change) -> None:
    if change.ban:
        for key in openpgp.split_keys(change.ban, name=change.purpose):
            Signer(workspace.gpg_home).ban(key)


def needed(workspace: Workspace, change: Change) -> list[ToSign]:
    """Return what cannot be signed here."""
    signer = SigningService(workspace, keys=change.signers)
    return [
        ToSign(name=f"{level}.tar.xz", level=above, fingerprint=signer.fingerprint(above))
        for level in change.tarballs
        if not signer.place(above := SIGNED_BY.get(level, level))
    ]


def prepare(workspace: Workspace, change: Change, directory: Path) -> list[ToSign]:
    """Write what must be signed elsewhere to a new folder, and keep the change for `finish`.

    Raises UsageError when everything can be signed here. An earlier prepared change is replaced.
    """
    waiting = needed(workspace, change)
    if not waiting:
        raise UsageError(
            "every key that is needed can sign here", hint="run the command without --prepare"
        )
    if directory.exists():
        raise CoreImageError(f"'{directory}' exists already", hint="name a new folder")
    _ban(workspace, change)
    _keep(workspace, change)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with files.scratch_directory(directory.parent, mode=0o755) as scratch:
        for each in waiting:
            level = KeyringType(each.name.removesuffix(".tar.xz"))
            (scratch / each.name).write_bytes(change.tarballs[level])
        (scratch / _SCRIPT).write_text(script(change.purpose, waiting))
        files.fsync_tree(scratch)
        scratch.rename(directory)
    files.fsync_directory(directory.parent)
    return waiting


def script(purpose: str, waiting: Sequence[ToSign]) -> str:
    """Return the script that signs what is in its folder, for the machine with the key."""
    lines = ["#!/bin/sh", f"# {purpose}: run this where the private keys are.", "set -eu"]
    lines.append('cd "$(dirname "$0")"')
    for each in waiting:
        lines += [f"# {each.name}, with the key of {each.level}:", each.command]
    return "\n".join([*lines, ""])


def finish(
    workspace: Workspace, directory: Path, *, asked: Asked, now: datetime, dry_run: bool = False
) -> Change:
    """Publish the prepared change with the signatures of a folder, and return it.

    A dry run verifies the signatures and publishes nothing. Raises UsageError when something else
    was prepared than is asked for, NotFoundError when nothing is, or a signature is missing,
    TrustError when one is not by the right key over the right bytes, CoreImageError when the
    keyrings have changed since.
    """
    change, base = _kept(workspace)
    require_prepared(asked, change.asked)
    if base != _published(workspace):
        raise CoreImageError(
            f"the published keyrings have changed since '{change.purpose}' was prepared",
            hint="prepare it again, so that nothing is lost",
        )
    prepared, signer = {}, SigningService(workspace, keys=change.signers)
    for each in needed(workspace, change):
        signature = directory / f"{each.name}.asc"
        if not signature.is_file() or signature.stat().st_size > _MAX_SIGNATURE:
            raise NotFoundError(
                f"there is no signature '{signature}' by the key of '{each.level}', "
                f"{openpgp.key_id(each.fingerprint)}",
                hint=f"run '{_SCRIPT}' of that folder where the key is",
            )
        made, data = signature.read_bytes(), _place(workspace) / each.name
        if dry_run:
            signer.require_good(data, made, level=each.level)
        prepared[files.sha256_of(data)] = made
    if dry_run:
        return change
    apply(workspace, change, now=now, prepared=prepared)
    shutil.rmtree(_place(workspace))
    return change


def _place(workspace: Workspace) -> Path:
    return workspace.state / "keyring-change"


def _published(workspace: Workspace) -> dict[str, str]:
    """Return the digests of the published keyrings."""
    paths = {level: keyrings.published(workspace, level) for level in KeyringType}
    return {level.value: files.sha256_of(path) for level, path in paths.items() if path.is_file()}


def _keep(workspace: Workspace, change: Change) -> None:
    record = {
        "asked": asdict(change.asked),
        "levels": list(change.tarballs),
        "signers": dict(change.signers),
        "promote": list(change.promote),
        "retire": dict(change.retire),
        "unused": dict(change.unused),
        "base": _published(workspace),
    }
    with files.scratch_directory(workspace.state) as scratch:
        for level, tarball in change.tarballs.items():
            (scratch / f"{level}.tar.xz").write_bytes(tarball)
        (scratch / _RECORD).write_text(json.dumps(record, indent=4) + "\n")
        files.fsync_tree(scratch)
        if _place(workspace).exists():
            shutil.rmtree(_place(workspace))
        scratch.rename(_place(workspace))
    files.fsync_directory(workspace.state)


def _kept(workspace: Workspace) -> tuple[Change, dict[str, str]]:
    place = _place(workspace)
    if not (place / _RECORD).is_file():
        raise NotFoundError(
            "no change of keyrings is prepared", hint="prepare one with --prepare DIR"
        )
    try:
        record = parse_object((place / _RECORD).read_bytes(), name=str(place / _RECORD))
        levels = [KeyringType(each) for each in record["levels"]]
        change = Change(
            asked=_asked(record["asked"]),
            tarballs={level: (place / f"{level}.tar.xz").read_bytes() for level in levels},
            signers=_by_level(record["signers"]),
            promote=[KeyringType(each) for each in record["promote"]],
            retire=_by_level(record["retire"]),
            unused=_by_level(record.get("unused", {})),
        )
        return change, record["base"]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"'{place}' is damaged: {error}", hint="prepare the change again"
        ) from error


def _asked(record: Mapping[str, Any]) -> Asked:
    levels = [KeyringType(each) for each in record["levels"]]
    return Asked(**{**record, "verb": Verb(record["verb"]), "levels": levels})


def _by_level(record: Mapping[str, str]) -> dict[KeyringType, str]:
    return {KeyringType(level): fingerprint for level, fingerprint in record.items()}
