"""Splitting a tree: what depends on the machine goes to the device tarball, the rest is the rootfs.

The device tarball has `assets/vmlinuz`, `assets/initrd.img` and `hardware.yaml` for the boot
loader, for u-boot `assets/dtbs` too, and the kernel's modules, firmware, configuration and symbols
below `system/`.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from coreimage.errors import DataError
from coreimage.lib import tar
from coreimage.lib.files import Reader
from coreimage.model.hardware import Hardware
from coreimage.rootfs.gzipped import gzip_file

# What is looked at afterwards, by the field of the result that keeps it.
_KEPT = {"var/lib/dpkg/status": "status", "etc/passwd": "passwd", "etc/group": "group"}
_MAX_KEPT = 64 << 20
_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_MAX_COPYRIGHT = 1 << 20
_DEVICE_TREES = ("usr/lib/modules/", "usr/lib/firmware/", "lib/modules/", "lib/firmware/")
_KERNEL = re.compile(r"boot/(vmlinuz|initrd\.img)-(.+)")
# Where Debian's and Ubuntu's kernels keep their device trees.
_DEVICE_TREE = re.compile(r"(?:usr/)?lib/(?:linux-image-\d[^/]*|firmware/[^/]+/device-tree)(/.+)?")
_DTBS = "assets/dtbs"
_U_BOOT = "u-boot"
# Links to the newest kernel, which the boot loader does not follow.
_LINKS = frozenset(
    {"vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old", "boot/vmlinuz", "boot/initrd.img"}
    | {"boot/vmlinuz.old", "boot/initrd.img.old"}
)
_ASSETS = {"vmlinuz": "assets/vmlinuz", "initrd.img": "assets/initrd.img"}


@dataclass(slots=True, kw_only=True)
class SplitResult:
    """What went by: package database, users, groups, copyright files by package, sizes."""

    status: bytes = b""
    passwd: bytes = b""
    group: bytes = b""
    kernels: dict[str, str] = field(default_factory=dict)
    has_dtbs: bool = False
    copyrights: dict[str, bytes] = field(default_factory=dict)
    entries: int = 0
    rootfs_size: int = 0
    device_size: int = 0


def split(
    stream: Reader, *, rootfs: Path, device: Path | None, bootloader: str, epoch: int, level: int
) -> SplitResult:
    """Write a tree's tar stream as two gzipped tarballs, in one pass; raises DataError.

    Without `device` nothing is taken out of the tree. Device trees of the kernel become assets
    for u-boot, which must have them; other boot loaders get them from the firmware.
    """
    result = SplitResult()
    with ExitStack() as stack:
        source = stack.enter_context(tar.reading(stream, archive="the built tree"))
        system = stack.enter_context(_gzipped_tar(rootfs, level))
        machine = stack.enter_context(_gzipped_tar(device, level)) if device else None
        for member in tar.members(source, archive="the built tree"):
            if member.name.startswith("dev/") or (machine and _is_dropped(member.name)):
                continue
            result.entries += 1
            content = source.extractfile(member) if member.isreg() else None
            place = _placed(member, result, bootloader) if machine else None
            tar.plain(member)
            if member.name in _KEPT and content is not None:
                kept = content.read(_MAX_KEPT)
                setattr(result, _KEPT[member.name], kept)
                content = io.BytesIO(kept)
            about = _COPYRIGHT.fullmatch(member.name) if member.size <= _MAX_COPYRIGHT else None
            if about is not None and content is not None:
                result.copyrights[about[1]] = content.read()
                content = io.BytesIO(result.copyrights[about[1]])
            if machine is None or place is None:
                member.name = member.name or "."
                result.rootfs_size += member.size
                system.addfile(member, content)
            else:
                member.name = place
                result.device_size += member.size
                machine.addfile(member, content)
        if machine is None:
            return result
        for kind in _ASSETS:
            if kind not in result.kernels:
                raise DataError(
                    f"the built tree has no {kind} in /boot",
                    hint="name a kernel package in the definition, or set device_tarball = false",
                )
        hardware = Hardware(
            kernel=_ASSETS["vmlinuz"],
            initrd=_ASSETS["initrd.img"],
            bootloader=bootloader,
            dtbs=_DTBS if result.has_dtbs else "",
        )
        text = hardware.to_yaml().encode()
        machine.addfile(
            tar.entry("hardware.yaml", mtime=epoch, mode=0o644, size=len(text)), io.BytesIO(text)
        )
    return result


@contextmanager
def _gzipped_tar(path: Path, level: int) -> Iterator[tarfile.TarFile]:
    with gzip_file(path, level) as filtered, tar.writing(cast("BinaryIO", filtered)) as archive:
        yield archive


def _placed(member: tarfile.TarInfo, result: SplitResult, bootloader: str) -> str | None:
    """Return where a member goes, as `_place` does, with its hard link pointed there too."""
    kernel = _KERNEL.fullmatch(member.name)
    if kernel is not None:
        kind, release = kernel.groups()
        for known in result.kernels.values():
            if kind in result.kernels or known != release:
                raise DataError(
                    f"the built tree has two kernels, '{known}' and '{release}'",
                    hint="name one kernel package in the definition",
                )
        result.kernels[kind] = release
    place = _place(member.name, bootloader)
    result.has_dtbs = result.has_dtbs or (place or "").startswith(f"{_DTBS}/")
    if member.islnk():
        target = _place(member.linkname, bootloader)
        if (target is None) != (place is None) or _is_dropped(member.linkname):
            raise DataError(
                f"the built tree has a hard link '{member.name}' to '{member.linkname}', "
                "which goes to another tarball",
                hint="make it a symbolic link in a hook of the definition",
            )
        member.linkname = target or member.linkname
    return place


def _place(name: str, bootloader: str) -> str | None:
    """Return the name of a member in the device tarball, or None when it stays in the rootfs."""
    kernel = _KERNEL.fullmatch(name)
    if kernel is not None:
        return _ASSETS[kernel[1]]
    device_tree = _DEVICE_TREE.fullmatch(name)
    if device_tree is not None:
        return f"{_DTBS}{device_tree[1] or ''}" if bootloader == _U_BOOT else f"system/{name}"
    return f"system/{name}" if name.startswith(("boot/", *_DEVICE_TREES)) else None


def _is_dropped(name: str) -> bool:
    return name.startswith("dev/") or name in _LINKS
