"""Other channel trees, on a web server or in a folder, verified from a pinned archive-master.

Nothing is looked at before its signature was verified, and nothing is handed out that has not the
size, the digest and the signature that it must have.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.lib import files, fresh, trust
from coreimage.lib.fetch import Wanted, fetch, is_url, local_path
from coreimage.lib.memory import load
from coreimage.lib.progress import Task
from coreimage.model.channels import Channels, Device
from coreimage.model.freshness import NOTHING, Received, effective_time
from coreimage.model.index import ImageFile, Index, check_path
from coreimage.model.keyring import KeyringType

_MAX_METADATA = 8 << 20
_MAX_PAYLOAD = 16 << 30
_PAIR_ATTEMPTS = 3
_SWITCHED = ("/channels.json", "/gpg/")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteIndex:
    """A verified index of another tree, with the chain that its payload is verified by.

    `files` are the metadata that were used: paths in the tree and where their copies lie.
    """

    index: Index
    chain: trust.Chain
    files: dict[str, Path]


class Remote:
    """A channel tree whose keyrings and channels.json were verified. Made by `open_remote`."""

    def __init__(
        self,
        base: str,
        *,
        scratch: Path,
        open_chain: Callable[[Callable[[str], Path], Path], trust.Chain],
        memory: Path | None = None,
    ) -> None:
        self.name = base.rstrip("/")
        self._memory = memory
        self._scratch = scratch
        self._root = self.name if is_url(base) else str(local_path(base))
        self._state = self._root
        if not is_url(base):
            if not Path(self._root).is_dir():
                raise NotFoundError(
                    f"there is no channel tree '{base}'",
                    hint="name a folder that has channels.json, or a server's address with http://",
                )
            # Our own trees keep what changes together in one directory, and switch a link to it.
            if Path(self._root, "state").is_dir():
                self._state = str(Path(self._root, "state").resolve())
        self._open_chain = open_chain
        self.chain, self.channels, self.received = self._read()

    def _read(self) -> tuple[trust.Chain, Channels, Received]:
        """Read what belongs together; a server may publish between two of our requests."""
        for attempt in range(_PAIR_ATTEMPTS, 0, -1):
            try:
                chain = self._open_chain(self.metadata, self._folder("keys"))
                path, signed_by = self._signed("/channels.json", chain, KeyringType.IMAGE_SIGNING)
                text = path.read_bytes()
                channels = Channels.from_json(text)
                self._bring_keyrings(channels)
            except TrustError:
                if attempt == 1:
                    raise
            else:
                shown = fresh.received(text, channels, signed_by=signed_by, chain=chain)
                return chain, channels, shown
        raise AssertionError

    def _bring_keyrings(self, channels: Channels) -> None:
        """See that the keyrings are those of channels.json, where that says so."""
        for level, digest in channels.keyrings.items():
            path = f"/gpg/{level}.tar.xz"
            copies = [self.copy_of(each) for each in (path, f"{path}.asc")]
            if not all(each.is_file() for each in copies):
                copies = [self.metadata(path), self._signature(path)]
            if files.sha256_of(copies[0]) != digest:
                raise TrustError(f"'{self.name}{path}' is not the one that channels.json names")

    def state_files(self) -> list[str]:
        """Return the paths of what is switched together: channels.json and the keyrings."""
        top = self._scratch / "tree"
        found = [path for path in (top / "gpg").iterdir() if not path.name.startswith(".")]
        return ["/channels.json", "/channels.json.asc", *(f"/gpg/{path.name}" for path in found)]

    def _folder(self, name: str) -> Path:
        folder = self._scratch / f"{name}-{len(list(self._scratch.iterdir()))}"
        folder.mkdir()
        return folder

    def copy_of(self, path: str) -> Path:
        """Return where the copy of a small file lies."""
        return self._scratch / "tree" / check_path(path)[1:]

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified; NotFoundError when there is none."""
        target = self.copy_of(path)
        base = self._state if path.startswith(_SWITCHED) else self._root
        fetch(base + path, target, wanted=Wanted(max_size=_MAX_METADATA))
        return target

    def _signed(self, path: str, chain: trust.Chain, level: KeyringType) -> tuple[Path, str]:
        """Return a copy of a file whose signature is good, and the key that made it."""
        file, what = self.metadata(path), f"{self.name}{path}"
        signed = chain.verify(file, self._signature(path), level=level, what=what)
        return file, signed.fingerprint

    def _signature(self, path: str) -> Path:
        try:
            return self.metadata(f"{path}.asc")
        except NotFoundError as error:
            raise TrustError(f"'{path}' has no signature: {error.message}") from error

    def index(self, channel: str, device: str) -> RemoteIndex:
        """Return the verified index of a device in a channel.

        Raises NotFoundError that names the channels or devices there are, TrustError, DataError.
        """
        entry = self.channels.device(channel, device)
        used = {path: self.copy_of(path) for path in (entry.index, f"{entry.index}.asc")}
        chain = self.chain
        if entry.keyring is not None:
            chain = self._open_chain(self.copy_of, self._folder("keys"))
            pair = [check_path(entry.keyring[key]) for key in ("path", "signature")]
            tarball, signature = (self.metadata(path) for path in pair)
            chain.add_device_signing(tarball, signature, device)
            used.update(zip(pair, (tarball, signature), strict=True))
        file, _ = self._signed(check_path(entry.index), chain, chain.payload_level)
        text = file.read_bytes()
        _require_bound(entry, text, f"{self.name}{entry.index}")
        index = Index.from_json(text)
        self._require_purpose(index, channel, device, entry)
        if self._memory is not None and self.received.serial is not None:
            fresh.accept_images(
                index,
                f"{channel} {device}",
                chain=self.chain,
                directory=self._memory,
                signed_by=self.received.signed_by,
            )
        return RemoteIndex(index=index, chain=chain, files=used)

    def _require_purpose(self, index: Index, channel: str, device: str, entry: Device) -> None:
        owners = self.channels.owners(channel, device)
        for key, allowed in (("channel", owners), ("device", [device])):
            said = index.extra.get(key, allowed[0])
            if said not in allowed:
                raise TrustError(
                    f"'{entry.index}' says that it is for {key} '{said}', not '{allowed[0]}'",
                    hint=f"'{self.name}' offers what was made for another; ask whoever runs it",
                )

    def payload(
        self, file: ImageFile, target: Path, chain: trust.Chain, *, task: Task | None = None
    ) -> None:
        """Bring a file of an image and its signature, `target`.asc, to a place of our own.

        A download that broke off goes on where it stopped. Raises TrustError unless size, digest
        and signature are what the index says.
        """
        if file.size > _MAX_PAYLOAD:
            raise DataError(f"'{file.path}' has {file.size} bytes, more than we take")
        wanted = Wanted(max_size=_MAX_PAYLOAD, size=file.size, sha256=file.checksum)
        fetch(self._root + check_path(file.path), target, wanted=wanted, task=task)
        self.signature(file, target, Path(f"{target}.asc"), chain)

    def signature(self, file: ImageFile, data: Path, target: Path, chain: trust.Chain) -> None:
        """Bring the signature of a file of an image whose bytes are `data` to `target`.

        Raises TrustError unless it is a good one.
        """
        fetch(self._root + file.signature, target, wanted=Wanted(max_size=_MAX_METADATA))
        chain.verify(data, target, level=chain.payload_level, what=file.path)


def _require_bound(entry: Device, text: bytes, name: str) -> None:
    """See that an index is the one that channels.json means, where that says so."""
    if entry.sha256 is not None and hashlib.sha256(text).hexdigest() != entry.sha256:
        raise TrustError(
            f"'{name}' is not the index that channels.json names, '{entry.sha256}'",
            hint="the server is being changed, or shows an older index; try again later",
        )


def open_remote(
    server: str,
    *,
    archive_master: Path,
    scratch: Path,
    now: datetime,
    memory: Path | None = None,
    allow_unfresh: bool = False,
) -> Remote:
    """Return another tree once its keyrings and channels.json were verified.

    `memory` is the directory that remembers what was seen of it, so that an older state is refused
    later; without one it is judged as at the first contact. `allow_unfresh` accepts a tree that
    does not say how fresh it is. Raises TrustError, also for a tree that has expired;
    UnavailableError; NotFoundError.
    """
    before = NOTHING
    if memory is not None:
        with tempfile.TemporaryDirectory() as keys:
            root = trust.pin_keyring(archive_master, directory=Path(keys), now=now)
        before = load(memory, root.fingerprints)

    def open_chain(fetch_: Callable[[str], Path], keys: Path) -> trust.Chain:
        return trust.open_chain(
            archive_master=archive_master,
            fetch=fetch_,
            scratch=keys,
            now=effective_time(before, now),
            revoked=before.revoked,
        )

    remote = Remote(server, scratch=scratch, open_chain=open_chain, memory=memory)
    try:
        fresh.accept(
            remote.received,
            chain=remote.chain,
            directory=memory,
            clock=now,
            allow_unfresh=allow_unfresh,
        )
    except TrustError as error:
        raise TrustError(f"'{remote.name}': {error.message}", hint=error.hint) from error
    return remote
