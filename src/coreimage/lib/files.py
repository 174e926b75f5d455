"""Files: finish with a rename, locks that die with their holder, scratch space that is swept."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from coreimage.errors import BusyError, DataError, NoSpaceError

CHUNK = 1 << 20
_SCRATCH_PREFIX = ".scratch-"
# Temporary files and links live for one write; older than this, in seconds, nobody needs them.
_STALE = 3600.0
# Long enough for a look by `is_locked`, which holds the lock for an instant.
_LEAST_WAIT = 0.2


class Reader(Protocol):
    """Anything bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, empty at the end."""


class HashingReader:
    """Pass bytes through and hash and count them on the way."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes of the source."""
        data = self._source.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    @property
    def sha256(self) -> str:
        """The digest, in hex, of what was read so far."""
        return self._hash.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_empty(folder: Path, *, keep: Container[Path]) -> None:
    """Remove a folder if it is empty, then those above it that became so, up to one of `keep`."""
    while folder not in keep and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def fsync_tree(root: Path) -> None:
    """Make everything below a directory survive a power cut."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        fsync_directory(Path(folder))


def read_text(path: Path) -> str:
    """Return a text that people have written; raises DataError with the line that is not UTF-8."""
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8",
            hint="save the file as UTF-8",
        ) from error


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part."""
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f"{_SCRATCH_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def link_atomically(path: Path, target: str) -> None:
    """Make `path` a symlink to `target` in one step, replacing what was there."""
    temporary = path.with_name(f"{_SCRATCH_PREFIX}{path.name}-{secrets.token_hex(4)}")
    temporary.symlink_to(target)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def scratch_directory(parent: Path, *, mode: int = 0o700) -> Iterator[Path]:
    """Yield an empty directory below `parent`, removed at the end.

    The directory is locked while it is in use. Those of processes that were killed are not, and
    are swept away here. A caller that moves the directory to its final name keeps it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path, descriptor = _locked_directory(parent, mode)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _locked_directory(parent: Path, mode: int) -> tuple[Path, int]:
    while True:
        path = parent / f"{_SCRATCH_PREFIX}{secrets.token_hex(6)}"
        path.mkdir(mode=mode)
        # Somebody may sweep the directory away until it is locked; then another one is made.
        with suppress(FileNotFoundError):
            path.chmod(mode)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_same(path, descriptor):
                    return path, descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def sweep(parent: Path, *, prepare: Callable[[Path], None] | None = None) -> None:
    """Remove what killed processes left below `parent`: scratch directories, temporary files.

    `prepare` is called with each directory before it is removed, while nobody else can have it.
    """
    for path in parent.glob(f"{_SCRATCH_PREFIX}*"):
        with suppress(OSError):
            if path.is_symlink() or not path.is_dir():
                if time.time() - path.lstat().st_mtime > _STALE:
                    path.unlink()
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if prepare is not None:
                    prepare(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    found, opened = path.stat(), os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


@contextmanager
def lock(path: Path, *, purpose: str, wait: float = 0.0) -> Iterator[int]:
    """Hold an exclusive lock that the kernel releases when we die.

    Yields its descriptor: a program that inherits it holds the lock too, until both have let go.
    Raises BusyError that names the holder when the lock is not free within `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + max(wait, _LEAST_WAIT)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        f"'{path.stem}' is in use{_holder(path)}",
                        hint="wait until it has finished and run the command again",
                    ) from None
                time.sleep(_LEAST_WAIT / 10)
        note = {
            "pid": os.getpid(),
            "purpose": purpose,
            "since": time.strftime("%FT%TZ", time.gmtime()),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)
        try:
            yield descriptor
        finally:
            os.ftruncate(descriptor, 0)  # else the next to wait could be told of us
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock at `path` now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text())
        return f" by process {note['pid']} since {note['since']} ({note['purpose']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def require_space(path: Path, needed: int, *, purpose: str) -> None:
    """Raise NoSpaceError unless the file system of `path` has `needed` bytes free."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise NoSpaceError(
            f"no space for {purpose} in '{existing}': {needed >> 20} MiB needed, "
            f"{free >> 20} MiB free",
            hint="free some space, or choose another place",
        )


def copy_stream(source: Reader, target: BinaryIO) -> int:
    """Copy to the end and return the number of bytes."""
    total = 0
    while chunk := source.read(CHUNK):
        target.write(chunk)
        total += len(chunk)
    return total
