"""The file systems of a new disk: what goes into which partition, and their images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coreimage.flasher.disk.filesystems import make_ext4, make_fat
from coreimage.flasher.disk.grub import (
    BOOT_LABEL,
    GRUB_DIRECTORY,
    UEFI_PATH,
    BiosGrub,
    grub_bios,
    grub_config,
    grub_uefi,
    grubenv,
)
from coreimage.flasher.disk.layout import Layout, derive_uuid
from coreimage.flasher.oem.package import OemPackage
from coreimage.flasher.provision import Access
from coreimage.flasher.tree.staging import Staging
from coreimage.lib.progress import Progress

_FRESH = {"snappy_ab": "a", "snappy_mode": "regular", "snappy_trial_boot": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskContent:
    """What a disk is made of.

    `boot_files` are by path on the boot partition, `time` is in UNIX seconds.
    """

    system: Staging
    boot_files: Mapping[str, bytes | Path]
    oem: OemPackage
    access: Access
    install_yaml: str
    time: int


def make_images(
    content: DiskContent, *, layout: Layout, seed: bytes, scratch: Path, progress: Progress
) -> tuple[dict[str, Path], BiosGrub]:
    """Make an image of every partition that is not empty, and the boot loader for BIOS."""
    boot = grub_bios(core_offset=layout.partition("grub").start, scratch=scratch)
    images = {name: scratch / f"{name}.img" for name in (BOOT_LABEL, "system-a", "writable")}
    with progress.task("making file systems", len(images), unit="steps") as task:
        make_fat(
            {**content.boot_files, **_loader_files(scratch, content)},
            images[BOOT_LABEL],
            size=layout.partition(BOOT_LABEL).size,
            label=BOOT_LABEL,
            volume_id=derive_uuid(seed, "FAT volume").int >> 96,
            time=content.time,
            scratch=scratch,
        )
        task.advance(1)
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
            task.advance(1)
    return images, boot


def _loader_files(scratch: Path, content: DiskContent) -> dict[str, bytes]:
    return {
        UEFI_PATH: grub_uefi(scratch=scratch),
        f"{GRUB_DIRECTORY}/grub.cfg": grub_config().encode(),
        f"{GRUB_DIRECTORY}/grubenv": grubenv(_FRESH),
        "install.yaml": content.install_yaml.encode(),
    }


def _writable(content: DiskContent, scratch: Path) -> Staging:
    tree = Staging(scratch / "writable")
    tree.put_directory("system-data")
    content.oem.install(tree)
    content.access.install(tree)
    return tree
