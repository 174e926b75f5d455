"""New keys for old: rotate, retire and revoke, each as one change of keyrings.

A new key is published beside the old one before it signs alone, so that whatever a device has seen
last, it can go on: it fetches the keyring anew when a signature is by a key that it does not know.
"""

from datetime import datetime, timedelta
from pathlib import Path

from coreimage.config import Workspace
from coreimage.errors import CoreImageError, DataError, NotFoundError, UsageError
from coreimage.lib import openpgp
from coreimage.lib.gpg import KEY_BITS, Signer
from coreimage.model.keyring import SIGNED_BY, KeyringType
from coreimage.systemimage.keys import keyrings, usage
from coreimage.systemimage.keys.asked import Asked, Verb, names_key
from coreimage.systemimage.keys.keychange import Change
from coreimage.systemimage.signing.service import SigningService


def rotate(workspace: Workspace, level: KeyringType, *, now: datetime) -> Change:
    """Introduce the next key of a level, and return the change that publishes it beside the old.

    A key that was introduced before and not published yet is taken again; of a rotation that was
    interrupted after it was published the rest is done, and the change is empty. Every keyring that
    the level signs is signed by the new key: a blacklist by the new image-master is what makes old
    devices fetch the new one.
    """
    store = Signer(workspace.gpg_home)
    if level in keyrings.settle(workspace):
        return Change(asked=Asked(verb=Verb.ROTATE, levels=[level]), tarballs={})
    _require_rotatable(workspace, store, level)
    if store.next_key(level) is None:
        _require_made_here(workspace, level)
        store.introduce(level)
    key = store.next_key(level)
    assert key is not None  # noqa: S101  introduced above
    asked = Asked(verb=Verb.ROTATE, levels=[level], key=key.fingerprint)
    tarballs = {
        level: keyrings.keyring_tarball(
            level, keyrings.public_keys(store, level) + key.data, now=now
        )
    }
    if level is KeyringType.ARCHIVE_MASTER:
        # The old one signs until it is retired: devices must have got the new one by then.
        return Change(asked=asked, tarballs=tarballs)
    tarballs |= _below(workspace, level)
    return Change(asked=asked, tarballs=tarballs, signers={level: key.fingerprint}, promote=[level])


def outline(workspace: Workspace, level: KeyringType) -> list[str]:
    """Return what `rotate` would do, in words, and do nothing."""
    store, signer = Signer(workspace.gpg_home), SigningService(workspace)
    _require_rotatable(workspace, store, level)
    following = store.next_key(level)
    if following is None:
        _require_made_here(workspace, level)
    what = f"{openpgp.key_id(following.fingerprint)}" if following else f"{KEY_BITS[level]} bits"
    above = SIGNED_BY.get(level, level)
    where = signer.place(above) or "(its key is not here)"
    lines = [
        f"{'introduce' if following else 'make'} the next key of '{level}', {what}",
        f"publish '{level}' with {len(store.keys(level)) + 1} keys, signed by '{above}' {where}",
    ]
    if level is not KeyringType.ARCHIVE_MASTER:
        lines += [
            f"sign the keyring '{each}' again, by the new key" for each in _below(workspace, level)
        ]
    return lines


def retire(
    workspace: Workspace, level: KeyringType, key: str, *, force: bool, now: datetime
) -> Change:
    """Return the change that takes an old key out of its keyring.

    `key` is a fingerprint or the end of one; empty means the oldest. Raises CoreImageError while
    something published is signed by it, unless `force`.
    """
    store = Signer(workspace.gpg_home)
    known = store.keys(level)
    following = store.next_key(level) if level is KeyringType.ARCHIVE_MASTER else None
    if not known or (len(known) == 1 and following is None):
        raise CoreImageError(
            f"'{level}' has one key, which signs: it cannot be retired",
            hint=f"introduce another one first, with 'coreimage keyring rotate {level}'",
        )
    old = _among(known, key, level) if key else known[0]
    if old == known[-1] and following is None:
        raise CoreImageError(
            f"the key {openpgp.key_id(old.fingerprint)} is the one that signs for '{level}'",
            hint=f"introduce another one first, with 'coreimage keyring rotate {level}'",
        )
    unused: dict[KeyringType, str] = {} if force else {level: old.fingerprint}
    usage.require_unused(workspace, unused)
    keys = keyrings.public_keys(store, level, without=old.fingerprint)
    if following is not None:
        keys += following.data
    tarballs: dict[KeyringType, bytes] = {level: keyrings.keyring_tarball(level, keys, now=now)}
    if following is not None:
        tarballs |= _below(workspace, level)
    return Change(
        asked=Asked(verb=Verb.RETIRE, levels=[level], key=old.fingerprint, force=force),
        tarballs=tarballs,
        signers={level: following.fingerprint} if following else {},
        promote=[level] if following else [],
        retire={level: old.fingerprint},
        unused=unused,
    )


def revoke(workspace: Workspace, key: str, *, force: bool, now: datetime) -> Change:
    """Put a key on the blacklist for good, and return the change that publishes that.

    The key leaves its own keyring too. Raises CoreImageError for a key that signs now, for one of
    archive-master, which devices have built in, and for one that something published is signed
    by, unless `force`: devices refuse that from then on.
    """
    store = Signer(workspace.gpg_home)
    level, found = _find(store, key)
    if level is KeyringType.ARCHIVE_MASTER:
        raise CoreImageError(
            "a key of 'archive-master' cannot be revoked: devices have it built in",
            hint="rotate and retire it, and give the new pinned keyring to every client",
        )
    if found.fingerprint == store.fingerprint(level):
        raise CoreImageError(
            f"the key {openpgp.key_id(found.fingerprint)} signs for '{level}' now",
            hint=f"replace it first: 'coreimage keyring rotate {level}'; then sign everything "
            "again with 'coreimage image resign'",
        )
    unused: dict[KeyringType, str] = {} if force else {level: found.fingerprint}
    usage.require_unused(workspace, unused)
    kind = KeyringType.BLACKLIST
    banned = keyrings.public_keys(store, kind, without=found.fingerprint) + found.data
    tarballs = {kind: keyrings.keyring_tarball(kind, banned, now=now)}
    if found in store.keys(level):
        kept = keyrings.public_keys(store, level, without=found.fingerprint)
        tarballs[level] = keyrings.keyring_tarball(level, kept, now=now)
    return Change(
        asked=Asked(verb=Verb.REVOKE, key=found.fingerprint, force=force),
        tarballs=tarballs,
        retire={level: found.fingerprint},
        unused=unused,
        ban=found.data,
    )


def renew(
    workspace: Workspace, levels: list[KeyringType], *, lifetime: timedelta | None, now: datetime
) -> Change:
    """Return the change that publishes keyrings again, with the keys there are and a new expiry."""
    store = Signer(workspace.gpg_home)
    tarballs = {
        level: keyrings.keyring_tarball(
            level, keyrings.public_keys(store, level), now=now, lifetime=lifetime
        )
        for level in levels
    }
    days = None if lifetime is None else lifetime.days
    return Change(asked=Asked(verb=Verb.PUBLISH, levels=levels, days=days), tarballs=tarballs)


def adopt(workspace: Workspace, level: KeyringType, file: Path) -> str:
    """Take a public key that was made elsewhere as the next one of a level; see Signer.adopt."""
    if level not in KEY_BITS:
        raise UsageError(f"'{level}' has no key of its own")
    return Signer(workspace.gpg_home).adopt(level, file.read_bytes(), name=str(file))


def fingerprint_in(file: Path) -> str:
    """Return the fingerprint of the one public key in a file; DataError when it is not one."""
    keys = openpgp.keys_of(openpgp.dearmor(file.read_bytes(), name=str(file)), name=str(file))
    if len(keys.primary) != 1:
        raise DataError(f"'{file}' is not one public key", hint="export it with 'gpg --export'")
    return keys.primary[0]


def _below(workspace: Workspace, level: KeyringType) -> dict[KeyringType, bytes]:
    """Return the published keyrings that a level signs, to be signed again as they are."""
    below = [kind for kind, above in SIGNED_BY.items() if above is level]
    places = {kind: keyrings.published(workspace, kind) for kind in below}
    return {kind: path.read_bytes() for kind, path in places.items() if path.is_file()}


def _require_rotatable(workspace: Workspace, store: Signer, level: KeyringType) -> None:
    if level not in KEY_BITS:
        raise UsageError(f"'{level}' has no key of its own")
    store.public_keyring(level)
    following = store.next_key(level)
    status = {each.level: each for each in keyrings.describe(workspace)}.get(level)
    if following and status and following.fingerprint in status.fingerprints:
        raise CoreImageError(
            f"the key {openpgp.key_id(following.fingerprint)} of '{level}' is being introduced",
            hint=f"when devices have it, retire the old one: 'coreimage keyring retire {level}'",
        )


def _require_made_here(workspace: Workspace, level: KeyringType) -> None:
    if level.value in {str(each) for each in workspace.settings.signing}:
        raise NotFoundError(
            f"the key of '{level}' is kept elsewhere, so the next one is made there",
            hint="export its public half there, and give it with --key FILE: "
            f"gpg --quick-gen-key 'NAME {level}' rsa{KEY_BITS[level]} cert,sign never",
        )


def _find(store: Signer, key: str) -> tuple[KeyringType, openpgp.PublicKey]:
    for level in KEY_BITS:
        for found in [*store.keys(level), *store.retired(level)]:
            if names_key(key, found.fingerprint):
                return level, found
    raise NotFoundError(
        f"there is no key '{key}'", hint="'coreimage keyring list' shows the keys there are"
    )


def _among(known: list[openpgp.PublicKey], key: str, level: KeyringType) -> openpgp.PublicKey:
    for found in known:
        if names_key(key, found.fingerprint):
            return found
    raise NotFoundError(
        f"'{level}' has no key '{key}'",
        hint="its keys are " + ", ".join(openpgp.key_id(each.fingerprint) for each in known),
    )
