"""Applying tarballs with the shell, rm and tar of this machine, as recoveries do."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coreimage.lib import files, run

# What the recovery does: the list is read without quotes, then everything is unpacked.
_APPLY = """
set -e
cd "$1"
unpack=$2
tar=$3
if [ "$($unpack "$5" | $tar -t | head -n 1)" = removed ]; then
    $unpack "$5" | $tar -x removed
    while read file; do
        rm -Rf $file
    done < removed
fi
$unpack "$5" | $tar -x -p $4
rm -f removed
"""
GNU = ("xz -dc", "tar -f -", "--numeric-owner --xattrs --xattrs-include=*")
BUSYBOX = ("busybox xzcat", "busybox tar -f -", "")


def apply(root: Path, tarballs: Sequence[Path], *, tar: tuple[str, str, str] = GNU) -> None:
    """Apply tarballs to a directory, one after the other."""
    for tarball in tarballs:
        words = [str(root), *tar, str(tarball.resolve())]
        run.run(["sh", "-c", _APPLY, "sh", *words], env={"LC_ALL": "C"})


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything that can be seen of every path below a directory."""
    paths = sorted(
        Path(folder, name) for folder, *names in os.walk(root) for each in names for name in each
    )
    names: dict[int, list[str]] = {}
    for path in paths:
        names.setdefault(path.lstat().st_ino, []).append(str(path.relative_to(root)))
    return {str(path.relative_to(root)): _description(path, names) for path in paths}


def _description(path: Path, names: dict[int, list[str]]) -> tuple[Any, ...]:
    found = path.lstat()
    content: object = None
    if stat.S_ISLNK(found.st_mode):
        content = path.readlink()
    elif stat.S_ISREG(found.st_mode):
        content = files.sha256_of(path)
    elif not stat.S_ISDIR(found.st_mode):
        content = found.st_rdev
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    links = names[found.st_ino] if not stat.S_ISDIR(found.st_mode) else None
    owner = (found.st_uid, found.st_gid)
    return (found.st_mode, owner, found.st_mtime_ns, content, tuple(sorted(xattrs.items())), links)
