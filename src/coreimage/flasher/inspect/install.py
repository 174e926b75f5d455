"""Reading files of a disk's partitions, the record of how it was made among them."""

from pathlib import Path

from coreimage.errors import CommandError, DataError
from coreimage.flasher.disk.layout import Layout
from coreimage.flasher.inspect.table import read_layout
from coreimage.flasher.record import INSTALL_YAML, TOOL, Record
from coreimage.lib import run


def read_install(disk: Path) -> Record | None:
    """Return the record of a disk that we made, or None for any other file."""
    try:
        return install_of(disk, read_layout(disk))
    except DataError:
        return None


def install_of(disk: Path, layout: Layout) -> Record | None:
    """Return the same of a disk whose partitions are known."""
    try:
        record = Record.from_yaml(read_boot_file(disk, layout, INSTALL_YAML), source=str(disk))
    except DataError:
        return None
    return record if record.tool.name == TOOL else None


def read_boot_file(disk: Path, layout: Layout, path: str) -> bytes:
    """Return a file of the boot partition, empty when it is not there."""
    if not layout.has("system-boot"):
        return b""
    drive = f"{disk}@@{layout.partition('system-boot').start}"
    try:
        return run.run(["mtype", "-i", drive, f"::/{path}"]).stdout
    except CommandError:
        return b""


def read_file(disk: Path, layout: Layout, partition: str, path: str) -> bytes:
    """Return a file of an ext4 partition, symlinks not followed; empty when it is not there."""
    if not layout.has(partition) or any(each in path for each in '"\n'):
        return b""
    image = f"{disk}?offset={layout.partition(partition).start}"
    try:
        return run.run(["debugfs", "-R", f'cat "/{path}"', image]).stdout
    except CommandError:
        return b""
