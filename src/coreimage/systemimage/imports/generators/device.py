"""The generators of device and custom files: a publication's tarball as its maker laid it out."""

from typing import BinaryIO

from coreimage.errors import DataError
from coreimage.lib.files import Reader
from coreimage.systemimage.imports.generators import inspection

_TOPS = ("assets", "data", "hardware.yaml", "partitions", "system")


def write(source: Reader, target: BinaryIO, *, name: str) -> None:
    """Copy a tar stream as it is; DataError when clients would not know what to do with a member.

    Source of the top-level names: wiki.ubuntu.com/ImageBasedUpgrades/Upgrader.
    """
    for member in inspection.copy(source, target, archive=name):
        top = member.name.partition("/")[0]
        if top and top not in _TOPS:
            raise DataError(
                f"'{name}': '{member.name}' is in none of the folders that images have",
                hint="they are " + ", ".join(f"'{each}'" for each in _TOPS),
            )


def write_raw(source: Reader, target: BinaryIO, *, name: str) -> None:
    """Copy a tar stream as it is, whatever its folders are called."""
    for _ in inspection.copy(source, target, archive=name):
        pass
