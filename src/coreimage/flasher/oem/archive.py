"""The archive of an OEM package: the same bytes for the same package, whoever packs it and when."""

import io
import lzma
from pathlib import Path

from coreimage.errors import CoreImageError
from coreimage.flasher.oem.package import OemPackage
from coreimage.lib import files, tar

SUFFIX = ".tar.xz"


def archive_name(package: OemPackage) -> str:
    """Return the name of its archive: name, version and architecture, as Debian's packages."""
    info = package.info
    return f"{info.name}_{info.version}_{info.oem.hardware.architecture}{SUFFIX}"


def archive_bytes(package: OemPackage) -> bytes:
    """Return the archive: files alone, sorted, owned by root, from the first second of 1970."""
    buffer = io.BytesIO()
    with tar.writing(buffer) as archive:
        for path, file in sorted(package.files.items()):
            mode = 0o755 if file.executable else 0o644
            member = tar.entry(path, mtime=0, mode=mode, size=len(file.content))
            archive.addfile(member, io.BytesIO(file.content))
    return lzma.compress(buffer.getvalue(), check=lzma.CHECK_CRC32)


def write_archive(package: OemPackage, target: Path) -> None:
    """Write the archive as the new file `target`, unless that holds the very same already.

    Raises CoreImageError when something else is there.
    """
    content = archive_bytes(package)
    if target.exists():
        if target.is_file() and target.read_bytes() == content:
            return
        raise CoreImageError(
            f"'{target}' exists and is not overwritten",
            hint="raise the version in meta/package.yaml, or choose another --output",
        )
    files.write_atomically(target, content)
