"""Accelerators: whether KVM answers, and whether it is worth having, found by starting a guest."""

import os
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from coreimage.errors import CommandError
from coreimage.lib import run

KVM_DEVICE = Path("/dev/kvm")
_DISK_SIZE = 1 << 20
# mov dx,0xf4; mov al,0x10; out dx,al; hlt; jmp to the hlt: tells the isa-debug-exit device 0x10.
_PROGRAM = bytes.fromhex("baf400 b010 ee f4 ebfd")
# isa-debug-exit ends QEMU with (value << 1) | 1. Source: QEMU, hw/misc/debugexit.c.
_ANSWER = 0x10 << 1 | 1
_TCG_PATIENCE = 20.0
# KVM that is itself emulated answers too, and is slower than QEMU's own translator. Real KVM
# answers as fast as that one or faster; the factor leaves room for a busy machine.
_KVM_PATIENCE = 1.0
_KVM_FACTOR = 3.0


class Name(StrEnum):
    """QEMU's names."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What a guest runs on, and why."""

    name: Name
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of starting a guest: the seconds it took, or None and what went wrong."""

    name: Name
    seconds: float | None
    problem: str = ""


def detect(*, native: bool = True) -> Accelerator:
    """Return the accelerator to use on this machine for its own programs, or for foreign ones.

    Raises RightsError when QEMU is missing and CommandError when it cannot run any guest.
    """
    if not native:
        return Accelerator(name=Name.TCG, reason="kvm runs the programs of its own machine only")
    return choose(*probes())


@cache
def probes() -> tuple[Probe, Probe]:
    """Start a guest under TCG and one under KVM; done once in a process. Errors as in `detect`."""
    run.require_program("qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="coreimage-probe-") as folder:
        disk = Path(folder, "probe.img")
        disk.write_bytes(_PROGRAM.ljust(510, b"\0") + b"\x55\xaa" + bytes(_DISK_SIZE - 512))
        tcg = probe(Name.TCG, disk, patience=_TCG_PATIENCE)
        if tcg.seconds is None:
            return tcg, Probe(name=Name.KVM, seconds=None, problem="kvm was not tried")
        problem = device_problem(KVM_DEVICE)
        if problem:
            return tcg, Probe(name=Name.KVM, seconds=None, problem=problem)
        return tcg, probe(Name.KVM, disk, patience=kvm_patience(tcg.seconds))


def kvm_patience(tcg_seconds: float) -> float:
    """Return within how many seconds KVM must answer when TCG took `tcg_seconds`."""
    return max(_KVM_PATIENCE, _KVM_FACTOR * tcg_seconds)


def device_problem(device: Path) -> str:
    """Return why the KVM device cannot be used, or the empty string."""
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"kvm is present but {device} may not be opened by this user"
    return ""


def probe(name: Name, disk: Path, *, patience: float) -> Probe:
    """Start a guest whose only work is to end with a known status; wait `patience` seconds."""
    begun = time.monotonic()
    try:
        ended = run.run(probe_argv(name, disk), timeout=patience, check=False)
    except CommandError:
        problem = f"{name} is present but a guest did not answer within {patience:.1f} s"
        return Probe(name=name, seconds=None, problem=problem)
    if ended.status == _ANSWER:
        return Probe(name=name, seconds=time.monotonic() - begun)
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    problem = said[-1] if said else f"a guest ended with {run.describe_status(ended.status)}"
    return Probe(name=name, seconds=None, problem=f"{name} does not work: {problem}")


def probe_argv(name: Name, disk: Path) -> list[str]:
    """Return the command that starts the probe's guest."""
    return [
        "qemu-system-x86_64",
        *("-accel", name.value),
        *("-machine", "pc"),
        *("-m", "32"),
        *("-display", "none"),
        "-nodefaults",
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        *("-drive", f"file={disk},format=raw,if=none,id=disk,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    ]


def choose(tcg: Probe, kvm: Probe) -> Accelerator:
    """Return KVM when it answered, else TCG with the reason; CommandError when neither did."""
    if tcg.seconds is None:
        raise CommandError(
            f"qemu cannot run a guest: {tcg.problem}",
            hint="install qemu-system-x86 and seabios, or repair them",
        )
    if kvm.seconds is not None:
        reason = f"kvm answered in {kvm.seconds:.2f} s, tcg in {tcg.seconds:.2f} s"
        return Accelerator(name=Name.KVM, reason=reason)
    return Accelerator(name=Name.TCG, reason=f"{kvm.problem}; tcg answered in {tcg.seconds:.2f} s")
