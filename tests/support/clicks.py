"""Click containers: packages as they were made in 2015."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from coreimage.lib import ar

SIGNATURE = {"_gpgorigin": b"not looked at"}


def packed(root: Path) -> bytes:
    """Return a folder as the tar.gz that a container has, with names that begin with `./`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, ".")
    return gzip.compress(buffer.getvalue(), mtime=0)


def click(members: Mapping[str, bytes]) -> bytes:
    """Return a container of these members, in their order."""
    parts = [
        ar.header(name, len(data)) + data + b"\n" * (len(data) % 2)
        for name, data in members.items()
    ]
    return ar.MAGIC + b"".join(parts)


def members_of(root: Path) -> dict[str, bytes]:
    """Return the members that the container of a package has."""
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:gz") as archive:
        text = b"Package: hello\nVersion: 1.0\nClick-Version: 0.4\nArchitecture: all\n"
        member = tarfile.TarInfo("./control")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return {
        "debian-binary": b"2.0\n",
        "_click-binary": b"0.4\n",
        "control.tar.gz": control.getvalue(),
        "data.tar.gz": packed(root),
    }
