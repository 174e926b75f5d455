"""Overlays: files of a definition as tars that are laid over the tree."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from coreimage.lib import tar
from coreimage.rootfs import ids
from coreimage.rootfs.archive import Archive
from coreimage.rootfs.definition import Selection
from coreimage.rootfs.plan import INSIDE, RootfsPlan


def write_overlays(selection: Selection, archive: Archive, plan: RootfsPlan) -> None:
    """Write the overlays of a plan: of archives, before the packages, and before the hooks."""
    if plan.archives_overlay is not None:
        files = {f"etc/apt/{name}": text for name, text in archive.apt_files().items()}
        write_overlay(files, plan.archives_overlay, plan.epoch)
    early = early_files(selection, plan.epoch)
    write_overlay(early, plan.early_overlay, plan.epoch)
    late: dict[str, Path | bytes] = dict(selection.files("includes.chroot"))
    for kind in ("chroot", "binary"):
        late.update({f"{INSIDE}/{name}": path for name, path in selection.hooks(kind).items()})
    write_overlay(late, plan.overlay, plan.epoch)


def early_files(selection: Selection, epoch: int) -> dict[str, Path | bytes]:
    """Return what is laid over the tree before packages are configured."""
    files: dict[str, Path | bytes] = dict(selection.files("includes.chroot_before_packages"))
    files.update({f"{INSIDE}/{n}": path for n, path in selection.hooks("chroot_early").items()})
    files.update({f"{INSIDE}/preseed/{n}": path for n, path in selection.preseeds().items()})
    pins = selection.pins()
    if pins is not None:
        files[f"{INSIDE}/pin-ids"] = ids.PIN_SCRIPT.encode()
        for name, text in ids.early_files(pins, epoch=epoch).items():
            files[f"{INSIDE}/ids/{name}"] = text
    return files


def write_overlay(files: Mapping[str, Path | bytes], target: Path, epoch: int) -> None:
    """Write files as a tar owned by root; what is given as bytes is no program.

    Directories are not named: those of the tree keep their modes, new ones get 0755. Modes are
    0755 or 0644, as git keeps them, whatever the umask of the checkout.
    """
    with target.open("wb") as output, tar.writing(output) as archive:
        for name, path in files.items():
            if isinstance(path, bytes):
                member = tar.entry(name, mtime=epoch, mode=0o644, size=len(path))
                archive.addfile(member, io.BytesIO(path))
                continue
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
