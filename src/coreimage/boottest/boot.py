"""Booting: run a disk without changing it until the system reports, fails or hangs."""

import os
import select
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from coreimage.boottest.accelerator import Accelerator
from coreimage.boottest.console import BoundedLog, Console
from coreimage.boottest.disk import look_at
from coreimage.boottest.judge import Judge
from coreimage.boottest.machine import (
    MEMORY,
    Machine,
    Serial,
    find_firmware,
    qemu_argv,
    require_disk,
)
from coreimage.boottest.platform import Firmware
from coreimage.boottest.report import Outcome, Report
from coreimage.lib import run
from coreimage.lib.progress import Progress

TIMEOUT = 300.0
_PORTION = 1 << 16
_END_GRACE = 3.0


def default_log(disk: Path, firmware: Firmware) -> Path:
    """Return where the console is kept when nobody says otherwise: beside the disk image."""
    folder = Path.cwd() if disk.is_block_device() else disk.parent
    return folder / f"{disk.name}.{firmware}.console.log"


def run_test(
    disk: Path,
    *,
    firmware: Firmware,
    accelerator: Accelerator,
    memory: int = MEMORY,
    timeout: float = TIMEOUT,
    console_log: Path,
    progress: Progress,
) -> Report:
    """Boot a disk and return how that went; the disk is not changed.

    Memory is in MiB, `timeout` in seconds for one attempt. A boot that hangs is tried once more,
    any other failure is final. Raises NotFoundError or DataError when there is no such disk,
    RightsError when QEMU or its firmware is missing, CommandError when QEMU itself fails.
    """
    require_disk(disk, firmware)
    facts = look_at(disk)
    machine = Machine(
        disk=disk,
        firmware=firmware,
        accelerator=accelerator.name,
        memory=memory,
        snapshot=True,
        online=False,
        arch=facts.arch,
        sector_size=facts.sector_size,
    )
    progress.stage(f"booting {disk.name} with {firmware} firmware on {accelerator.name}")
    retried = ""
    with console_log.open("wb") as file:
        log = BoundedLog(file)
        judge, console = follow(machine, timeout=timeout, log=log, progress=progress)
        if judge.verdict is not None and judge.verdict.outcome is Outcome.HUNG:
            retried = judge.verdict.reason
            progress.note(f"{retried}; trying once more")
            log.write(b"\n[coreimage: second attempt]\n")
            judge, console = follow(machine, timeout=timeout, log=log, progress=progress)
    assert judge.verdict is not None  # noqa: S101  what `follow` promises
    return Report(
        disk=disk,
        firmware=firmware,
        accelerator=accelerator,
        outcome=judge.verdict.outcome,
        reason=judge.verdict.reason,
        retried=retried,
        milestones=judge.milestones,
        system=judge.system,
        console_log=console_log,
        tail=console.last_lines(),
    )


def follow(
    machine: Machine, *, timeout: float, log: BoundedLog, progress: Progress
) -> tuple[Judge, Console]:
    """Run a machine until its judge has a verdict; return both judge and console.

    Raises CommandError when QEMU itself fails. QEMU has ended when this returns or raises.
    """
    files = find_firmware(machine.arch, machine.firmware)
    argv = qemu_argv(machine, serial=Serial.STREAM, firmware=files)
    judge, console = Judge(timeout=timeout), Console()
    begun = time.monotonic()
    with (
        tempfile.TemporaryFile() as complaints,
        run.start(argv, stdout=run.PIPE, stderr=complaints) as process,
    ):
        for data in _portions(process, judge, begun):
            log.write(data)
            _tell(judge, console, data, time.monotonic() - begun, progress)
        if judge.verdict is not None:
            run.terminate(process, grace=_END_GRACE)
            return judge, console
        process.wait()
        complaints.seek(0)
        said = complaints.read(_PORTION)
    if process.returncode:
        raise run.failure(run.Completed(argv=tuple(argv), status=process.returncode, stderr=said))
    for text in console.unfinished():
        judge.hear(text, time.monotonic() - begun)
    judge.end(time.monotonic() - begun)
    return judge, console


def _portions(process: run.Process[bytes], judge: Judge, begun: float) -> Iterator[bytes]:
    """Yield what the guest says until the judge has a verdict or the guest is gone."""
    assert process.stdout is not None  # noqa: S101  PIPE was asked for
    descriptor = process.stdout.fileno()
    while judge.verdict is None:
        judge.expire(time.monotonic() - begun)
        patience = max(0.0, judge.deadline - (time.monotonic() - begun))
        if not select.select([descriptor], [], [], patience)[0]:
            continue
        data = os.read(descriptor, _PORTION)
        if not data:
            return
        yield data


def _tell(judge: Judge, console: Console, data: bytes, at: float, progress: Progress) -> None:
    known = set(judge.milestones)
    for line in console.feed(data):
        judge.hear(line, at)
    for text in console.unfinished():
        judge.hear_prompt(text, at)
    for milestone, seconds in judge.milestones.items():
        if milestone not in known:
            progress.note(f"{milestone} after {seconds:.1f} s")
