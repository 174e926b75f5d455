"""A channel tree on a web server, with a cache of what was downloaded."""

import shutil
import ssl
import threading
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import TrustError
from coreimage.flasher.remote.source import MAX_METADATA, MAX_PAYLOAD, checked, short_name
from coreimage.lib.fetch import Wanted, fetch, open_regular
from coreimage.lib.progress import Progress, Task
from coreimage.lib.transport import PATIENT, Limits
from coreimage.model.index import Image, ImageFile, check_path


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
        self._stop = threading.Event()

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified."""
        target = self._scratch / check_path(path).lstrip("/")
        wanted = Wanted(max_size=MAX_METADATA)
        self._fetch(path, target, wanted)
        return target

    def _fetch(self, path: str, target: Path, wanted: Wanted, task: Task | None = None) -> None:
        fetch(
            self.name + path,
            target,
            wanted=wanted,
            limits=self._limits,
            task=task,
            tls=self._tls,
            stop=self._stop,
        )

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._cache / file.checksum
        try:
            opened = checked(open_regular(path), file, str(path))
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
        wanted = Wanted(max_size=MAX_PAYLOAD, size=file.size, sha256=file.checksum)
        with progress.task(short_name(file.path), file.size) as task:
            self._fetch(check_path(file.path), path, wanted, task)
        return checked(open_regular(path), file, str(path))

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image are not in the cache."""
        return sum(file.size for file in image.files if not (self._cache / file.checksum).exists())

    def turn(self) -> bool:
        """Return False: there is one server."""
        return False

    def stop(self) -> None:
        """End what is being downloaded."""
        self._stop.set()


def clean_cache(cache: Path) -> int:
    """Remove all downloads and return the number of bytes that they took."""
    size = sum(path.stat().st_size for path in cache.glob("*") if path.is_file())
    shutil.rmtree(cache, ignore_errors=True)
    return size
