"""Which architectures this machine can build for."""

from collections.abc import Iterable
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# What a processor runs besides its own, and what qemu calls the others.
_ALSO = {"amd64": frozenset({"i386"})}
_QEMU = {
    "amd64": "qemu-x86_64",
    "arm64": "qemu-aarch64",
    "armhf": "qemu-arm",
    "i386": "qemu-i386",
    "ppc64el": "qemu-ppc64le",
    "riscv64": "qemu-riscv64",
    "s390x": "qemu-s390x",
}


def known_arches() -> list[str]:
    """Return the architectures that a machine may turn out to be able to build for."""
    return list(_QEMU)


def buildable(arches: Iterable[str], *, host: str, binfmt: Path = BINFMT) -> list[str]:
    """Return the architectures whose programs run here: the processor's, and those qemu-user runs.

    `binfmt` is where the kernel lists the interpreters that it starts by itself.
    """
    return [
        arch
        for arch in arches
        if arch == host or arch in _ALSO.get(host, ()) or _runs_by_qemu(arch, binfmt)
    ]


def _runs_by_qemu(arch: str, binfmt: Path) -> bool:
    try:
        return arch in _QEMU and (binfmt / _QEMU[arch]).read_text().startswith("enabled")
    except OSError:
        return False
