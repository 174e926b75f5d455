"""The generator of keyring files: a keyring of the server, where clients look for it.

Source: wiki.ubuntu.com/ImageBasedUpgrades/GPG, and where clients of version 3 keep it.
"""

import io
from pathlib import Path
from typing import BinaryIO

from coreimage.lib import tar

NAME = "keyring"
REVISION = 1
_FOLDER = "system/usr/share/system-image"


def write(target: BinaryIO, *, keyring: Path, mtime: int) -> None:
    """Write the tar stream of a keyring tarball and its signature; `mtime` in UNIX seconds."""
    with tar.writing(target) as archive:
        for path in (keyring, keyring.with_name(f"{keyring.name}.asc")):
            data = path.read_bytes()
            name = f"{_FOLDER}/{path.name}"
            member = tar.entry(name, mtime=mtime, mode=0o644, size=len(data))
            archive.addfile(member, io.BytesIO(data))
