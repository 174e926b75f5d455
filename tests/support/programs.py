"""The first bytes of programs and kernels, by which machines tell what they are for."""

import struct

# Class, byte order and e_machine. Source: elf(5), and the registry of e_machine.
_KINDS = {
    "amd64": (2, 1, 62),
    "arm64": (2, 1, 183),
    "armhf": (1, 1, 40),
    "i386": (1, 1, 3),
    "ppc64el": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}


def elf(arch: str) -> bytes:
    """Return the header of a shared executable for an architecture."""
    wide, order, machine = _KINDS[arch]
    ident = bytes([*b"\x7fELF", wide, order, 1]).ljust(16, b"\0")
    return ident + struct.pack(">HHI" if order == 2 else "<HHI", 3, machine, 1) + bytes(40)


def pc_kernel(*, wide: bool) -> bytes:
    """Return the head of a kernel for PCs, of 64 or of 32 bits."""
    head = bytearray(0x240)
    head[0x202:0x206] = b"HdrS"
    head[0x236] = int(wide)
    return bytes(head)
