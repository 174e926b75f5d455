"""Which architectures' programs run on this machine: the processor's own, and by qemu-user.

The kernel starts qemu by itself for foreign programs that are registered with it. Source:
Documentation/admin-guide/binfmt-misc.rst of the kernel.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from coreimage.errors import RightsError

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# What a processor runs besides its own, and what qemu calls the others.
_ALSO = {"amd64": frozenset({"i386"})}
QEMU: Mapping[str, str] = {
    "amd64": "qemu-x86_64",
    "arm64": "qemu-aarch64",
    "armhf": "qemu-arm",
    "i386": "qemu-i386",
    "ppc64el": "qemu-ppc64le",
    "riscv64": "qemu-riscv64",
    "s390x": "qemu-s390x",
}


# Of Debian, its ports and its past: package lists of long ago name them, too.
OTHERS = (
    *("alpha", "arm", "armel", "avr32", "hppa", "hurd-amd64", "hurd-i386", "ia64", "loong64"),
    *("kfreebsd-amd64", "kfreebsd-i386", "m68k", "mips", "mips64el", "mipsel", "powerpc"),
    *("powerpcspe", "ppc64", "s390", "sh4", "sparc", "sparc64", "x32"),
)


def known_arches() -> list[str]:
    """Return the architectures that a machine may turn out to be able to build for."""
    return list(QEMU)


def buildable(arches: Iterable[str], *, host: str, binfmt: Path = BINFMT) -> list[str]:
    """Return the architectures whose programs run here: the processor's, and those qemu-user runs.

    `binfmt` is where the kernel lists the interpreters that it starts by itself.
    """
    return [arch for arch in arches if is_native(arch, host=host) or not obstacle(arch, binfmt)]


def is_native(arch: str, *, host: str) -> bool:
    """Tell whether the processor itself runs the programs of an architecture."""
    return arch == host or arch in _ALSO.get(host, ())


def require_buildable(arch: str, *, host: str, binfmt: Path = BINFMT) -> None:
    """Raise RightsError, with what to install or enable, unless programs of `arch` run here."""
    if is_native(arch, host=host):
        return
    missing = obstacle(arch, binfmt)
    if missing is not None:
        problem, hint = missing
        raise RightsError(
            f"programs of {arch} do not run on this {host} machine: {problem}", hint=hint
        )


def obstacle(arch: str, binfmt: Path = BINFMT) -> tuple[str, str] | None:
    """Return what keeps the kernel from starting a foreign program by qemu-user, and a remedy.

    The interpreter must be held open by the kernel (flag F): inside of a tree its path leads
    nowhere.
    """
    if arch not in QEMU:
        return f"there is no emulator for '{arch}'", f"build on a machine of {arch}"
    if not (binfmt / "register").exists():
        return (
            f"the kernel's binfmt_misc is not mounted on {binfmt}",
            f"as root: modprobe binfmt_misc; mount -t binfmt_misc binfmt_misc {binfmt}; "
            "then install the package qemu-user-static, or build on a machine of " + arch,
        )
    try:
        said = (binfmt / QEMU[arch]).read_text().split("\n")
    except OSError:
        return (
            f"'{QEMU[arch]}' is not registered with the kernel's binfmt_misc",
            "as root: apt-get install qemu-user-static, or systemctl restart systemd-binfmt",
        )
    if "enabled" not in said or (binfmt / "status").read_text().strip() == "disabled":
        return (
            f"'{QEMU[arch]}' is disabled in the kernel's binfmt_misc",
            f"as root: echo 1 | tee {binfmt}/status {binfmt}/{QEMU[arch]}",
        )
    if not any(line.startswith("flags:") and "F" in line[len("flags:") :] for line in said):
        return (
            f"'{QEMU[arch]}' is registered without flag F, so that trees would need it inside",
            "as root: apt-get install qemu-user-static",
        )
    return None
