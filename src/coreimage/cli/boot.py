"""`coreimage boot`: run a disk in QEMU, for a person or as a test."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from coreimage.boottest import boot as booting
from coreimage.boottest.accelerator import Accelerator, Name, detect
from coreimage.boottest.disk import DiskFacts, look_at
from coreimage.boottest.machine import (
    MEMORY,
    Machine,
    Serial,
    find_firmware,
    qemu_argv,
    require_disk,
)
from coreimage.boottest.platform import Firmware, platform_of
from coreimage.boottest.report import Milestone, Report
from coreimage.cli.console import JsonOption, print_json, print_table, progress
from coreimage.cli.space import host_arch
from coreimage.errors import UsageError
from coreimage.lib import run
from coreimage.lib.arches import is_native

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
        typer.Option(
            help="[default: what the disk is made for; with --test: all of that]",
            show_default=False,
        ),
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
    require_disk(disk)
    facts = look_at(disk)
    fitting = _fitting(facts)
    if not test:
        machine = Machine(
            disk=disk,
            firmware=_only(firmware or fitting[:1], "a terminal shows one machine"),
            accelerator=choose_accelerator(accel, facts.arch).name,
            memory=memory,
            snapshot=snapshot,
            online=True,
            ssh_port=ssh_port,
            arch=facts.arch,
            sector_size=facts.sector_size,
        )
        _become(machine)
    wanted = list(dict.fromkeys(firmware or fitting))
    for each in wanted:
        require_disk(disk, each)
    if console_log is not None:
        _only(wanted, "--console-log names one file")
    accelerator, shown = choose_accelerator(accel, facts.arch), progress()
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


def choose_accelerator(choice: AcceleratorChoice, arch: str) -> Accelerator:
    """Return the accelerator that the command line names, or the one that a probe prefers."""
    if choice is AcceleratorChoice.AUTO:
        return detect(native=is_native(arch, host=host_arch()))
    return Accelerator(name=Name(choice.value), reason="asked for")


def _fitting(facts: DiskFacts) -> list[Firmware]:
    """Return the firmwares that a disk is made for, the usual one first."""
    if facts.uboot:
        return [Firmware.UBOOT]
    # A BIOS cannot start from large sectors; 32-bit UEFI is rare, and asked for by name.
    plain = facts.sector_size == 512  # noqa: PLR2004
    unusual = {Firmware.UBOOT, *(() if plain else (Firmware.BIOS,))}
    if facts.arch == "i386":
        unusual.add(Firmware.UEFI)
    return [each for each in platform_of(facts.arch).firmwares if each not in unusual]


def _only(firmware: list[Firmware], why: str) -> Firmware:
    if len(firmware) != 1:
        raise UsageError(f"{why}, but {len(firmware)} boots are wanted", hint="name one --firmware")
    return firmware[0]


def _become(machine: Machine) -> NoReturn:
    require_disk(machine.disk, machine.firmware)
    files = find_firmware(machine.arch, machine.firmware)
    argv = qemu_argv(machine, serial=Serial.TERMINAL, firmware=files)
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
