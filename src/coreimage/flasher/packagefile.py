"""Package files: what the files of a package come in, a compressed tar or a click container.

Click containers, named `.snap`, are what packages were in 2015: ar archives as Debian's packages
are, with the members `debian-binary`, `_click-binary`, `control.tar.gz` and `data.tar.gz`, in which
the files are. Others whose names begin with an underscore, such as signatures, mean nothing here:
whoever names a file of their own has decided to trust it. Source: the documentation of click,
"Specification for Click packages"; deb(5).
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO

from coreimage.errors import DataError
from coreimage.lib import ar, compress

_SQUASHFS = (b"hsqs", b"sqsh")
_MOST_MEMBERS = 32
_FORMAT, _VERSION = "debian-binary", b"2."
_CLICK = "_click-binary"
_CONTROL, _FILES = "control.tar.", "data.tar."


@contextmanager
def package_stream(file: BinaryIO, *, name: str, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """Yield the tar stream with the files of a package, whose file is open.

    `scratch` is where the inside of a container lies meanwhile, by default where temporary files
    do. Raises DataError that names the file `name` for what is neither, or is damaged.
    """
    head = os.pread(file.fileno(), len(ar.MAGIC), 0)
    if head.startswith(_SQUASHFS):
        raise DataError(
            f"'{name}' is a squashfs, a snap of 2016 or later",
            hint="unpack it with unsquashfs, write a meta/package.yaml, and name the folder",
        )
    if head != ar.MAGIC:
        with compress.decompressing(file, name=name) as stream:
            yield stream
        return
    with tempfile.TemporaryFile(dir=scratch) as inside:
        member = _copy_files(file, inside, name)
        with compress.decompressing(inside, name=f"{name}: {member}") as stream:
            yield stream


def _copy_files(file: BinaryIO, target: IO[bytes], name: str) -> str:
    """Copy the member with the files, still compressed, and return what it is called."""
    try:
        member = _files_member(list(islice(ar.members(file), _MOST_MEMBERS + 1)), file)
        for chunk in ar.chunks(file, member):
            target.write(chunk)
    except ValueError as error:
        raise DataError(
            f"'{name}' is no package of the form of 2015: {error}",
            hint="name the path of a folder with meta/package.yaml, of a tar of it, or of a .snap",
        ) from error
    target.flush()
    return member.name


def _files_member(found: Sequence[ar.Member], file: BinaryIO) -> ar.Member:
    """Return the member that has the files; raises ValueError unless all are as they should be."""
    names = [member.name for member in found]
    if len(found) > _MOST_MEMBERS:
        raise ValueError(f"it has more than {_MOST_MEMBERS} members")
    if names[:1] != [_FORMAT] or not b"".join(ar.chunks(file, found[0])).startswith(_VERSION):
        raise ValueError(f"its first member is not '{_FORMAT}' of version 2")
    if _CLICK not in names:
        raise ValueError(f"it has no '{_CLICK}', as packages of Debian do not")
    for prefix in (_CONTROL, _FILES):
        if (count := sum(name.startswith(prefix) for name in names)) != 1:
            raise ValueError(f"it has {count} members '{prefix}*', expected one")
    for name in names[1:]:
        if not name.startswith((_CONTROL, _FILES, "_")):
            raise ValueError(f"nobody knows its member '{name}'")
    return next(member for member in found if member.name.startswith(_FILES))
