"""Opening what lies in a served tree, and nothing else, whatever the path says."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coreimage.errors import NotFoundError

_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.ENXIO,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A directory of a served tree, by its real path."""

    path: Path


def open_beneath(root: Path, path: str) -> BinaryIO | Folder:
    """Return the open file, or the directory, that a decoded path, relative to `root`, names.

    Symlinks are followed as long as what they lead to lies in the tree. Raises NotFoundError for
    all that is not to be served: other kinds of files, hidden names, ways out of the tree.
    """
    parts = _parts(path)
    try:
        base = root.resolve(strict=True)
        # A handle that opens nothing yet: a device or a pipe is not touched.
        handle = os.open(base.joinpath(*parts), os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise _not_found(path, error) from error
    try:
        return _open_handle(handle, base, path)
    except OSError as error:
        raise _not_found(path, error) from error
    finally:
        os.close(handle)


def _parts(path: str) -> list[str]:
    """Return the names in a path; a name with a leading dot, '..' too, is never served."""
    parts = path.removesuffix("/").split("/") if path else []
    for part in parts:
        if not is_shown(part):
            raise NotFoundError(f"there is no '{path}'")
    return parts


def is_shown(name: str) -> bool:
    """Tell whether a file of this name may be served at all."""
    if name == "" or name.startswith(".") or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_handle(handle: int, base: Path, path: str) -> BinaryIO | Folder:
    """Check where a handle leads and open that: what is checked is what is opened."""
    itself = f"/proc/self/fd/{handle}"
    real = Path(os.readlink(itself))  # noqa: PTH115  Path.readlink gives the same, but a str is due
    if not real.is_relative_to(base) or not all(map(is_shown, real.relative_to(base).parts)):
        raise NotFoundError(f"there is no '{path}'")
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        return Folder(path=real)
    if not stat.S_ISREG(mode) or path.endswith("/"):
        raise NotFoundError(f"there is no '{path}'")
    return open(itself, "rb", buffering=0)  # noqa: PTH123  a handle, not a path


def _not_found(path: str, error: OSError) -> Exception:
    """Return NotFoundError when the tree has no such thing, else the error itself."""
    return NotFoundError(f"there is no '{path}'") if error.errno in _ABSENT else error
