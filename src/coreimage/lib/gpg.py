"""Keys and signatures: one private key for each level of the chain, used through `gpg`.

A level is a directory of its own, so that the masters can be kept elsewhere:

    <home>/<level>/public.gpg           the binary public keyring
    <home>/<level>/private-keys-v1.d/   the private keys, in the agent's own format

Nothing else lies there. Each use gets a short-lived GnuPG home and an agent of its own, because
an agent's socket must have a short path, and an agent that two processes share ends under the
hands of one of them.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError, NotFoundError
from coreimage.lib import files, openpgp, run
from coreimage.model.keyring import KeyringType

KEY_BITS = {
    KeyringType.ARCHIVE_MASTER: 4096,
    KeyringType.IMAGE_MASTER: 4096,
    KeyringType.IMAGE_SIGNING: 2048,
    KeyringType.DEVICE_SIGNING: 2048,
}
"""RSA, because the gpg of old recovery systems knows nothing newer."""

_PUBLIC = "public.gpg"
_PRIVATE = "private-keys-v1.d"
# A socket address holds 107 characters: this, our directory (22), and "/S.gpg-agent.browser".
_LONGEST_PARENT = 60
# In seconds; a large key on a slow machine is made in a fraction of this.
_TIMEOUT = 900.0


class Signer:
    """The private keys below `home`, a directory that only its owner may enter."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def has(self, level: KeyringType) -> bool:
        """Tell whether there is a key of a level."""
        return (self._home / level / _PUBLIC).is_file()

    def can_sign(self, level: KeyringType) -> bool:
        """Tell whether the private key is here too: those of the masters may be kept elsewhere."""
        return self.has(level) and any((self._home / level / _PRIVATE).glob("*.key"))

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

    def generate(self, level: KeyringType, *, owner: str = "coreimage") -> str:
        """Make the key of a level and return its fingerprint; an existing key is an error.

        The key is a primary RSA key without subkeys, without passphrase and without expiry.
        """
        if self.has(level):
            raise CoreImageError(f"there is a '{level}' key in '{self._home}' already")
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)
        with files.scratch_directory(self._home) as scratch:
            made = scratch / level
            (made / _PRIVATE).mkdir(mode=0o700, parents=True)
            made.chmod(0o700)
            (made / _PUBLIC).touch(mode=0o644)
            with _gpg_home(made) as home:
                key = (f"{owner} {level}", f"rsa{KEY_BITS[level]}", "cert,sign", "never")
                home.run("--passphrase", "", "--quick-gen-key", *key)
            # In a home of its own: the first one's agent may take a moment to end, and would
            # take the second gpg with it.
            with _gpg_home(made) as home:
                public = home.run("--export")
            for stray in made.glob(f"{_PUBLIC}*"):
                stray.unlink()
            files.write_atomically(made / _PUBLIC, public)
            files.fsync_tree(made)
            made.rename(self._home / level)
            files.fsync_directory(self._home)
        return self.fingerprint(level)

    def sign(self, data: Path, signature: Path, *, key: KeyringType) -> None:
        """Write the armoured detached signature of a file, replacing it in one step."""
        public = self.public_keyring(key)
        signer = self.fingerprint(key)
        with _gpg_home(public.parent) as home:
            made = home.run(
                *("--digest-algo", "SHA512"),
                *("--local-user", f"{signer}!"),
                *("--armor", "--output", "-"),
                *("--detach-sign", data.absolute()),
            )
        files.write_atomically(signature, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GpgHome:
    """How to run gpg on the keys of one level, in a home that lives for one operation."""

    home: Path
    level: Path

    def run(self, *words: str | Path) -> bytes:
        """Run gpg beside an agent and return what it wrote to standard output.

        The agent is a child that watches gpg and ends soon after it, whatever happens to us.
        Output goes to files: the agent may keep a pipe open, whose end would never come.
        """
        agent: list[str | Path] = [
            "gpg-agent",
            "--homedir",
            self.home,
            "--no-options",
            "--daemon",
            "--",
        ]
        gpg: list[str | Path] = [
            run.require_program("gpg"),
            *("--homedir", self.home),
            *("--batch", "--no-tty", "--no-options", "--no-permission-warning", "--no-autostart"),
            "--no-default-keyring",
            *("--keyring", self.level / _PUBLIC),
            *("--trust-model", "always"),
            *("--cert-digest-algo", "SHA512"),
            *words,
        ]
        out, log = self.home / "out", self.home / "log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            ended = run.run(
                [*agent, *gpg], stdout=stdout, stderr=stderr, timeout=_TIMEOUT, check=False
            )
        self.stop_agent()
        if ended.status:
            raise run.failure(
                run.Completed(
                    argv=tuple(str(word) for word in gpg),
                    status=ended.status,
                    stderr=log.read_bytes(),
                )
            )
        return out.read_bytes()

    def stop_agent(self) -> None:
        for option in (("--kill", "gpg-agent"), ("--remove-socketdir",)):
            run.run(["gpgconf", "--homedir", self.home, *option], check=False)


@contextmanager
def _gpg_home(level: Path) -> Iterator[_GpgHome]:
    with files.scratch_directory(_short_parent()) as home:
        (home / _PRIVATE).symlink_to((level / _PRIVATE).resolve())
        (home / "common.conf").touch()  # no key box daemon, whatever the system's default
        try:
            yield _GpgHome(home=home, level=level.resolve())
        finally:
            # Once more, for the case that an exception came before it was told to stop.
            run.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)


def _short_parent() -> Path:
    """Return a directory for temporary files whose path is short enough for a socket in it."""
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108  made private below
        parent = Path(name)
        if len(os.fsencode(parent)) <= _LONGEST_PARENT and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise CoreImageError(
        "there is no writable directory with a short path for the agent of gpg",
        hint="set TMPDIR to one of at most 60 characters",
    )
