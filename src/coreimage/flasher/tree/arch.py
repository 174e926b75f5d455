"""Architectures: what programs and kernels are for, told by their first bytes.

Sources: elf(5); of the kernel, Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header"),
arch/arm64/booting.rst and arch/riscv/boot-image-header.rst, arch/arm/boot/compressed/head.S.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from coreimage.errors import DataError, NotFoundError
from coreimage.flasher.tree.staging import Staging

# How many bytes of a file tell what it is for.
_HEAD = 0x240
# Programs that a system has, whatever it is for.
_EVERYWHERE = ("sbin/init", "bin/sh", "usr/bin/dpkg", "usr/bin/true")
_ELF = b"\x7fELF"
_BIG_ENDIAN = 2
# Class, byte order and e_machine of each architecture's programs.
_PROGRAMS: Mapping[tuple[int, int, int], str] = {
    (1, 1, 3): "i386",
    (1, 1, 40): "armhf",
    (2, 1, 21): "ppc64el",
    (2, 1, 62): "amd64",
    (2, 1, 183): "arm64",
    (2, 1, 243): "riscv64",
    (2, 2, 22): "s390x",
}
# Where other kernels than those of PCs say what they are.
_KERNELS = (
    (0x38, b"ARM\x64", "arm64"),
    (0x38, b"RSC\x05", "riscv64"),
    (0x24, b"\x18\x28\x6f\x01", "armhf"),
)
_PC_MAGIC = 0x202, b"HdrS"
_PC_FLAGS = 0x236
_KERNEL_64 = 1


def program_arches(head: bytes) -> Sequence[str]:
    """Return the architecture of a program; nothing for what is none, or for one not known here."""
    if not head.startswith(_ELF) or len(head) < 20:  # noqa: PLR2004  the end of e_machine
        return ()
    order: Literal["big", "little"] = "big" if head[5] == _BIG_ENDIAN else "little"
    arch = _PROGRAMS.get((head[4], head[5], int.from_bytes(head[18:20], order)))
    return (arch,) if arch else ()


def kernel_arches(head: bytes) -> Sequence[str]:
    """Return the architectures whose systems a kernel can run; nothing when it does not say."""
    at, magic = _PC_MAGIC
    if head[at : at + len(magic)] == magic:
        wide = head[_PC_FLAGS : _PC_FLAGS + 1] and head[_PC_FLAGS] & _KERNEL_64
        return ("amd64", "i386") if wide else ("i386",)
    return [arch for at, magic, arch in _KERNELS if head[at : at + len(magic)] == magic]


def check_arch(arch: str, *, system: Staging, boot: Staging, kernel: str, oem: str) -> None:
    """Raise DataError when programs of a system or its kernel do not run on an architecture.

    Channels, devices and file names only say what an image should be for. What does not say what
    it is for, such as a script, is passed over.
    """
    looks = [(system, path, program_arches) for path in _EVERYWHERE]
    looks.append((boot, kernel, kernel_arches))
    for tree, path, arches_of in looks:
        found = arches_of(_head(tree, path))
        if found and arch not in found:
            raise DataError(
                f"'{path}' of the image is for {' and '.join(found)}, "
                f"OEM package '{oem}' for {arch}",
                hint="name an OEM package of that architecture with --oem, or another image",
            )


def _head(tree: Staging, path: str) -> bytes:
    try:
        with tree.file(path).open("rb") as file:
            return file.read(_HEAD)
    except NotFoundError:
        return b""
