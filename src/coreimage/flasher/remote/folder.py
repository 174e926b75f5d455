"""A channel tree in a folder of this machine."""

from pathlib import Path
from typing import BinaryIO

from coreimage.errors import NotFoundError
from coreimage.flasher.remote.source import MAX_METADATA, checked, short_name
from coreimage.lib.fetch import Wanted, fetch, open_regular
from coreimage.lib.progress import Progress
from coreimage.model.index import Image, ImageFile, check_path

_SWITCHED = ("channels.json", "gpg/")


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
        fetch(str(home / name), target, wanted=Wanted(max_size=MAX_METADATA))
        return target

    def payload(self, file: ImageFile, progress: Progress) -> BinaryIO:
        """Return an open file that has the size and checksum of the index."""
        path = self._root / check_path(file.path).lstrip("/")
        try:
            opened = open_regular(path)
        except FileNotFoundError:
            raise NotFoundError(f"the channel tree has no file '{path}'") from None
        progress.note(f"checking {short_name(file.path)}")
        return checked(opened, file, str(path))

    def missing(self, image: Image) -> int:
        """Return 0: everything is here."""
        del image
        return 0

    def turn(self) -> bool:
        """Return False: there is one folder."""
        return False

    def stop(self) -> None:
        """Do nothing: nothing is downloaded."""
