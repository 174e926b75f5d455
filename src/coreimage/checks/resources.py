"""Resources: firmware, boot loader modules, keyrings, accelerators, space and memory."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from coreimage.boottest.accelerator import KVM_DEVICE, Probe, choose, probes
from coreimage.boottest.platform import FLASH_FILES, FlashFiles
from coreimage.checks.check import Check, Status
from coreimage.errors import CoreImageError, RightsError
from coreimage.lib.arches import is_native, require_buildable

WORKSPACE_SPACE = 3 * 10**9
TEMPORARY_SPACE = 2 * 10**9
MEMORY = 2 * 10**9
# Those of the shipped definitions.
_ARCHES = ("amd64", "arm64", "armhf", "i386")
_OTHERS_MAY_PASS = 0o001
_GRUB = Path("/usr/lib/grub")
_GRUB_PACKAGES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin"}
_KEYRINGS = Path("/usr/share/keyrings")


def check_grub_modules(root: Path = _GRUB) -> list[Check]:
    """Return whether GRUB's modules are there for each platform."""
    return [
        _check_file(f"grub {platform}", [root / platform / "moddep.lst"], package)
        for platform, package in _GRUB_PACKAGES.items()
    ]


def check_firmware(candidates: Sequence[FlashFiles] = FLASH_FILES) -> Check:
    """Return whether QEMU has a UEFI firmware."""
    complete = [files.code for files in candidates if files.variables.is_file()]
    return _check_file("uefi firmware", complete, "ovmf")


def check_keyring(root: Path = _KEYRINGS) -> Check:
    """Return whether Debian's archive keys are there."""
    names = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
    package = "debian-archive-keyring"
    return _check_file("debian archive keyring", [root / name for name in names], package)


def _check_file(name: str, candidates: Sequence[Path], package: str) -> Check:
    for path in candidates:
        if path.is_file():
            return Check(name=name, status=Status.OK, found=str(path))
    return Check(
        name=name,
        status=Status.MISSING,
        found="not installed",
        mend=f"install the package {package}",
        packages=(package,),
    )


def check_foreign_arches(host: str) -> list[Check]:
    """Return which other architectures can be built here: nobody needs one, so none is missing."""
    return [_check_arch(arch, host) for arch in _ARCHES if arch != host]


def _check_arch(arch: str, host: str) -> Check:
    name = f"builds of {arch}"
    try:
        require_buildable(arch, host=host)
    except RightsError as error:
        return Check(
            name=name,
            status=Status.OPTIONAL,
            found=error.message,
            mend=error.hint,
        )
    found = "by the processor" if is_native(arch, host=host) else "by qemu-user"
    return Check(name=name, status=Status.OK, found=found)


def check_accelerators() -> list[Check]:
    """Return what guests can run on, found by starting two."""
    try:
        return judge_accelerators(*probes())
    except CoreImageError as error:
        mend = error.hint or "install the package qemu-system-x86"
        return [Check(name="accelerator", status=Status.MISSING, found=error.message, mend=mend)]


def judge_accelerators(tcg: Probe, kvm: Probe) -> list[Check]:
    """Return what the probes mean: without KVM boots are slow, without TCG too there are none."""
    if kvm.seconds is None:
        permission = KVM_DEVICE.exists() and not os.access(KVM_DEVICE, os.R_OK | os.W_OK)
        mend = "boots use tcg, which works and is slower"
        mend += "; sudo usermod --append --groups kvm $USER, then log in again" * permission
        kvm_check = Check(name="kvm", status=Status.WARNING, found=kvm.problem, mend=mend)
    else:
        found = f"a guest answered in {kvm.seconds:.2f} s"
        kvm_check = Check(name="kvm", status=Status.OK, found=found)
    try:
        chosen = choose(tcg, kvm)
    except CoreImageError as error:
        failed = Check(
            name="accelerator", status=Status.MISSING, found=error.message, mend=error.hint
        )
        return [kvm_check, failed]
    found = f"{chosen.name}: {chosen.reason}"
    return [kvm_check, Check(name="accelerator", status=Status.OK, found=found)]


def check_space(name: str, folder: Path, needed: int) -> Check:
    """Return whether the file system of a folder has `needed` bytes free."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 1e9:.1f} GB free in {existing}"
    if free >= needed:
        return Check(name=name, status=Status.OK, found=found)
    return Check(
        name=name,
        status=Status.MISSING,
        found=f"{found}, {needed / 1e9:.0f} GB needed",
        mend="free some space, or choose another place",
    )


def check_temporary(folder: Path | None = None) -> list[Check]:
    """Return whether temporary files have room, and whether mapped users reach them."""
    temporary = (folder or Path(tempfile.gettempdir())).resolve()
    checks = [check_space("space in TMPDIR", temporary, TEMPORARY_SPACE)]
    closed = [
        str(each)
        for each in (temporary, *temporary.parents)
        if each.exists() and not each.stat().st_mode & _OTHERS_MAY_PASS
    ]
    if closed and os.geteuid() != 0:
        checks.append(
            Check(
                name="TMPDIR",
                status=Status.WARNING,
                found=f"the mapped users of a build cannot pass {closed[-1]}",
                mend="set TMPDIR to a directory that others may pass, such as /var/tmp",
            )
        )
    return checks


def check_memory(information: Path = Path("/proc/meminfo")) -> Check:
    """Return whether there is memory for a build and a guest."""
    fields = dict(line.split(":", 1) for line in information.read_text().splitlines())
    total, free = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    found = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB available"
    if free >= MEMORY:
        return Check(name="memory", status=Status.OK, found=found)
    mend = f"builds and guests want {MEMORY / 1e9:.0f} GB: end something else, or use --memory"
    return Check(name="memory", status=Status.WARNING, found=found, mend=mend)
