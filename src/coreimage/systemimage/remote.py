"""Other channel trees, on a web server or in a folder, verified from a pinned archive-master.

Nothing is looked at before its signature was verified, and nothing is handed out that has not the
size, the digest and the signature that it must have.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coreimage.errors import DataError, NotFoundError, TrustError
from coreimage.lib import files, trust
from coreimage.lib.fetch import Wanted, fetch, is_url, local_path
from coreimage.lib.progress import Task
from coreimage.model.channels import Channels, Device
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
    ) -> None:
        self.name = base.rstrip("/")
        self._scratch = scratch
        self._root = self.name if is_url(base) else str(local_path(base))
        self._state = self._root
        if not is_url(base):
            if not Path(self._root).is_dir():
                raise NotFoundError(f"there is no channel tree '{base}'")
            # Our own trees keep what changes together in one directory, and switch a link to it.
            if Path(self._root, "state").is_dir():
                self._state = str(Path(self._root, "state").resolve())
        self._open_chain = open_chain
        self.chain, self.channels = self._read()

    def _read(self) -> tuple[trust.Chain, Channels]:
        """Read what belongs together; a server may publish between two of our requests."""
        for attempt in range(_PAIR_ATTEMPTS, 0, -1):
            try:
                chain = self._open_chain(self.metadata, self._folder("keys"))
                path = self._signed("/channels.json", chain, KeyringType.IMAGE_SIGNING)
                channels = Channels.from_json(path.read_bytes())
                self._bring_keyrings(channels)
            except TrustError:
                if attempt == 1:
                    raise
            else:
                return chain, channels
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

    def _signed(self, path: str, chain: trust.Chain, level: KeyringType) -> Path:
        file = self.metadata(path)
        chain.verify(file, self._signature(path), level=level, what=f"{self.name}{path}")
        return file

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
        file = self._signed(check_path(entry.index), chain, chain.payload_level)
        text = file.read_bytes()
        _require_bound(entry, text, f"{self.name}{entry.index}")
        index = Index.from_json(text)
        self._require_purpose(index, channel, device, entry)
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
        fetch(
            self._root + file.signature,
            Path(f"{target}.asc"),
            wanted=Wanted(max_size=_MAX_METADATA),
        )
        chain.verify(target, Path(f"{target}.asc"), level=chain.payload_level, what=file.path)


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

    `memory` is the file that remembers the newest state seen, so that an older one is refused
    later. Raises TrustError, also for a tree that has expired; UnavailableError; NotFoundError.
    """

    def open_chain(fetch_: Callable[[str], Path], keys: Path) -> trust.Chain:
        return trust.open_chain(archive_master=archive_master, fetch=fetch_, scratch=keys, now=now)

    remote = Remote(server, scratch=scratch, open_chain=open_chain)
    _require_fresh(remote, now=now, allow_unfresh=allow_unfresh)
    if memory is not None:
        _require_no_older(remote, memory)
    return remote


def _require_fresh(remote: Remote, *, now: datetime, allow_unfresh: bool) -> None:
    expires = remote.channels.expires
    if expires is not None and expires <= now.timestamp() and not allow_unfresh:
        end = datetime.fromtimestamp(expires, UTC)
        raise TrustError(
            f"what '{remote.name}' offers expired on {end:%F %T} UTC",
            hint="its operator must run 'coreimage channel refresh'; a mirror may be left behind",
        )


def _require_no_older(remote: Remote, memory: Path) -> None:
    serial = remote.channels.serial
    if serial is None:
        return
    try:
        seen = json.loads(memory.read_bytes())["serial"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        seen = 0
    if isinstance(seen, int) and serial < seen:
        raise TrustError(
            f"'{remote.name}' offers state {serial}, but state {seen} was seen before",
            hint=f"an older state is replayed; if the server was set up anew, remove '{memory}'",
        )
    memory.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(memory, json.dumps({"serial": serial}))
