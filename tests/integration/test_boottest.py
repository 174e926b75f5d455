"""Real QEMU runs of guests that are one boot sector, or GRUB alone, under TCG."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha256
from pathlib import Path

import pytest

from coreimage.boottest import boot
from coreimage.boottest.accelerator import Accelerator, Name, Probe, detect, probe, probes
from coreimage.boottest.platform import Firmware
from coreimage.boottest.report import Milestone, Outcome, Report
from coreimage.errors import CommandError
from coreimage.lib import run
from coreimage.lib.progress import Silent
from tests.support.guests import HEALTHY, Action, make_disk

TCG = Accelerator(name=Name.TCG, reason="asked for")
PATIENCE = 60.0


def run_test(
    disk: Path, *, firmware: Firmware = Firmware.BIOS, timeout: float = PATIENCE, memory: int = 128
) -> Report:
    return boot.run_test(
        disk,
        firmware=firmware,
        accelerator=TCG,
        memory=memory,
        timeout=timeout,
        console_log=boot.default_log(disk, firmware),
        progress=Silent(),
    )


def test_a_probe_starts_a_real_guest() -> None:
    tcg, kvm = probes()
    assert tcg.seconds is not None
    assert kvm.seconds is not None or kvm.problem


def test_the_chosen_accelerator_has_answered() -> None:
    chosen = detect()
    answers = {each.name: each.seconds for each in probes()}
    assert answers[chosen.name] is not None
    assert chosen.reason


def test_a_guest_that_does_not_answer_in_time_is_a_problem(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "hang.img", "")
    said = probe(Name.TCG, disk, patience=0.5)
    assert said == Probe(
        name=Name.TCG,
        seconds=None,
        problem="tcg is present but a guest did not answer within 0.5 s",
    )


def test_qemus_complaint_is_the_problem(tmp_path: Path) -> None:
    said = probe(Name.TCG, tmp_path / "absent.img", patience=PATIENCE)
    assert said.seconds is None
    assert said.problem.startswith("tcg does not work: ")
    assert "No such file" in said.problem


def test_a_healthy_guest_passes_and_its_disk_stays_as_it_was(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", HEALTHY)
    before = sha256(disk.read_bytes()).hexdigest()
    report = run_test(disk)
    assert report.passed
    assert report.reason == "the system is running"
    assert report.system is not None
    assert (report.system.slot, report.system.build) == ("a", "1")
    assert report.milestones[Milestone.REPORT] >= report.milestones[Milestone.FIRMWARE] > 0
    assert report.console_log == tmp_path / "core.img.bios.console.log"
    assert HEALTHY.strip() in report.console_log.read_text()
    assert sha256(disk.read_bytes()).hexdigest() == before


def test_a_disk_that_may_only_be_read_boots_too(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core,1.img", HEALTHY)
    disk.chmod(0o444)
    assert run_test(disk).passed


@pytest.mark.parametrize(
    ("text", "action", "reason"),
    [
        ("coreimage-report: state=degraded failed=a.service\r\n", Action.HANG, "failed: a.service"),
        ("[    1.5] Kernel panic - not syncing: no root\r\n", Action.HANG, "kernel panic: no root"),
        ("error: no such device.\r\ngrub rescue> ", Action.HANG, "grub stopped at its prompt"),
        ("(none)\r\n(initramfs) ", Action.HANG, "the initramfs gave up"),
        ("starting\r\n", Action.RESET, "the machine restarted or switched off"),
    ],
)
def test_failures_are_seen_at_once(tmp_path: Path, text: str, action: Action, reason: str) -> None:
    report = run_test(make_disk(tmp_path / "core.img", text, action))
    assert report.outcome is Outcome.FAILED
    assert reason in report.reason
    assert report.retried == ""


def test_a_report_before_a_restart_counts(tmp_path: Path) -> None:
    assert run_test(make_disk(tmp_path / "core.img", HEALTHY, Action.RESET)).passed


def test_the_last_words_count_without_a_line_end(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", "[ 1.5] Kernel panic - not syncing: x", Action.RESET)
    assert run_test(disk).reason.startswith("kernel panic: x")


def test_a_hang_is_tried_twice_and_told(tmp_path: Path) -> None:
    report = run_test(make_disk(tmp_path / "core.img", "starting\r\n"), timeout=2.0)
    assert report.outcome is Outcome.HUNG
    assert report.retried == report.reason
    assert "within 2 s" in report.reason
    assert report.tail[-1].endswith("starting")
    assert "[coreimage: second attempt]" in report.console_log.read_text()


def test_a_guest_that_talks_without_end_is_ended(tmp_path: Path) -> None:
    report = run_test(make_disk(tmp_path / "core.img", "talk ", Action.REPEAT), timeout=2.0)
    assert report.outcome is Outcome.HUNG
    assert report.console_log.stat().st_size < 20 << 20


def test_a_complaint_of_qemu_is_not_the_disks_failure(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", HEALTHY)
    with pytest.raises(CommandError, match="'qemu-system-x86_64' failed, exit status 1"):
        run_test(disk, memory=1 << 40)


def test_uefi_finds_nothing_to_boot_on_a_bios_disk(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", HEALTHY)
    report = run_test(disk, firmware=Firmware.UEFI, memory=256)
    assert report.outcome is Outcome.FAILED
    assert report.reason.startswith("the firmware found nothing to boot")


def test_uefi_starts_grub_from_the_removable_path(tmp_path: Path) -> None:
    report = run_test(make_uefi_disk(tmp_path), firmware=Firmware.UEFI, memory=256)
    assert report.passed, report.tail
    assert Milestone.BOOTLOADER in report.milestones


def make_uefi_disk(folder: Path) -> Path:
    disk, early, grub = folder / "core.img", folder / "early.cfg", folder / "BOOTX64.EFI"
    early.write_text(f'echo "{HEALTHY.strip()}"\nsleep 60\n')
    modules = ["echo", "sleep", "normal"]
    run.run(["grub-mkimage", "-O", "x86_64-efi", "-c", early, "-p", "/grub", "-o", grub, *modules])
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    run.run(["mkfs.vfat", disk])
    run.run(["mmd", "-i", disk, "::EFI", "::EFI/BOOT"])
    run.run(["mcopy", "-i", disk, grub, "::EFI/BOOT/"])
    return disk


def test_qemu_does_not_outlive_a_killed_boot(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "core.img", "starting\r\n")
    script = f"""
        from pathlib import Path
        from tests.integration.test_boottest import run_test
        run_test(Path({str(disk)!r}), timeout=600.0)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    boot_process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment
    )
    try:
        guest = wait_for_guest(boot_process.pid, disk)
        watched = os.pidfd_open(guest)
        boot_process.send_signal(signal.SIGKILL)
        boot_process.wait()
        gone, _, _ = select.select([watched], [], [], PATIENCE)
        os.close(watched)
        assert gone, "qemu still runs"
    finally:
        boot_process.kill()
        boot_process.wait()


def wait_for_guest(parent: int, disk: Path) -> int:
    """Return the process id of the QEMU below `parent`, when the guest has spoken."""
    deadline = time.monotonic() + PATIENCE
    children = Path(f"/proc/{parent}/task/{parent}/children")
    log = boot.default_log(disk, Firmware.BIOS)
    while time.monotonic() < deadline:
        if log.exists() and "starting" in log.read_text():
            return int(children.read_text().split()[0])
        time.sleep(0.05)
    raise AssertionError("the guest was not started")
