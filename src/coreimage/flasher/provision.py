"""Provisioning: who may log in to the new system, as files of its writable file system.

There are no passwords. The image starts its SSH server only where `ssh/enabled` exists, and takes
the keys of its default user from `ssh/authorized_keys/core`.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import CoreImageError, DataError, UsageError
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import files, run

DEFAULT_USER = "core"
HOME = "system-data/var/lib/coreimage"
_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Source: useradd(8). The image's own users are checked when it is known, by the image.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_SYSTEM_USERS = frozenset({"root", "nobody", "daemon", "bin", "sys", "messagebus", "sshd"})
# The image's own user is 1000.
_FIRST_ID = 1001
_MAX_FILE = 64 << 10
_COMMENT = re.compile(r"[^\x00-\x1f\x7f]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An SSH public key; `blob` is the base64 text of RFC 4253, section 6.6."""

    type: str
    blob: str
    comment: str = ""

    @property
    def line(self) -> str:
        """The key as a line of authorized_keys."""
        return " ".join(part for part in (self.type, self.blob, self.comment) if part)

    @property
    def fingerprint(self) -> str:
        """The key's digest as ssh-keygen shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may log in, and how; `user` is whose the keys are."""

    ssh: bool = False
    keys: Sequence[PublicKey] = ()
    developer_mode: bool = False
    user: str = DEFAULT_USER

    @property
    def nobody(self) -> bool:
        """Whether nobody at all could log in."""
        return not (self.ssh and self.keys)

    @property
    def others(self) -> bool:
        """Whether it is another user than the image has."""
        return self.user != DEFAULT_USER

    def files(self) -> dict[str, str]:
        """Return the files that say so, by path in the writable file system."""
        found = {}
        if self.ssh:
            found[f"{HOME}/ssh/enabled"] = ""
        if self.keys:
            found[f"{HOME}/ssh/authorized_keys/{self.user}"] = "".join(
                f"{key.line}\n" for key in self.keys
            )
        if self.developer_mode:
            found[f"{HOME}/developer-mode"] = ""
        if self.others:
            found[f"{HOME}/users"] = f"{self.user} {_FIRST_ID}\n"
        return found

    def install(self, staging: Staging) -> None:
        """Put these files into a tree."""
        staging.put_directory(HOME)
        for path, content in self.files().items():
            staging.put_file(path, content.encode())


NO_ACCESS = Access()


def check_user(name: str) -> str:
    """Return the name of a user; raises UsageError for one that cannot be."""
    if not _USER.match(name) or name in _SYSTEM_USERS:
        raise UsageError(
            f"'{name}' cannot be the user of a system",
            hint="give a name of lower-case letters, digits, '-' and '_' that no service has",
        )
    return name


def parse_keys(text: str, *, source: str) -> list[PublicKey]:
    """Parse a public key file, a key on each line; raises DataError that names file and line."""
    if "PRIVATE KEY-----" in text:
        raise DataError(
            f"'{source}' is a private key, which must not leave its owner",
            hint=f"give the public key: '{source}.pub'",
        )
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            keys.append(_key(line.strip(), f"{source}:{number}"))
    if not keys:
        raise DataError(f"'{source}' holds no public key")
    return keys


def _key(line: str, where: str) -> PublicKey:
    kind, _, rest = line.partition(" ")
    blob, _, comment = rest.strip().partition(" ")
    if kind not in _TYPES:
        raise DataError(
            f"{where}: '{kind[:40]}' is not a type of SSH public key that we know",
            hint="the types are " + ", ".join(_TYPES),
        )
    try:
        decoded = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the key is damaged: {error}") from error
    # The blob begins with its own type, as a string with its length before it.
    length = int.from_bytes(decoded[:4], "big")
    if decoded[4 : 4 + length] != kind.encode() or len(decoded) <= 4 + length:
        raise DataError(f"{where}: the key is damaged: it is no '{kind}' inside")
    if not _COMMENT.match(comment):
        raise DataError(f"{where}: the comment holds control characters")
    return PublicKey(type=kind, blob=blob, comment=comment.strip())


def read_keys(path: Path) -> list[PublicKey]:
    """Read a public key file; raises DataError."""
    with path.open("rb") as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise DataError(f"'{path}' is too large for a public key file")
    return parse_keys(content.decode(errors="replace"), source=str(path))


def key_pair_paths(output: Path) -> tuple[Path, Path]:
    """Return where the fresh key pair of an image lies: the private and the public key."""
    private = output.with_name(f"{output.name}.ssh-key")
    return private, private.with_name(f"{private.name}.pub")


@contextmanager
def fresh_key_pair(output: Path, *, scratch: Path, user: str = DEFAULT_USER) -> Iterator[PublicKey]:
    """Make a key pair, and put it beside the output when the block ends well.

    `scratch` is where a directory for it may be made. Raises CoreImageError when there is one
    beside the output already.
    """
    paths = key_pair_paths(output)
    for path in paths:
        if path.exists() or path.is_symlink():
            raise _exists(path)
    with files.scratch_directory(scratch) as directory:
        made = directory / "key"
        comment = f"{user}@{output.name}"
        argv = ["ssh-keygen", "-q", *("-t", "ed25519"), *("-N", ""), *("-C", comment)]
        run.run([*argv, *("-f", str(made))])
        public = made.with_name("key.pub")
        yield read_keys(public)[0]
        for path, source, mode in zip(paths, (made, public), (0o600, 0o644), strict=True):
            _put(path, source.read_bytes(), mode)


def _put(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise _exists(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _exists(path: Path) -> CoreImageError:
    return CoreImageError(
        f"'{path}' exists and is not overwritten", hint="remove it, or name a key with --ssh-key"
    )
