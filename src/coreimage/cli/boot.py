"""`coreimage boot`: run a disk in QEMU, for a person or as a test."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from coreimage.boottest import boot as booting
from coreimage.boottest.accelerator import Accelerator, Name, detect
from coreimage.boottest.machine import (
    MEMORY,
    Firmware,
    Machine,
    Serial,
    find_flash,
    qemu_argv,
    require_disk,
)
from coreimage.boottest.report import Milestone, Report
from coreimage.cli.console import JsonOption, print_json, print_table, progress
from coreimage.errors import UsageError
from coreimage.lib import run

_SHOWN = 200


class AcceleratorChoice(StrEnum):
    """What --accel takes."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


def boot(
    disk: Annotated[Path, typer.Argument(help="The disk image.", show_default=False)],
    *,
    test: Annotated[
        bool, typer.Option("--test", help="Judge the boot by the system's own report.")
    ] = False,
    firmware: Annotated[
        list[Firmware] | None,
        typer.Option(help="[default: bios; with --test: both]", show_default=False),
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="MiB.")] = MEMORY,
    accel: Annotated[
        AcceleratorChoice, typer.Option(help="auto: kvm where a probe finds it working and fast.")
    ] = AcceleratorChoice.AUTO,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Do not write to the disk. A test never does.")
    ] = False,
    ssh_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of 127.0.0.1 that leads to the guest's port 22."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="With --test: seconds to wait for the report.")
    ] = booting.TIMEOUT,
    console_log: Annotated[
        Path | None,
        typer.Option(
            help="With --test: the file for the console. [default: DISK.FIRMWARE.console.log]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a disk in QEMU with its console in this terminal, or test whether it boots.

    \b
    Examples:
      coreimage boot core.img --ssh-port 2222
      coreimage boot core.img --test --firmware uefi

    With --test the exit code is 0 when every boot passed, and 1 when one failed.
    """  # noqa: D301  \b keeps the lines of the examples apart
    if not test:
        machine = Machine(
            disk=disk,
            firmware=_only(firmware or [Firmware.BIOS], "a terminal shows one machine"),
            accelerator=choose_accelerator(accel).name,
            memory=memory,
            snapshot=snapshot,
            online=True,
            ssh_port=ssh_port,
        )
        _become(machine)
    wanted = list(dict.fromkeys(firmware or Firmware))
    for each in wanted:
        require_disk(disk, each)
    if console_log is not None:
        _only(wanted, "--console-log names one file")
    accelerator, shown = choose_accelerator(accel), progress()
    reports = [
        booting.run_test(
            disk,
            firmware=each,
            accelerator=accelerator,
            memory=memory,
            timeout=timeout,
            console_log=console_log or booting.default_log(disk, each),
            progress=shown,
        )
        for each in wanted
    ]
    if as_json:
        print_json([report.to_json() for report in reports])
    else:
        _print_reports(reports)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def choose_accelerator(choice: AcceleratorChoice) -> Accelerator:
    """Return the accelerator that the command line names, or the one that a probe prefers."""
    if choice is AcceleratorChoice.AUTO:
        return detect()
    return Accelerator(name=Name(choice.value), reason="asked for")


def _only(firmware: list[Firmware], why: str) -> Firmware:
    if len(firmware) != 1:
        raise UsageError(f"{why}, but {len(firmware)} boots are wanted", hint="name one --firmware")
    return firmware[0]


def _become(machine: Machine) -> NoReturn:
    require_disk(machine.disk, machine.firmware)
    flash = find_flash() if machine.firmware is Firmware.UEFI else None
    argv = qemu_argv(machine, serial=Serial.TERMINAL, flash=flash)
    kept = "is lost when it ends" if machine.snapshot else "stays there"
    notes = [
        f"{machine.disk} runs on {machine.accelerator} with {machine.firmware} firmware",
        f"what it writes to its disk {kept}",
        "leave with Ctrl-A X; Ctrl-A C switches to QEMU's monitor and back",
    ]
    if machine.ssh_port is not None:
        notes.append(f"reach it with: ssh -p {machine.ssh_port} USER@127.0.0.1")
    print("\n".join(notes), file=sys.stderr, flush=True)
    run.replace(argv)


def _print_reports(reports: list[Report]) -> None:
    rows = [
        [
            report.firmware.value,
            report.accelerator.name.value,
            report.outcome.value,
            *(
                f"{report.milestones[milestone]:.1f}" if milestone in report.milestones else "-"
                for milestone in Milestone
            ),
            report.reason,
        ]
        for report in reports
    ]
    columns = ["firmware", "accelerator", "result", *(f"{name}, s" for name in Milestone)]
    print_table("Boots", [*columns, "reason"], rows)
    print(f"accelerator: {reports[0].accelerator.name}: {reports[0].accelerator.reason}")
    for report in reports:
        if report.retried:
            print(f"{report.firmware}: second attempt; the first one: {report.retried}")
        if not report.passed:
            print(f"{report.firmware}: the last lines of the console:")
            print("\n".join(f"  | {line[:_SHOWN]}" for line in report.tail))
        print(f"{report.firmware}: console: {report.console_log}")
