"""Keys: the private keys of each level of the chain, and which of them signs.

A level is a directory of its own, so that the masters can be kept elsewhere:

    <home>/<level>/public.gpg           the binary public keyring; its last key signs
    <home>/<level>/next.gpg             the key that comes next, while it is being introduced
    <home>/<level>/retired.gpg          the public halves of the keys that have signed before
    <home>/<level>/private-keys-v1.d/   the private keys, in the agent's own format

The blacklist has a directory too, with the public halves of revoked keys. Nothing else lies there.
"""

from pathlib import Path

from coreimage.errors import CoreImageError, DataError, NotFoundError
from coreimage.lib import files, gpghome, openpgp
from coreimage.lib.gpghome import PRIVATE
from coreimage.model.keyring import KeyringType

KEY_BITS = {
    KeyringType.ARCHIVE_MASTER: 4096,
    KeyringType.IMAGE_MASTER: 4096,
    KeyringType.IMAGE_SIGNING: 2048,
    KeyringType.DEVICE_SIGNING: 2048,
}
"""RSA, because the gpg of old recovery systems knows nothing newer."""

_PUBLIC, _NEXT, _RETIRED = "public.gpg", "next.gpg", "retired.gpg"


class Signer:
    """The keys below `home`, a directory that only its owner may enter."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def has(self, level: KeyringType) -> bool:
        """Tell whether there is a key of a level."""
        return (self._home / level / _PUBLIC).is_file()

    def can_sign(self, level: KeyringType, fingerprint: str = "") -> bool:
        """Tell whether a private key is here too: those of the masters may be kept elsewhere."""
        if not self.has(level):
            return False
        wanted = fingerprint or self.fingerprint(level)
        found = [key for key in self._all_keys(level) if key.fingerprint == wanted]
        return any(self._private(level, key).is_file() for key in found)

    def public_keyring(self, level: KeyringType) -> Path:
        """Return the binary public keyring of a level; NotFoundError when there is no key."""
        if not self.has(level):
            raise NotFoundError(
                f"there is no '{level}' key in '{self._home}'",
                hint="make the keys with 'coreimage keyring generate'",
            )
        return self._home / level / _PUBLIC

    def fingerprint(self, level: KeyringType) -> str:
        """Return the fingerprint, in upper-case hex, of the key that signs for a level."""
        return openpgp.read_keys(self.public_keyring(level)).primary[-1]

    def keys(self, level: KeyringType) -> list[openpgp.PublicKey]:
        """Return the keys of a level, the one that signs last; none when there is no keyring."""
        return _read(self._home / level / _PUBLIC)

    def retired(self, level: KeyringType) -> list[openpgp.PublicKey]:
        """Return the keys that have signed for a level before."""
        return _read(self._home / level / _RETIRED)

    def next_key(self, level: KeyringType) -> openpgp.PublicKey | None:
        """Return the key that is being introduced, if there is one."""
        found = _read(self._home / level / _NEXT)
        return found[-1] if found else None

    def generate(self, level: KeyringType, *, owner: str = "coreimage") -> str:
        """Make the key of a level and return its fingerprint; an existing key is an error.

        The key is a primary RSA key without subkeys, without passphrase and without expiry.
        """
        if self.has(level):
            raise CoreImageError(f"there is a '{level}' key in '{self._home}' already")
        self._require_home()
        with files.scratch_directory(self._home) as scratch:
            made = scratch / level
            (made / PRIVATE).mkdir(mode=0o700, parents=True)
            made.chmod(0o700)
            files.write_atomically(made / _PUBLIC, _make_key(made, level, owner))
            files.fsync_tree(made)
            made.rename(self._home / level)
            files.fsync_directory(self._home)
        return self.fingerprint(level)

    def introduce(self, level: KeyringType, *, owner: str = "coreimage") -> str:
        """Make the next key of a level, beside the one that signs; return its fingerprint."""
        place = self.public_keyring(level).parent
        with files.scratch_directory(place) as made:
            (made / PRIVATE).mkdir(mode=0o700)
            public = _make_key(made, level, owner)
            (place / PRIVATE).mkdir(mode=0o700, exist_ok=True)
            for path in (made / PRIVATE).iterdir():
                path.rename(place / PRIVATE / path.name)
        files.fsync_tree(place / PRIVATE)
        return self._set_next(level, public)

    def adopt(self, level: KeyringType, keys: bytes, *, name: str) -> str:
        """Take the public half of a key that was made elsewhere as the next one, or the first.

        Raises DataError unless it is one RSA key that clients accept.
        """
        found = openpgp.split_keys(openpgp.dearmor(keys, name=name), name=name)
        if len(found) != 1 or found[0].bits < min(KEY_BITS.values()):
            raise DataError(
                f"'{name}' is not one RSA key of {min(KEY_BITS.values())} bits or more",
                hint=f"make one with: gpg --quick-gen-key 'NAME {level}' rsa{KEY_BITS[level]}"
                " cert,sign never",
            )
        if found[0].fingerprint in [key.fingerprint for key in self.keys(level)]:
            raise DataError(f"the key in '{name}' is a key of '{level}' already")
        return self._set_next(level, found[0].data)

    def promote(self, level: KeyringType) -> None:
        """Let the next key sign from now on; done already, nothing happens."""
        key = self.next_key(level)
        if key is None:
            return
        known = self.keys(level)
        if key.fingerprint not in [each.fingerprint for each in known]:
            self._write(level, _PUBLIC, b"".join(each.data for each in [*known, key]))
        (self._home / level / _NEXT).unlink()
        files.fsync_directory(self._home / level)

    def forget_next(self, level: KeyringType) -> None:
        """Drop the key that was being introduced."""
        (self._home / level / _NEXT).unlink(missing_ok=True)

    def retire(self, level: KeyringType, fingerprint: str) -> None:
        """Take a key out of a level's keyring. The private half stays where it is."""
        known = self.keys(level)
        gone = [key for key in known if key.fingerprint == fingerprint]
        before = [key for key in self.retired(level) if key.fingerprint != fingerprint]
        if gone:
            self._write(level, _RETIRED, b"".join(key.data for key in [*before, *gone]))
            self._write(level, _PUBLIC, b"".join(key.data for key in known if key not in gone))

    def ban(self, key: openpgp.PublicKey) -> None:
        """Remember that a key is revoked: its public half goes to the blacklist, for good."""
        known = self.keys(KeyringType.BLACKLIST)
        if key.fingerprint not in [each.fingerprint for each in known]:
            data = b"".join(each.data for each in [*known, key])
            self._write(KeyringType.BLACKLIST, _PUBLIC, data)

    def sign(self, data: Path, signature: Path, *, key: KeyringType, fingerprint: str = "") -> None:
        """Write the armoured detached signature of a file, replacing it in one step.

        `fingerprint` names one key of the level, by default the one that signs. Raises
        NotFoundError when the private key is not here, RightsError when it is locked.
        """
        made = self.signature(data, key=key, fingerprint=fingerprint or self.fingerprint(key))
        files.write_atomically(signature, made)

    def signature(self, data: Path, *, key: KeyringType, fingerprint: str) -> bytes:
        """Return the armoured detached signature of a file by one key of a level."""
        place = self.public_keyring(key).parent
        keyrings = [each for name in (_PUBLIC, _NEXT) if (each := place / name).is_file()]
        with gpghome.borrowed_home(place / PRIVATE, keyrings) as home:
            return home.sign(data, fingerprint)

    def _all_keys(self, level: KeyringType) -> list[openpgp.PublicKey]:
        key = self.next_key(level)
        return [*self.keys(level), *([key] if key else [])]

    def _private(self, level: KeyringType, key: openpgp.PublicKey) -> Path:
        return self._home / level / PRIVATE / f"{key.keygrip}.key"

    def _set_next(self, level: KeyringType, public: bytes) -> str:
        self._write(level, _NEXT if self.has(level) else _PUBLIC, public)
        return openpgp.keys_of(public, name=level).primary[-1]

    def _write(self, level: KeyringType, name: str, data: bytes) -> None:
        self._require_home()
        (self._home / level).mkdir(mode=0o700, exist_ok=True)
        files.write_atomically(self._home / level / name, data)

    def _require_home(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)


def _make_key(place: Path, level: KeyringType, owner: str) -> bytes:
    """Make a key pair, its private half in a directory, and return the public one."""
    ring = place / "made.gpg"
    ring.touch(mode=0o644)
    with gpghome.borrowed_home(place / PRIVATE, [ring]) as home:
        key = (f"{owner} {level}", f"rsa{KEY_BITS[level]}", "cert,sign", "never")
        home.run("--passphrase", "", "--pinentry-mode", "loopback", "--quick-gen-key", *key)
    # In a home of its own: the first one's agent may take a moment to end, and would take the
    # second gpg with it.
    with gpghome.borrowed_home(place / PRIVATE, [ring]) as home:
        public = home.run("--export")
    for stray in place.glob(f"{ring.name}*"):
        stray.unlink()
    return public


def _read(path: Path) -> list[openpgp.PublicKey]:
    return openpgp.split_keys(path.read_bytes(), name=str(path)) if path.is_file() else []
