"""What a new disk is filled with: which file systems and which bytes, and where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreimage.errors import DataError
from coreimage.flasher.disk.filesystems import make_ext4, make_fat
from coreimage.flasher.disk.grub import BOOT_LABEL
from coreimage.flasher.disk.layout import Layout, Partition, derive_uuid
from coreimage.flasher.disk.loader import bios_pieces, make_loader
from coreimage.flasher.disk.newdisk import NewDisk
from coreimage.flasher.disk.plan import Piece, raw_pieces, table_pieces
from coreimage.flasher.disk.space import Space
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.own.machine import Own
from coreimage.flasher.provision import Access
from coreimage.flasher.tree.staging import Staging
from coreimage.lib import files
from coreimage.lib.progress import Progress

SLOT, WRITABLE = "system-a", "writable"
_FILE_SYSTEMS = (BOOT_LABEL, SLOT, WRITABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskContent:
    """What a disk is made of.

    `boot_files` are by path on the boot partition, `time` is in UNIX seconds.
    """

    system: Staging
    boot_files: Mapping[str, bytes | Path]
    oem: OemPackage
    access: Access
    own: Own
    install_yaml: str
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskParts:
    """What is on a disk: the names of the partitions with a content, and bytes outside of them."""

    filled: Sequence[str]
    pieces: Sequence[Piece]


def fill(
    disk: NewDisk,
    content: DiskContent,
    *,
    layout: Layout,
    seed: bytes,
    scratch: Path,
    progress: Progress,
) -> DiskParts:
    """Write everything that belongs on a disk, and say where it is.

    Raises DataError for what does not fit, NoSpaceError when there is no space for it.
    """
    loader = make_loader(content.oem, layout, scratch=scratch)
    raw = raw_pieces(content.oem, layout, boot_code=loader.bios is not None)
    pieces = table_pieces(layout)
    if loader.bios is not None:
        pieces += bios_pieces(loader.bios, layout)
    contents = content.oem.partition_contents()
    for name, data in contents.items():
        _check_fit(name, len(data), layout.partition(name).size)
        disk.write(data, layout.partition(name).start)
    _fill_partitions(
        disk, content, loader.files, layout=layout, seed=seed, scratch=scratch, task=progress
    )
    for piece in [*pieces, *raw]:
        disk.write(piece.data, piece.offset)
    return DiskParts(filled=[*_FILE_SYSTEMS, *contents], pieces=[*pieces, *raw])


def _check_fit(name: str, size: int, room: int) -> None:
    if size > room:
        raise DataError(f"the content of '{name}' has {size} bytes, its partition only {room}")


def _fill_partitions(
    disk: NewDisk,
    content: DiskContent,
    loader_files: Mapping[str, bytes],
    *,
    layout: Layout,
    seed: bytes,
    scratch: Path,
    task: Progress,
) -> None:
    spaces = {name: _space(disk, layout.partition(name)) for name in _FILE_SYSTEMS}
    install = {"install.yaml": content.install_yaml.encode()}
    boot_files = {**content.boot_files, **loader_files, **install}
    trees = {SLOT: content.system, WRITABLE: _writable(content, scratch)}
    needed = sum(_size(each) for each in boot_files.values())
    needed += sum(tree.content_size for tree in trees.values())
    files.require_space(disk.directory, needed, purpose="the disk image")
    with task.task("making file systems", len(spaces), unit="steps") as steps:
        make_fat(
            boot_files,
            spaces[BOOT_LABEL],
            label=BOOT_LABEL,
            volume_id=derive_uuid(seed, "FAT volume").int >> 96,
            time=content.time,
            scratch=scratch,
            sector_size=layout.sector_size,
        )
        steps.advance(1)
        for name, tree in trees.items():
            make_ext4(
                tree,
                spaces[name],
                label=name,
                uuid=derive_uuid(seed, f"file system {name}"),
                hash_seed=derive_uuid(seed, f"directory hashes {name}"),
                time=content.time,
                scratch=scratch,
                journal=name == WRITABLE,
            )
            steps.advance(1)


def _space(disk: NewDisk, partition: Partition) -> Space:
    return Space(image=disk.path, start=partition.start, size=partition.size)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _writable(content: DiskContent, scratch: Path) -> Staging:
    tree = Staging(scratch / "writable")
    tree.put_directory("system-data")
    content.oem.install(tree)
    content.access.install(tree)
    content.own.install(tree, content.system)
    return tree
