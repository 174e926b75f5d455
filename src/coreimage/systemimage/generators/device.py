"""The generator of device files: the device tarball of a publication, as its maker laid it out."""

from typing import BinaryIO

from coreimage.lib import files
from coreimage.lib.files import Reader


def write(source: Reader, target: BinaryIO, *, name: str) -> None:
    """Copy a tar stream as it is."""
    del name
    files.copy_stream(source, target)
