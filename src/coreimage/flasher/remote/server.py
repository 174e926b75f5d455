"""A server as a client believes it: keyrings, channels.json and indexes, verified and fresh.

Nothing is looked at before its signature was verified, from the pinned archive-master downwards;
and nothing is believed that is older than what was seen before, or that no longer holds.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp

from coreimage.errors import NotFoundError, TrustError
from coreimage.flasher.remote.mirrors import from_mirrors
from coreimage.flasher.remote.source import Source
from coreimage.lib import fresh, memory
from coreimage.lib.files import sha256_of
from coreimage.lib.fresh import require
from coreimage.lib.trust import Chain, open_chain, pin_keyring
from coreimage.model.channels import Channels, Device
from coreimage.model.freshness import (
    Received,
    effective_time,
    judge_index,
    judge_mixture,
    judge_place,
)
from coreimage.model.index import Index, check_path
from coreimage.model.keyring import KeyringType

_PAIR_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What this client may believe: where it remembers what it saw, and what it was told to accept.

    `clock` is the time when it started: what was fresh then stays so until it has finished.
    """

    directory: Path
    clock: datetime
    allow_unfresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server whose keyrings and channels.json were verified, and are the newest ones seen."""

    source: Source
    chain: Chain
    channels: Channels
    memory: Memory
    received: Received

    @property
    def unfresh(self) -> bool:
        """Tell whether it does not say how fresh it is, which was accepted by request."""
        return self.received.serial is None

    def index(self, channel: str, device: str) -> Index:
        """Return the verified index of a device in a channel.

        Raises NotFoundError that names the channels or devices there are, TrustError, DataError.
        """
        entry = self.channels.device(channel, device)
        if entry.keyring is not None:
            keyring = entry.keyring
            from_mirrors(self.source, lambda: self._add_device_keyring(keyring, device))
        index = from_mirrors(self.source, lambda: self._index(entry))
        names = tuple(self.answers_to(channel, device))
        require(
            judge_place(index.extra, channels=names, device=device, serial=self.channels.serial),
            what=entry.index,
        )
        if not self.unfresh:
            fresh.accept_images(
                index,
                f"{channel} {device}",
                chain=self.chain,
                directory=self.memory.directory,
                signed_by=self.received.signed_by,
            )
        return index

    def _index(self, entry: Device) -> Index:
        text, _ = _verified(self.source, self.chain, entry.index, level=self.chain.payload_level)
        require(
            judge_index(
                digest=hashlib.sha256(text).hexdigest(),
                size=len(text),
                expected_digest=entry.sha256,
                expected_size=entry.size,
                what=entry.index,
                allow_unfresh=self.unfresh,
            )
        )
        return Index.from_json(text)

    def answers_to(self, channel: str, device: str) -> list[str]:
        """Return the channel names that an image found there may say that it is for.

        Redirects serve the images of another channel under their own name.
        """
        return self.channels.owners(channel, device)

    def _add_device_keyring(self, keyring: Mapping[str, str], device: str) -> None:
        path = check_path(keyring["path"])
        tarball = self.source.metadata(path)
        signature = self.source.metadata(check_path(keyring["signature"]))
        bound = keyring.get("sha256")
        require(
            judge_index(
                digest=sha256_of(tarball),
                size=0,
                expected_digest=bound,
                expected_size=None,
                what=path,
                allow_unfresh=self.unfresh,
            )
        )
        self.chain.add_device_signing(tarball, signature, device)


def open_server(
    source: Source, *, archive_master: Path, scratch: Path, memory_of: Memory
) -> Server:
    """Verify keyrings and channels.json of a server, and that they are the newest ones seen.

    A mirror that is not to be believed is passed over. Raises TrustError, UnavailableError.
    """

    def ask() -> Server:
        keys = Path(mkdtemp(prefix="keyrings-", dir=scratch))
        return _accepted(source, archive_master=archive_master, keys=keys, memory_of=memory_of)

    return from_mirrors(source, ask)


def _accepted(source: Source, *, archive_master: Path, keys: Path, memory_of: Memory) -> Server:
    for attempt in range(_PAIR_ATTEMPTS, 0, -1):
        try:
            server = _opened(source, archive_master=archive_master, keys=keys, memory_of=memory_of)
            mixed = judge_mixture(server.received)
            if mixed is None:
                break
            # Also of a state that is refused for another reason, that reason is told.
        except TrustError:
            # The server may have published between two requests of ours.
            if attempt == 1:
                raise
    fresh.accept(
        server.received,
        chain=server.chain,
        directory=memory_of.directory,
        clock=memory_of.clock,
        allow_unfresh=memory_of.allow_unfresh,
    )
    return server


def _opened(source: Source, *, archive_master: Path, keys: Path, memory_of: Memory) -> Server:
    clock = memory_of.clock
    root = pin_keyring(archive_master, directory=keys, now=clock).fingerprints
    remembered = memory.load(memory_of.directory, root)
    chain = open_chain(
        archive_master=archive_master,
        fetch=source.metadata,
        scratch=keys,
        now=effective_time(remembered, clock),
        revoked=remembered.revoked,
    )
    level = KeyringType.IMAGE_SIGNING
    text, signed_by = _verified(source, chain, "/channels.json", level=level)
    channels = Channels.from_json(text)
    return Server(
        source=source,
        chain=chain,
        channels=channels,
        memory=memory_of,
        received=fresh.received(text, channels, signed_by=signed_by, chain=chain),
    )


def _verified(source: Source, chain: Chain, path: str, *, level: KeyringType) -> tuple[bytes, str]:
    """Return a file's content once its signature was found good, and the key that made it."""
    file = source.metadata(check_path(path))
    try:
        signature = source.metadata(f"{path}.asc")
    except NotFoundError as error:
        raise TrustError(f"'{path}' has no signature: {error.message}") from error
    # The copy is ours alone: what is verified is what is read.
    signed = chain.verify(file, signature, level=level, what=path)
    return file.read_bytes(), signed.fingerprint
