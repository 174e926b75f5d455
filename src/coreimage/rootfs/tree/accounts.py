"""The accounts of a built tree, as it lies in a folder or in a tarball."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from coreimage.errors import DataError

_FILES = ("etc/passwd", "etc/group")
# Far above what systems have.
_MAX_SIZE = 4 << 20


def accounts_of(target: Path) -> tuple[bytes, bytes]:
    """Return passwd(5) and group(5) of a tree or a tarball; raises DataError when it has none."""
    try:
        found = dict(_of_folder(target) if target.is_dir() else _of_tarball(target))
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"'{target}' cannot be read: {error}",
            hint="name a rootfs tarball (.tar.gz), a tree, or the number of a build",
        ) from error
    for name in _FILES:
        if name not in found:
            raise DataError(f"'{target}' has no {name}", hint="name the root file system itself")
    passwd, group = (found[name] for name in _FILES)
    return passwd, group


def accounts_in(tree: Path) -> tuple[bytes, bytes]:
    """Return passwd(5) and group(5) of a tree as far as we can read them, else nothing."""
    try:
        found = dict(_of_folder(tree))
    except OSError:
        found = {}
    passwd, group = (found.get(name, b"") for name in _FILES)
    return passwd, group


def _of_folder(tree: Path) -> Iterator[tuple[str, bytes]]:
    for name in _FILES:
        path = tree / name
        # A link could lead to this machine's own accounts.
        if path.is_file() and not path.is_symlink():
            yield name, path.read_bytes()[:_MAX_SIZE]


def _of_tarball(path: Path) -> Iterator[tuple[str, bytes]]:
    missing = set(_FILES)
    # Builds are compressed in parts, which tarfile's own reading of streams does not understand.
    with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in missing and (file := tar.extractfile(member)) is not None:
                missing.remove(name)
                yield name, file.read(_MAX_SIZE)
            if not missing:
                return
