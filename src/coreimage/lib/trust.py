"""Trust: who signed a file, whether that key may, and the chain of keyrings that says so.

Needs `gpgv` and nothing else, because devices use it too. Everything fails closed: what cannot
be checked is refused. Source: wiki.ubuntu.com/ImageBasedUpgrades/GPG.
"""

import hashlib
import io
import lzma
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.lib import files, gpgv, openpgp
from coreimage.model.keyring import SIGNED_BY, KeyringInfo, KeyringType

_MAX_SIGNATURE = 64 << 10
_MAX_TARBALL = 1 << 20
_MAX_UNPACKED = 4 << 20
_MAX_XZ_MEMORY = 128 << 20
_MEMBERS = ("keyring.gpg", "keyring.json")
_CHAIN = (KeyringType.IMAGE_MASTER, KeyringType.BLACKLIST, KeyringType.IMAGE_SIGNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature that was found good; fingerprint in upper-case hex."""

    fingerprint: str
    hash: str
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringFiles:
    """A keyring that may be used: what it says of itself, and its keys as a binary keyring.

    `sha256` is that of the tarball, `signer` the fingerprint that signed it, if it was verified.
    """

    info: KeyringInfo
    keyring: Path
    fingerprints: tuple[str, ...]
    sha256: str
    signer: str = ""


def verify(
    data: Path | BinaryIO,
    signature: Path,
    *,
    keyring: Path,
    blacklist: Path | None,
    what: str,
    level: str,
) -> Signature:
    """Return the signature of `data`, or raise TrustError that names the keys.

    Accepted is exactly one detached signature by a primary key of `keyring` (a binary keyring)
    that is not in the keyring `blacklist`, over SHA-256 or better. `what` is the file's name for
    people, `level` the keyring's. With an open file, the bytes that were verified can be read
    from it afterwards even when its name has come to mean another file.
    """
    if not signature.is_file() or not 0 < signature.stat().st_size <= _MAX_SIGNATURE:
        raise TrustError(
            f"'{what}' has no usable signature '{signature.name}'",
            hint=f"it must be signed by a key of the keyring '{level}'",
        )
    allowed = openpgp.read_keys(keyring).primary
    with ExitStack() as stack:
        file = stack.enter_context(data.open("rb")) if isinstance(data, Path) else data
        verdict = gpgv.check(file, signature, keyring=keyring)
    if not verdict.complaint and verdict.fingerprint not in allowed:
        raise _refusal(what, level, "the key is not in the keyring", verdict.fingerprint, allowed)
    if verdict.complaint:
        raise _refusal(what, level, verdict.complaint, verdict.fingerprint, allowed)
    if blacklist is not None:
        banned = openpgp.read_keys(blacklist)
        if verdict.fingerprint in banned.primary + banned.subkeys:
            rest = tuple(key for key in allowed if key not in banned.primary)
            raise _refusal(what, level, "the key is blacklisted", verdict.fingerprint, rest)
    return Signature(
        fingerprint=verdict.fingerprint,
        hash=verdict.hash,
        made_at=datetime.fromtimestamp(verdict.made_at, UTC),
    )


def _refusal(
    what: str, level: str, complaint: str, found: str, allowed: tuple[str, ...]
) -> TrustError:
    expected = ", ".join(openpgp.key_id(key) for key in allowed) or "none: the keyring is empty"
    by = f" by key {openpgp.key_id(found)}" if found else ""
    return TrustError(
        f"the signature{by} of '{what}' is refused: {complaint}",
        hint=f"expected a signature by a key of the keyring '{level}': {expected}",
    )


def load_keyring(
    tarball: Path,
    signature: Path,
    *,
    expected: KeyringType,
    keyring: Path,
    blacklist: Path | None,
    level: str,
    directory: Path,
    now: datetime,
    model: str | None = None,
) -> KeyringFiles:
    """Verify a keyring tarball, and only then unpack it to `directory`/<type>.gpg.

    The signature must be by a key of `keyring`, called `level`. Raises TrustError for a bad
    signature, another type or device model than expected, a keyring that has expired, and a
    tarball that holds anything but its two files.
    """
    content = _bounded(tarball)
    with tempfile.TemporaryFile() as copy:
        copy.write(content)
        copy.flush()
        signed = verify(
            copy,
            signature,
            keyring=keyring,
            blacklist=blacklist,
            what=f"{expected}.tar.xz",
            level=level,
        )
    found = _open_keyring(content, expected=expected, directory=directory)
    _require_usable(found.info, now=now, model=model)
    return replace(found, signer=signed.fingerprint)


def pin_keyring(tarball: Path, *, directory: Path, now: datetime) -> KeyringFiles:
    """Unpack the archive-master keyring: the root of trust, which nobody signs for us."""
    found = inspect_keyring(tarball, expected=KeyringType.ARCHIVE_MASTER, directory=directory)
    _require_usable(found.info, now=now, model=None)
    return found


def inspect_keyring(tarball: Path, *, expected: KeyringType, directory: Path) -> KeyringFiles:
    """Unpack a keyring to show what is in it: nothing says yet that it can be trusted."""
    return _open_keyring(_bounded(tarball), expected=expected, directory=directory)


def keyring_type(tarball: Path) -> KeyringType:
    """Return what a keyring tarball is for; TrustError when it is none. Nothing is verified."""
    try:
        return KeyringInfo.from_json(_unpack(_bounded(tarball))["keyring.json"]).type
    except DataError as error:
        raise TrustError(f"keyring tarball '{tarball.name}': {error.message}") from error


def is_keyring(tarball: Path) -> bool:
    """Tell whether a file is a keyring tarball that a client could take for one."""
    try:
        keyring_type(tarball)
    except TrustError:
        return False
    return True


def _bounded(tarball: Path) -> bytes:
    try:
        with tarball.open("rb") as file:
            content = file.read(_MAX_TARBALL + 1)
    except FileNotFoundError as error:
        raise TrustError(f"keyring tarball '{tarball}' does not exist") from error
    if len(content) > _MAX_TARBALL:
        raise TrustError(f"keyring tarball '{tarball}' is larger than {_MAX_TARBALL} bytes")
    return content


def _open_keyring(content: bytes, *, expected: KeyringType, directory: Path) -> KeyringFiles:
    try:
        members = _unpack(content)
        info = KeyringInfo.from_json(members["keyring.json"])
    except DataError as error:
        raise TrustError(f"keyring tarball '{expected}.tar.xz': {error.message}") from error
    if info.type is not expected:
        raise TrustError(f"keyring '{expected}.tar.xz' is of type '{info.type}'")
    path = directory / f"{expected}.gpg"
    files.write_atomically(path, members["keyring.gpg"])
    keys = openpgp.read_keys(path)
    if not keys.primary and expected is not KeyringType.BLACKLIST:
        raise TrustError(f"keyring '{expected}.tar.xz' holds no key")
    digest = hashlib.sha256(content).hexdigest()
    return KeyringFiles(info=info, keyring=path, fingerprints=keys.primary, sha256=digest)


def _require_usable(info: KeyringInfo, *, now: datetime, model: str | None) -> None:
    if info.model is not None and info.model != model:
        raise TrustError(
            f"keyring '{info.type}.tar.xz' is for device '{info.model}', not '{model}'"
        )
    if info.expiry is not None and info.expiry <= now:
        raise TrustError(
            f"keyring '{info.type}.tar.xz' expired on {info.expiry:%F %T} UTC",
            hint="renew it on the server with 'coreimage keyring generate', and check the clock",
        )


def _unpack(content: bytes) -> Mapping[str, bytes]:
    """Return the two members of a keyring tarball; raises DataError for anything else."""
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
        unpacked = decoder.decompress(content, max_length=_MAX_UNPACKED)
        if not decoder.eof or decoder.unused_data:
            raise DataError("it is cut short, too large, or followed by other data")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            members = tar.getmembers()
            if sorted(member.name for member in members) != sorted(_MEMBERS):
                raise DataError(f"its members are not exactly {' and '.join(_MEMBERS)}")
            return {member.name: _regular(tar, member) for member in members}
    except (lzma.LZMAError, tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"it is not a readable tar.xz: {error}") from error


def _regular(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() and member.size <= _MAX_UNPACKED else None
    if file is None:
        raise DataError(f"its member '{member.name}' is not a file of sensible size")
    return file.read()


class Chain:
    """The keyrings of a server, each verified by the one above it."""

    def __init__(
        self,
        keyrings: Mapping[KeyringType, KeyringFiles],
        *,
        directory: Path,
        now: datetime,
        revoked: frozenset[str] = frozenset(),
    ) -> None:
        self._revoked = revoked
        self._keyrings = dict(keyrings)
        self._directory = directory
        self._now = now

    @property
    def payload_level(self) -> KeyringType:
        """Whose keys sign indexes and payload: device-signing once such a keyring was added."""
        has_own = KeyringType.DEVICE_SIGNING in self._keyrings
        return KeyringType.DEVICE_SIGNING if has_own else KeyringType.IMAGE_SIGNING

    def keyring(self, level: KeyringType) -> KeyringFiles:
        """Return a verified keyring; TrustError when the server has none of that level."""
        if level not in self._keyrings:
            raise TrustError(f"there is no keyring '{level}'")
        return self._keyrings[level]

    def verify(
        self, data: Path | BinaryIO, signature: Path, *, level: KeyringType, what: str
    ) -> Signature:
        """Verify a file with the keys of one level; raises TrustError as `verify` does.

        channels.json takes image-signing. Indexes and payload take `payload_level`, for which
        the keys of image-signing do as well.
        """
        keyring = self.keyring(level).keyring
        if level is KeyringType.DEVICE_SIGNING:
            own, common = keyring, self.keyring(KeyringType.IMAGE_SIGNING).keyring
            keyring = self._directory / "payload.gpg"
            files.write_atomically(keyring, own.read_bytes() + common.read_bytes())
        blacklist = self.keyring(KeyringType.BLACKLIST).keyring
        made = verify(data, signature, keyring=keyring, blacklist=blacklist, what=what, level=level)
        if made.fingerprint in self._revoked:
            allowed = tuple(sorted(set(openpgp.read_keys(keyring).primary) - self._revoked))
            raise _refusal(what, level, "the key was revoked before", made.fingerprint, allowed)
        return made

    def add_device_signing(self, tarball: Path, signature: Path, device: str) -> None:
        """Trust the keyring that channels.json names for `device`, signed by image-signing."""
        self._keyrings[KeyringType.DEVICE_SIGNING] = load_keyring(
            tarball,
            signature,
            expected=KeyringType.DEVICE_SIGNING,
            keyring=self.keyring(KeyringType.IMAGE_SIGNING).keyring,
            blacklist=self.keyring(KeyringType.BLACKLIST).keyring,
            level=KeyringType.IMAGE_SIGNING,
            directory=self._directory,
            now=self._now,
            model=device,
        )


def is_good(chain: Chain, data: Path, signature: Path, *, level: KeyringType) -> bool:
    """Tell whether a file has the one good signature by a key of a level."""
    try:
        chain.verify(data, signature, level=level, what=str(data))
    except TrustError:
        return False
    return True


def open_chain(
    *,
    archive_master: Path,
    fetch: Callable[[str], Path],
    scratch: Path,
    now: datetime,
    revoked: frozenset[str] = frozenset(),
) -> Chain:
    """Fetch and verify the keyrings of a server, starting from the pinned archive-master.

    `fetch` takes a path on the server such as /gpg/blacklist.tar.xz and returns a local file.
    All keyrings are required, the blacklist too: a server that could leave it out could bring a
    revoked key back. A file that the server lacks is a TrustError; one that cannot be fetched
    raises what `fetch` raises. `scratch` is a directory for the unpacked keyrings, which must
    live as long as the chain. `revoked` are keys that were seen on a blacklist before: what they
    have signed is refused, also when the server has forgotten it.
    """
    pinned = pin_keyring(archive_master, directory=scratch, now=now)
    keyrings = {KeyringType.ARCHIVE_MASTER: pinned}
    for kind in _CHAIN:
        above = SIGNED_BY[kind]
        banned = keyrings.get(KeyringType.BLACKLIST)
        try:
            tarball = fetch(f"/gpg/{kind}.tar.xz")
            signature = fetch(f"/gpg/{kind}.tar.xz.asc")
        except NotFoundError as error:
            raise TrustError(
                f"the server has no usable keyring '{kind}': {error.message}",
                hint="without all keyrings nothing from this server can be trusted",
            ) from error
        found = load_keyring(
            tarball,
            signature,
            expected=kind,
            keyring=keyrings[above].keyring,
            blacklist=banned.keyring if banned else None,
            level=above,
            directory=scratch,
            now=now,
        )
        if found.signer in revoked:
            allowed = tuple(sorted(set(keyrings[above].fingerprints) - revoked))
            raise _refusal(tarball.name, above, "the key was revoked before", found.signer, allowed)
        keyrings[kind] = found
    return Chain(keyrings, directory=scratch, now=now, revoked=revoked)
