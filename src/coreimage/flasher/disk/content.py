"""The file systems of a new disk: what goes into which partition, and their images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coreimage.flasher.disk.filesystems import make_ext4, make_fat
from coreimage.flasher.disk.grub import BOOT_LABEL
from coreimage.flasher.disk.layout import Layout, derive_uuid
from coreimage.flasher.disk.loader import bios_pieces, make_loader
from coreimage.flasher.disk.plan import Piece, raw_pieces, table_pieces
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.own.machine import Own
from coreimage.flasher.provision import Access
from coreimage.flasher.tree.staging import Staging
from coreimage.lib.progress import Progress


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
    """A disk in parts: images by the names of partitions, and bytes outside of them."""

    images: Mapping[str, Path]
    pieces: list[Piece]


def make_parts(
    content: DiskContent, *, layout: Layout, seed: bytes, scratch: Path, progress: Progress
) -> DiskParts:
    """Make an image of every partition that is not empty, and all bytes that lie elsewhere."""
    loader = make_loader(content.oem, layout, scratch=scratch)
    raw = raw_pieces(content.oem, layout, boot_code=loader.bios is not None)
    pieces = table_pieces(layout)
    if loader.bios is not None:
        pieces += bios_pieces(loader.bios, layout)
    images = _images(
        content, loader.files, layout=layout, seed=seed, scratch=scratch, task=progress
    )
    for name, data in content.oem.partition_contents().items():
        images[name] = scratch / f"raw-{name}.img"
        images[name].write_bytes(data)
    return DiskParts(images=images, pieces=[*pieces, *raw])


def _images(
    content: DiskContent,
    loader_files: Mapping[str, bytes],
    *,
    layout: Layout,
    seed: bytes,
    scratch: Path,
    task: Progress,
) -> dict[str, Path]:
    images = {name: scratch / f"{name}.img" for name in (BOOT_LABEL, "system-a", "writable")}
    install = {"install.yaml": content.install_yaml.encode()}
    with task.task("making file systems", len(images), unit="steps") as steps:
        make_fat(
            {**content.boot_files, **loader_files, **install},
            images[BOOT_LABEL],
            size=layout.partition(BOOT_LABEL).size,
            label=BOOT_LABEL,
            volume_id=derive_uuid(seed, "FAT volume").int >> 96,
            time=content.time,
            scratch=scratch,
            sector_size=layout.sector_size,
        )
        steps.advance(1)
        trees = {"system-a": content.system, "writable": _writable(content, scratch)}
        for name, tree in trees.items():
            make_ext4(
                tree,
                images[name],
                size=layout.partition(name).size,
                label=name,
                uuid=derive_uuid(seed, f"file system {name}"),
                hash_seed=derive_uuid(seed, f"directory hashes {name}"),
                time=content.time,
                scratch=scratch,
                journal=name == "writable",
            )
            steps.advance(1)
    return images


def _writable(content: DiskContent, scratch: Path) -> Staging:
    tree = Staging(scratch / "writable")
    tree.put_directory("system-data")
    content.oem.install(tree)
    content.access.install(tree)
    content.own.install(tree, content.system)
    return tree
