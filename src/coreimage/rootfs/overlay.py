"""Overlays: files of a definition as a tar that is laid over the tree."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

from coreimage.lib import tar
from coreimage.rootfs.definition import Selection
from coreimage.rootfs.plan import INSIDE, RootfsPlan


def write_overlays(selection: Selection, plan: RootfsPlan) -> None:
    """Write the two overlays of a plan: before the packages, and before the hooks."""
    write_overlay(
        selection.files("includes.chroot_before_packages"), plan.early_overlay, plan.epoch
    )
    hooks = {f"{INSIDE}/{name}": path for name, path in selection.hooks("chroot").items()}
    write_overlay({**selection.files("includes.chroot"), **hooks}, plan.overlay, plan.epoch)


def write_overlay(files: Mapping[str, Path], target: Path, epoch: int) -> None:
    """Write files as a tar owned by root.

    Directories are not named: those of the tree keep their modes, new ones get 0755. Modes are
    0755 or 0644, as git keeps them, whatever the umask of the checkout.
    """
    with target.open("wb") as output, tar.writing(output) as archive:
        for name, path in files.items():
            if path.is_symlink():
                link = str(path.readlink())
                archive.addfile(
                    tar.entry(name, mtime=epoch, mode=0o777, kind=tarfile.SYMTYPE, linkname=link)
                )
                continue
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as source:
                size = path.stat().st_size
                archive.addfile(tar.entry(name, mtime=epoch, mode=mode, size=size), source)
