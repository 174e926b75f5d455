"""Running `gpg` on private keys: in a home that lives for one operation, or in somebody's own.

An agent's socket must have a short path, and an agent that two processes share ends under the hands
of one of them; hence a short-lived home for each use of our own keys.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError, NotFoundError, RightsError
from coreimage.lib import files, openpgp, run

PRIVATE = "private-keys-v1.d"
# A socket address holds 107 characters: this, our directory (22), and "/S.gpg-agent.browser".
_LONGEST_PARENT = 60
# In seconds; a large key on a slow machine is made in a fraction of this.
_TIMEOUT = 900.0
_STATUS = b"[GNUPG:] FAILURE sign "
# Codes of libgpg-error, without their source in the upper bits.
_CODE = 0xFFFF
_NO_SECRET_KEY = 17
_BAD_PASSPHRASE, _NO_PASSPHRASE, _NO_PIN_ENTRY, _CANCELLED = 11, 31, 85, 99
_FULLY_CANCELLED, _NO_TERMINAL = 198, 0x8066
_LOCKED = frozenset(
    {_BAD_PASSPHRASE, _NO_PASSPHRASE, _NO_PIN_ENTRY, _CANCELLED, _FULLY_CANCELLED, _NO_TERMINAL}
)
_COMMON = ("--batch", "--no-tty", "--no-permission-warning")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpgHome:
    """How to run gpg on the keys of one level; `keyrings` have their public halves."""

    home: Path
    keyrings: Sequence[Path]

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
            *(*_COMMON, "--no-options", "--no-autostart"),
            *("--pinentry-mode", "error"),
            "--no-default-keyring",
            *(word for keyring in self.keyrings for word in ("--keyring", keyring)),
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

    def sign(self, data: Path, fingerprint: str) -> bytes:
        """Return the armoured detached signature of a file by one key; see `refused`."""
        status = self.home / "status"
        status.unlink(missing_ok=True)
        try:
            return self.run("--status-file", status, *signing_words(data, fingerprint))
        except CoreImageError as error:
            said = status.read_bytes() if status.exists() else b""
            raise refused(error, said, fingerprint) from error

    def stop_agent(self) -> None:
        """Tell the agent to end, if it has not."""
        for option in (("--kill", "gpg-agent"), ("--remove-socketdir",)):
            run.run(["gpgconf", "--homedir", self.home, *option], check=False)


def signing_words(data: Path, fingerprint: str) -> list[str | Path]:
    """Return gpg's arguments for the one kind of signature that all clients accept."""
    return [
        *("--digest-algo", "SHA512"),
        *("--local-user", f"{fingerprint}!"),
        *("--armor", "--output", "-"),
        *("--detach-sign", data.absolute()),
    ]


@contextmanager
def borrowed_home(private: Path, keyrings: Sequence[Path]) -> Iterator[GpgHome]:
    """Yield a home that lives for one operation, on the private keys of a directory."""
    with files.scratch_directory(_short_parent()) as home:
        (home / PRIVATE).symlink_to(private.resolve())
        (home / "common.conf").touch()  # no key box daemon, whatever the system's default
        try:
            yield GpgHome(home=home, keyrings=[each.resolve() for each in keyrings])
        finally:
            # Once more, for the case that an exception came before it was told to stop.
            run.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)


def sign_in_home(home: Path, data: Path, fingerprint: str) -> bytes:
    """Return a signature by a key of somebody's own GnuPG home, with the agent that belongs to it.

    A passphrase or a card must have been unlocked with that agent before. See `refused`.
    """
    argv = ["gpg", "--homedir", home, *_COMMON, *signing_words(data, fingerprint)]
    with tempfile.TemporaryDirectory() as scratch:
        status, out, log = (Path(scratch, name) for name in ("status", "out", "log"))
        with out.open("wb") as stdout, log.open("wb") as stderr:
            ended = run.run(
                [*argv[:1], "--status-file", status, *argv[1:]],
                stdout=stdout,
                stderr=stderr,
                timeout=_TIMEOUT,
                check=False,
            )
        if ended.status:
            said = status.read_bytes() if status.exists() else b""
            words = tuple(str(word) for word in argv)
            failed = run.Completed(argv=words, status=ended.status, stderr=log.read_bytes())
            raise refused(run.failure(failed), said, fingerprint)
        return out.read_bytes()


def refused(error: CoreImageError, status: bytes, fingerprint: str) -> CoreImageError:
    """Return the error that says why gpg did not sign: no private key, or a locked one.

    `status` is what gpg wrote to its status file. Any other failure is the error as it is.
    """
    codes = [
        int(line.removeprefix(_STATUS)) & _CODE
        for line in status.splitlines()
        if line.startswith(_STATUS) and line.removeprefix(_STATUS).isdigit()
    ]
    key = openpgp.key_id(fingerprint)
    if _NO_SECRET_KEY in codes:
        return NotFoundError(
            f"the private key {key} is not here",
            hint="bring it back, or sign elsewhere: 'coreimage keyring' prepares what has to be"
            " signed with --prepare DIR",
        )
    if _LOCKED.intersection(codes):
        return RightsError(
            f"the private key {key} is locked with a passphrase, and nobody was there to give it",
            hint="keep a locked key in a GnuPG home of its own, name that in coreimage.toml as"
            " 'home', and unlock it with its agent first, by signing any file",
        )
    return error


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
