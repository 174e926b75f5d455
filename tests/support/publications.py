"""Publications as a publisher makes them: real tarballs with signed checksums."""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from coreimage.config import Workspace
from coreimage.lib import files
from coreimage.lib.gpg import Signer
from coreimage.model.keyring import KeyringType
from coreimage.model.publication import (
    Publication,
    device_name,
    format_checksums,
    rootfs_name,
)

MTIME = 1431302400
SERIES = "vivid"


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    data: bytes = b"",
    linkname: str = "",
    mode: int = 0o644,
    mtime: int = MTIME,
    xattrs: Mapping[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tarball and its bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, linkname, mode, mtime
    info.size = len(data)
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    return info, data


def tarball(members: Sequence[tuple[tarfile.TarInfo, bytes]], *, compressed: bool = True) -> bytes:
    """Return a tarball, always the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return gzip.compress(buffer.getvalue(), mtime=0) if compressed else buffer.getvalue()


def rootfs_members(
    *, merged_usr: bool = True, text: str = "one"
) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return a small root file system that has everything an importer must look at."""
    lib = (
        [member("./lib", tarfile.SYMTYPE, linkname="usr/lib", mode=0o777)]
        if merged_usr
        else [member("./lib", tarfile.DIRTYPE, mode=0o755)]
    )
    return [
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("./SWAP.swap", data=b"swap"),
        member("./dev", tarfile.DIRTYPE, mode=0o755),
        member("./dev/null", tarfile.CHRTYPE, mode=0o666),
        member("./etc", tarfile.DIRTYPE, mode=0o755),
        member("./etc/mtab", data=b"nothing"),
        member("./etc/motd", data=text.encode()),
        *lib,
        member("./usr", tarfile.DIRTYPE, mode=0o755),
        member("./usr/bin", tarfile.DIRTYPE, mode=0o755),
        member("./usr/bin/a", data=b"a" * 70000, mode=0o4755, mtime=MTIME + 5),
        member("./usr/bin/b", tarfile.LNKTYPE, linkname="./usr/bin/a"),
        member("./usr/bin/c", tarfile.SYMTYPE, linkname="/usr/bin/a"),
        member("./usr/lib", tarfile.DIRTYPE, mode=0o755),
    ]


def device_members(text: str = "kernel") -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return a small device tarball."""
    return [
        member("hardware.yaml", data=b"kernel: assets/vmlinuz\n"),
        member("assets/vmlinuz", data=text.encode()),
    ]


def publish(
    workspace: Workspace,
    version: str,
    *,
    rootfs: bytes | None = None,
    device: bytes | None = None,
    good: bool = False,
) -> Path:
    """Make a publication of ubuntu-core and return its directory."""
    place = Publication(project="ubuntu-core", series=SERIES, version=version)
    directory = workspace.publications / place.path
    directory.mkdir(parents=True)
    contents = {
        rootfs_name(SERIES, "core", "amd64"): rootfs or tarball(rootfs_members()),
        device_name(SERIES, "core", "amd64"): device or tarball(device_members()),
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    sign(workspace, directory)
    if good:
        (directory / ".marked_good").touch()
    return directory


def sign(workspace: Workspace, directory: Path) -> None:
    """Write SHA256SUMS of what is in a publication, and sign it."""
    sums = {path.name: files.sha256_of(path) for path in directory.glob("*.gz")}
    path = directory / "SHA256SUMS"
    path.write_text(format_checksums(sums))
    Signer(workspace.gpg_home).sign(
        path, directory / "SHA256SUMS.gpg", key=KeyringType.IMAGE_SIGNING
    )
