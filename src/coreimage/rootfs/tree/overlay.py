"""Overlays: files of a definition as tars that are laid over the tree."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from coreimage.lib import tar
from coreimage.rootfs.archives.archive import Archive
from coreimage.rootfs.definitions import ids
from coreimage.rootfs.definitions.definition import Selection
from coreimage.rootfs.plan import INSIDE, STUBS, RootfsPlan

# What apt and dpkg expect to find, and what a system has before its first package.
_FOLDERS = (
    *("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d"),
    *("etc/dpkg/dpkg.cfg.d", "usr/sbin", "var/cache/apt/archives/partial"),
    *("var/lib/apt/lists/partial", "var/lib/dpkg/alternatives", "var/lib/dpkg/info"),
    *("var/lib/dpkg/triggers", "var/lib/dpkg/updates", "var/log/apt"),
)
_MERGED = ("bin", "lib", "lib64", "sbin")
# Programs are not started in a tree (invoke-rc.d(8)).
_POLICY = b"#!/bin/sh\nexit 101\n"


def write_overlays(selection: Selection, plan: RootfsPlan) -> None:
    """Write what can be known before packages are there: the overlays that have files of ours."""
    layout, epoch = plan.layout, plan.epoch
    write_overlay(early_files(selection, epoch), layout.overlay("early"), epoch)
    late: dict[str, Path | bytes] = dict(selection.files("includes.chroot"))
    late.update({f"{INSIDE}/{n}": path for n, path in selection.hooks("chroot").items()})
    write_overlay(late, layout.overlay("late"), epoch)
    for name, path in selection.hooks("binary").items():
        copy = layout.hooks / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o755)
    for program, text in STUBS.items():
        stub = layout.stub(program)
        stub.write_text(text)
        stub.chmod(0o755)


def base_files(selection: Selection, archive: Archive) -> dict[str, bytes]:
    """Return the files that a tree begins with."""
    definition = selection.definition
    filters = [
        *(f"path-exclude={pattern}" for pattern in definition.exclude_paths),
        *(f"path-include={pattern}" for pattern in definition.include_paths),
    ]
    named = {
        "etc/apt/apt.conf.d/99coreimage": ['APT::Install-Recommends "false";'],
        "etc/apt/sources.list": archive.sources,
        "etc/dpkg/dpkg.cfg.d/99coreimage": filters,
        "etc/fstab": ["# UNCONFIGURED FSTAB FOR BASE SYSTEM"],
        "var/lib/dpkg/arch": [selection.arch],
        "var/lib/dpkg/status": [],
    }
    files = {
        name: "".join(f"{line}\n" for line in lines).encode()
        for name, lines in named.items()
        if lines or not name.startswith("etc/dpkg")
    }
    return files | {f"etc/apt/{name}": text for name, text in archive.apt_files().items()}


def write_base(files: Mapping[str, bytes], target: Path, epoch: int, *, merged: bool) -> None:
    """Write what a tree begins with; `merged` says that /bin and its like lie below /usr.

    That saves the package usrmerge from moving it all there afterwards, to the same end.
    """
    folders = {str(parent) for name in _FOLDERS for parent in (Path(name), *Path(name).parents)}
    folders |= {f"usr/{name}" for name in _MERGED} if merged else set()
    with target.open("wb") as output, tar.writing(output) as archive:
        for name in sorted({*folders, "tmp"}):
            mode = 0o1777 if name == "tmp" else 0o755
            archive.addfile(tar.entry(name, mtime=epoch, mode=mode, kind=tarfile.DIRTYPE))
        for name in _MERGED if merged else ():
            archive.addfile(
                tar.entry(
                    name, mtime=epoch, mode=0o777, kind=tarfile.SYMTYPE, linkname=f"usr/{name}"
                )
            )
        for name, text in (*files.items(), ("usr/sbin/policy-rc.d", _POLICY)):
            mode = 0o755 if text is _POLICY else 0o644
            member = tar.entry(name, mtime=epoch, mode=mode, size=len(text))
            archive.addfile(member, io.BytesIO(text))


def marks(automatic: Iterable[str], arch: str) -> bytes:
    """Return apt's list of packages that are there only because others need them."""
    return "".join(
        f"Package: {name}\nArchitecture: {arch}\nAuto-Installed: 1\n\n"
        for name in sorted(automatic)
    ).encode()


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

    Directories are named where they are empty, else not: those of the tree keep their modes, new
    ones get 0755. Modes are 0755 or 0644, as git keeps them, whatever the umask of the checkout.
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
            if path.is_dir():
                folder = tar.entry(name, mtime=epoch, mode=0o755, kind=tarfile.DIRTYPE)
                archive.addfile(folder)
                continue
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as source:
                size = path.stat().st_size
                archive.addfile(tar.entry(name, mtime=epoch, mode=mode, size=size), source)
