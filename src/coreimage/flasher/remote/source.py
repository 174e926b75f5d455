"""What a channel tree is to those who read it, wherever it lies.

Payload is handed out as open files whose bytes were checked: what is unpacked later is read
through the same descriptor, so that it cannot be exchanged in between.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from coreimage.errors import TrustError
from coreimage.lib.fetch import check_digest
from coreimage.lib.progress import Progress
from coreimage.model.index import Image, ImageFile

MAX_METADATA = 8 << 20
MAX_PAYLOAD = 16 << 30
_DIGEST = re.compile(r"([0-9a-f]{8})[0-9a-f]{56}")


class Source(Protocol):
    """A channel tree. Paths are root-relative, as in channels.json."""

    @property
    def name(self) -> str:
        """What people call it: its URL or its path."""

    def metadata(self, path: str) -> Path:
        """Return a copy of a small file, not verified; NotFoundError when there is none."""

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""

    def missing(self, image: Image) -> int:
        """Return how many bytes of an image must be downloaded."""

    def turn(self) -> bool:
        """Ask another server for metadata from now on; False when all were asked."""

    def stop(self) -> None:
        """End what is being downloaded, because nobody waits for it any more."""


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


def checked(opened: BinaryIO, file: ImageFile, name: str) -> BinaryIO:
    """Return a file that has the size and checksum of the index; TrustError for any other."""
    try:
        size = os.fstat(opened.fileno()).st_size
        if size != file.size:
            raise TrustError(f"'{name}' has {size} bytes, expected {file.size}")
        check_digest(opened, file.checksum, name=name)
    except BaseException:
        opened.close()
        raise
    return opened
