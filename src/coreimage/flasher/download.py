"""Where a channel tree is: on a web server, with a cache of what was downloaded, or in a folder.

Payload is handed out as open files whose bytes were checked: what is unpacked later is read
through the same descriptor, so that it cannot be exchanged in between.
"""

import os
import re
import shutil
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from coreimage.errors import NotFoundError, TrustError
from coreimage.lib.fetch import Wanted, check_digest, fetch, is_url, local_path, open_regular
from coreimage.lib.progress import Progress
from coreimage.lib.transport import PATIENT, Limits
from coreimage.lib.trust import Chain
from coreimage.model.index import Image, ImageFile, check_path

_MAX_METADATA = 8 << 20
_MAX_PAYLOAD = 16 << 30
_DIGEST = re.compile(r"([0-9a-f]{8})[0-9a-f]{56}")
_SWITCHED = ("channels.json", "gpg/")


class Source(Protocol):
    """A channel tree. Paths are root-relative, as in channels.json."""

    name: str

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified; NotFoundError when there is none."""

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image must be downloaded."""


def short_name(path: str) -> str:
    """Return a file's name as people want to read it: of a digest, the first eight digits."""
    return _DIGEST.sub(r"\1", path.rsplit("/", 1)[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A file of an image, open, with its checksum and signature verified."""

    entry: ImageFile
    file: BinaryIO

    @property
    def name(self) -> str:
        """The file's name for people."""
        return short_name(self.entry.path)


class TreeSource:
    """A channel tree in a folder: payload is read where it lies."""

    def __init__(self, root: Path, *, scratch: Path) -> None:
        if not root.is_dir():
            raise NotFoundError(
                f"there is no channel tree '{root}'",
                hint="name a server with --server URL or a channel tree with --server FOLDER",
            )
        self.name = str(root)
        self._root = root
        self._scratch = scratch
        # Our own trees keep what changes together in one directory, and switch a link to it.
        self._state = (root / "state").resolve() if (root / "state").is_dir() else root

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        name = check_path(path).lstrip("/")
        target = self._scratch / name
        home = self._state if name.startswith(_SWITCHED) else self._root
        fetch(str(home / name), target, wanted=Wanted(max_size=_MAX_METADATA))
        return target

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._root / check_path(file.path).lstrip("/")
        try:
            opened = open_regular(path)
        except FileNotFoundError:
            raise NotFoundError(f"the channel tree has no file '{path}'") from None
        progress.note(f"checking {short_name(file.path)}")
        return _checked(opened, file, str(path))

    def missing(self, image: Image) -> int:
        """Return 0: everything is here."""
        del image
        return 0


class HttpSource:
    """A channel tree at the root of a web server, or below a path of it.

    Downloads are kept in `cache` under their sha256 and hashed again whenever they are used.
    """

    def __init__(
        self,
        base: str,
        *,
        scratch: Path,
        cache: Path,
        tls: ssl.SSLContext | None = None,
        limits: Limits = PATIENT,
    ) -> None:
        self.name = base.rstrip("/")
        self._scratch = scratch
        self._cache = cache
        self._tls = tls
        self._limits = limits

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        target = self._scratch / check_path(path).lstrip("/")
        wanted = Wanted(max_size=_MAX_METADATA)
        fetch(self.name + path, target, wanted=wanted, limits=self._limits, tls=self._tls)
        return target

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._cache / file.checksum
        try:
            opened = _checked(open_regular(path), file, str(path))
        except FileNotFoundError:
            pass
        except TrustError:
            progress.note(
                f"{short_name(file.path)} was damaged in the cache and is downloaded again"
            )
            path.unlink(missing_ok=True)
        else:
            progress.note(f"{short_name(file.path)} is in the cache")
            return opened
        url = self.name + check_path(file.path)
        wanted = Wanted(max_size=_MAX_PAYLOAD, size=file.size, sha256=file.checksum)
        with progress.task(short_name(file.path), file.size) as task:
            fetch(url, path, wanted=wanted, limits=self._limits, task=task, tls=self._tls)
        return _checked(open_regular(path), file, str(path))

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image are not in the cache."""
        return sum(file.size for file in image.files if not (self._cache / file.checksum).exists())


def open_source(
    server: str,
    *,
    scratch: Path,
    cache: Path,
    tls: ssl.SSLContext | None = None,
    limits: Limits = PATIENT,
) -> Source:
    """Return the channel tree that a URL or a path names."""
    if is_url(server):
        return HttpSource(server, scratch=scratch, cache=cache, tls=tls, limits=limits)
    return TreeSource(local_path(server), scratch=scratch)


def _checked(opened: BinaryIO, file: ImageFile, name: str) -> BinaryIO:
    try:
        size = os.fstat(opened.fileno()).st_size
        if size != file.size:
            raise TrustError(f"'{name}' has {size} bytes, expected {file.size}")
        check_digest(opened, file.checksum, name=name)
    except BaseException:
        opened.close()
        raise
    return opened


@contextmanager
def collected(
    source: Source, image: Image, chain: Chain, progress: Progress
) -> Iterator[Sequence[Payload]]:
    """Yield all files of an image in the order of applying, every one verified before any is used.

    Raises TrustError for a wrong checksum or signature.
    """
    with ExitStack() as stack:
        payloads = []
        for entry in sorted(image.files, key=lambda file: file.order):
            opened = stack.enter_context(source.payload(entry, progress))
            try:
                signature = source.metadata(entry.signature)
            except NotFoundError as error:
                raise TrustError(f"'{entry.path}' has no signature: {error.message}") from error
            chain.verify(opened, signature, level=chain.payload_level, what=entry.path)
            opened.seek(0)
            payloads.append(Payload(entry=entry, file=opened))
        yield payloads


def clean_cache(cache: Path) -> int:
    """Remove all downloads and return the number of bytes that they took."""
    size = sum(path.stat().st_size for path in cache.glob("*") if path.is_file())
    shutil.rmtree(cache, ignore_errors=True)
    return size
