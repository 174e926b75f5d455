"""The signer: the one place where signatures of the server are made, by policy and with a log.

A level's private key is in the workspace, in a GnuPG home elsewhere, behind a command, or offline;
coreimage.toml says which. Whatever makes a signature, it is verified before it is used.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coreimage.config import SigningSettings, Workspace
from coreimage.errors import CommandError, NotFoundError, RightsError, TrustError
from coreimage.lib import files, gpghome, ledger, openpgp, run, trust
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType
from coreimage.systemimage.signing import policy
from coreimage.systemimage.signing.policy import Purpose

_TIMEOUT = 900.0
_IN_WORKSPACE = SigningSettings()
_MASTERS = frozenset({KeyringType.ARCHIVE_MASTER, KeyringType.IMAGE_MASTER})


def log_path(workspace: Workspace) -> Path:
    """Return where the log of signatures is."""
    return workspace.state / "signatures.jsonl"


def require_logged(workspace: Workspace, entries: Sequence[ledger.Entry]) -> None:
    """Raise TrustError unless the channels.json that is visible now stands in the log.

    A log whose end was cut off still fits together; this notices it.
    """
    channels = workspace.channel_tree / "state/channels.json"
    if not channels.is_file():
        return
    digest = files.sha256_of(channels)
    if digest not in [
        each.fields.get("sha256") for each in entries if "refused" not in each.fields
    ]:
        raise TrustError(
            f"the published channels.json, sha256 {digest}, is not in '{log_path(workspace)}'",
            hint="it was signed before there was a log, or by somebody else, or lines were cut off "
            "the log; compare with a backup",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is to be signed, by whom, and what for."""

    data: Path
    name: str
    sha256: str
    level: KeyringType
    purpose: Purpose
    channel: str
    device: str
    fingerprint: str


class SigningService:
    """Signs files for a workspace.

    `keys` names, for a level, another of its keys than the one that signs usually. `prepared` has
    signatures that were made elsewhere, by the sha256 of the file; they are used where they fit.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        keys: Mapping[KeyringType, str] | None = None,
        prepared: Mapping[str, bytes] | None = None,
    ) -> None:
        self._settings = {str(level): each for level, each in workspace.settings.signing.items()}
        self._root = workspace.root
        self._log = log_path(workspace)
        self._keys = dict(keys or {})
        self._prepared = dict(prepared or {})
        self.store = Signer(workspace.gpg_home)

    def fingerprint(self, level: KeyringType) -> str:
        """Return the fingerprint of the key that signs for a level."""
        return self._keys.get(level) or self.store.fingerprint(level)

    def place(self, level: KeyringType) -> str:
        """Return where the private key of a level is, in words; empty when it cannot sign here."""
        settings = self._where(level)
        if settings.offline:
            return ""
        if settings.command:
            return f"behind '{settings.command[0]}'"
        if settings.home is not None:
            home = self._root / settings.home
            return f"in '{home}'" if home.is_dir() else ""
        return "here" if self.store.can_sign(level, self._keys.get(level, "")) else ""

    def sign(
        self,
        data: Path,
        signature: Path,
        *,
        level: KeyringType,
        purpose: Purpose,
        channel: str = "",
        device: str = "",
        name: str = "",
    ) -> None:
        """Write the armoured detached signature of a file, replacing it in one step.

        `name` is what the log calls the file, by default its name; so are `channel` and `device`.

        It was verified, and stands in the log, before it gets its name. Raises TrustError when the
        policy refuses the file, which is logged too; NotFoundError or RightsError when the private
        key is not here or locked; CommandError when the command fails.
        """
        request = _Request(
            data=data,
            name=name or data.name,
            sha256=files.sha256_of(data),
            level=level,
            purpose=purpose,
            channel=channel,
            device=device,
            fingerprint=self.fingerprint(level),
        )
        try:
            policy.require_allowed(
                data, level=level, purpose=purpose, channel=channel, device=device
            )
        except TrustError as error:
            self._note(request, refused=error.message)
            raise
        prepared = self._prepared.get(request.sha256)
        made = prepared or self._make(request)
        try:
            self.require_good(data, made, level=level)
        except TrustError as error:
            self._note(request, refused=error.message)
            if self._where(level).command and not prepared:
                hint = f"that is what 'command' of [signing.{level}] answered; {error.hint}"
                raise TrustError(error.message, hint=hint) from error
            raise
        self._note(request, **({"prepared": True} if prepared else {}))
        files.write_atomically(signature, made)

    def sign_published(self, data: Path, signature: Path, *, level: KeyringType, path: str) -> None:
        """Sign a file of the channel tree, as `sign` does, for what its path says that it is."""
        purpose = policy.purpose_of(path)
        shared = path.startswith(("/pool/", "/gpg/")) or purpose is Purpose.CHANNELS
        channel, device = ("", "") if shared else path[1:].rsplit("/", 2)[:2]
        self.sign(
            data,
            signature,
            level=level,
            purpose=purpose,
            channel=channel,
            device=device,
            name=path,
        )

    def _where(self, level: KeyringType) -> SigningSettings:
        return self._settings.get(level.value, _IN_WORKSPACE)

    def require_key(self, level: KeyringType, *, what: str) -> None:
        """Raise NotFoundError when the private key of a level is known to be elsewhere.

        `what` is to be signed by it. For whoever does something slow before that.
        """
        settings, key = self._where(level), openpgp.key_id(self.fingerprint(level))
        if settings.offline:
            raise NotFoundError(
                f"the private key of '{level}', {key}, is offline: '{what}' must be signed by it",
                hint=_way_out(
                    level, "name its 'home' or its 'command' there in place of 'offline'"
                ),
            )
        if settings.home is not None and not (self._root / settings.home).is_dir():
            raise NotFoundError(
                f"there is no GnuPG home '{self._root / settings.home}' with the key of '{level}'",
                hint="bring the medium that it is on",
            )
        if not settings.command and settings.home is None and not self.place(level):
            raise NotFoundError(
                f"the private key {key} is not here: '{what}' must be signed by '{level}'",
                hint=_way_out(
                    level,
                    "say there where it is; a lost one is replaced with "
                    f"'coreimage keyring rotate {level}'",
                ),
            )

    def _make(self, request: _Request) -> bytes:
        settings, level = self._where(request.level), request.level
        self.require_key(level, what=request.data.name)
        if settings.command:
            return _ask(settings.command, request)
        if settings.home is not None:
            home = self._root / settings.home
            return gpghome.sign_in_home(home, request.data, request.fingerprint)
        return self.store.signature(request.data, key=level, fingerprint=request.fingerprint)

    def require_good(self, data: Path, made: bytes, *, level: KeyringType) -> None:
        """Raise TrustError unless it is one good signature by the very key that is to sign."""
        keys, wanted = (
            [*self.store.keys(level), self.store.next_key(level)],
            self.fingerprint(level),
        )
        ring = b"".join(key.data for key in keys if key is not None and key.fingerprint == wanted)
        with tempfile.TemporaryDirectory() as scratch:
            keyring, signature = Path(scratch, "ring.gpg"), Path(scratch, "made.asc")
            keyring.write_bytes(ring)
            signature.write_bytes(made)
            trust.verify(
                data, signature, keyring=keyring, blacklist=None, what=data.name, level=level
            )

    def _note(self, request: _Request, **more: Any) -> None:
        fields = {
            "purpose": request.purpose.value,
            "name": request.name,
            "sha256": request.sha256,
            "size": request.data.stat().st_size,
            "level": request.level.value,
            "key": request.fingerprint,
            "channel": request.channel,
            "device": request.device,
            **more,
        }
        ledger.append(
            self._log,
            {key: value for key, value in fields.items() if value != ""},
            now=datetime.now(UTC),
        )


def _way_out(level: KeyringType, otherwise: str) -> str:
    """Return what to do without a private key: only masters sign seldom enough for two steps."""
    if level in _MASTERS:
        return (
            "prepare what has to be signed with --prepare DIR, sign it where the key is, and come "
            "back with --finish DIR; see 'coreimage keyring --help'"
        )
    return (
        f"it signs whatever is published: bring it back, or see [signing.{level}] and {otherwise}"
    )


def _ask(command: Sequence[str], request: _Request) -> bytes:
    """Return what a command makes of the file, which it gets as standard input and by name."""
    words = {
        "{file}": str(request.data.absolute()),
        "{level}": request.level.value,
        "{purpose}": request.purpose.value,
        "{key}": request.fingerprint,
        "{channel}": request.channel,
        "{device}": request.device,
    }
    argv = [words.get(word, word) for word in command]
    with request.data.open("rb") as file:
        try:
            return run.run(argv, stdin=file, timeout=_TIMEOUT).stdout
        except (CommandError, RightsError) as error:
            hint = f"it is 'command' of [signing.{request.level}] in coreimage.toml"
            raise type(error)(error.message, hint=hint) from error
