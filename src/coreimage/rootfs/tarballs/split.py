"""Splitting a tree: what depends on the machine goes to the device tarball, the rest is the rootfs.

The device tarball has `assets/vmlinuz`, `assets/initrd.img` and `hardware.yaml` for the boot
loader, for u-boot `assets/dtbs` too, and the kernel's modules, firmware, configuration and symbols
below `system/`.
"""

import re
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from coreimage.errors import DataError
from coreimage.lib import tar
from coreimage.lib.files import CHUNK, Reader
from coreimage.model.hardware import Hardware
from coreimage.rootfs.tarballs.blocks import (
    BlockReader,
    Member,
    TarFile,
    gzipped_tar,
    members,
    padded,
)

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
    kernel_time: int = 0
    has_dtbs: bool = False
    copyrights: dict[str, bytes] = field(default_factory=dict)
    entries: int = 0
    rootfs_size: int = 0
    device_size: int = 0


def split(
    stream: Reader, *, rootfs: Path, device: Path | None, bootloader: str, level: int
) -> SplitResult:
    """Write a tree's tar stream as two gzipped tarballs, in one pass; raises DataError.

    Without `device` nothing is taken out of the tree. Device trees of the kernel become assets
    for u-boot, which must have them; other boot loaders get them from the firmware. What is added
    has the kernel's time.
    """
    result = SplitResult()
    reader = BlockReader(stream)
    with ExitStack() as stack:
        system = stack.enter_context(gzipped_tar(rootfs, level))
        machine = stack.enter_context(gzipped_tar(device, level)) if device else None
        for member in members(reader):
            if member.name.startswith("dev/") or (machine and _is_dropped(member.name)):
                reader.skip(padded(member.size))
                continue
            result.entries += 1
            name, link = _placed(member, result, bootloader) if machine else (None, member.link)
            if machine is None or name is None:
                result.rootfs_size += member.size
                system.write(member.rewritten(member.name or ".", link))
                _pass_on(reader, member, system, result)
            else:
                result.device_size += member.size
                machine.write(member.rewritten(name, link))
                _pass_on(reader, member, machine, result)
        if machine is not None:
            _add_hardware(machine, result, bootloader=bootloader)
    return result


def _pass_on(reader: BlockReader, member: Member, target: TarFile, result: SplitResult) -> None:
    """Copy the content of a member, and keep it where it is looked at afterwards."""
    kept = _KEPT.get(member.name) if member.size <= _MAX_KEPT else None
    about = _COPYRIGHT.fullmatch(member.name) if member.size <= _MAX_COPYRIGHT else None
    if kept is not None or (about is not None and member.kind == tarfile.REGTYPE):
        content = reader.take(padded(member.size))
        if kept is not None:
            setattr(result, kept, content[: member.size])
        elif about is not None:
            result.copyrights[about[1]] = content[: member.size]
        target.write(content)
        return
    left = padded(member.size)
    while left:
        chunk = reader.take(min(left, CHUNK))
        target.write(chunk)
        left -= len(chunk)


def _add_hardware(target: TarFile, result: SplitResult, *, bootloader: str) -> None:
    for kind in _ASSETS:
        if kind not in result.kernels:
            raise DataError(
                f"the built tree has no {kind} in /boot",
                hint="name a kernel package in the definition, or build it with subproject none",
            )
    hardware = Hardware(
        kernel=_ASSETS["vmlinuz"],
        initrd=_ASSETS["initrd.img"],
        bootloader=bootloader,
        dtbs=_DTBS if result.has_dtbs else "",
    )
    text = hardware.to_yaml().encode()
    target.add(
        tar.entry("hardware.yaml", mtime=result.kernel_time, mode=0o644, size=len(text)), text
    )


def _placed(member: Member, result: SplitResult, bootloader: str) -> tuple[str | None, str]:
    """Return where a member goes, as `_place` does, and its hard link pointed there too."""
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
        if kind == "vmlinuz":
            result.kernel_time = member.mtime
    place = _place(member.name, bootloader)
    result.has_dtbs = result.has_dtbs or (place or "").startswith(f"{_DTBS}/")
    if member.kind != tarfile.LNKTYPE:
        return place, member.link
    target = _place(member.link, bootloader)
    if (target is None) != (place is None) or _is_dropped(member.link):
        raise DataError(
            f"the built tree has a hard link '{member.name}' to '{member.link}', "
            "which goes to another tarball",
            hint="make it a symbolic link in a hook of the definition",
        )
    return place, target or member.link


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
