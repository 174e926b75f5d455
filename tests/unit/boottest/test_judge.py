"""Logs as real machines print them, shortened; each line takes a second."""

import pytest

from coreimage.boottest.judge import GRUB_GRACE, Judge
from coreimage.boottest.report import Milestone, Outcome

REPORT = "coreimage-report: state=running failed=- slot=a build=1 channel=debian-core/13/edge"
FIRMWARE = "SeaBIOS (version 1.16.2-debian-1.16.2-1)\nBooting from Hard Disk...\nWelcome to GRUB!\n"
KERNEL = """\
[    0.000000] Linux version 6.12.38+deb13-cloud-amd64 (debian-kernel@lists.example)
[    0.000000] Command line: root=PARTLABEL=system-a ro panic=5 console=ttyS0,115200
"""
SYSTEMD = """\
[    9.105437] systemd[1]: systemd 257.7-1 running in system mode
[    9.411020] systemd[1]: Hostname set to <core>.

Welcome to Debian GNU/Linux 13 (trixie)!
"""

INITRAMFS = (
    "the initramfs gave up and opened a shell (the console said: ALERT!  PARTLABEL=a does not "
    "exist.)"
)


def listen(text: str, *, timeout: float = 300.0) -> Judge:
    judge = Judge(timeout=timeout)
    for second, line in enumerate(text.splitlines()):
        judge.hear(line, float(second))
    return judge


def undecided(judge: Judge) -> bool:
    return judge.verdict is None


def reason(judge: Judge) -> str:
    assert judge.verdict is not None
    assert judge.verdict.outcome is Outcome.FAILED
    return judge.verdict.reason


def test_a_good_boot_with_its_milestones() -> None:
    judge = listen(FIRMWARE + KERNEL + SYSTEMD + "core login: " + REPORT)
    assert judge.verdict is not None
    assert judge.verdict.outcome is Outcome.PASSED
    assert judge.system is not None
    assert judge.system.slot == "a"
    assert judge.milestones == {
        Milestone.FIRMWARE: 0.0,
        Milestone.BOOTLOADER: 1.0,
        Milestone.KERNEL: 3.0,
        Milestone.SYSTEMD: 5.0,
        Milestone.REPORT: 9.0,
    }
    assert list(judge.milestones) == list(Milestone)


def test_nothing_is_decided_before_the_report() -> None:
    assert listen(FIRMWARE + KERNEL + SYSTEMD).verdict is None


def test_failed_units_fail_the_boot() -> None:
    judge = listen(SYSTEMD + "coreimage-report: state=degraded failed=foo.service slot=a")
    assert reason(judge) == "the system is degraded; failed: foo.service"


def test_the_first_verdict_stays() -> None:
    judge = listen("[    1.0] Kernel panic - not syncing: first\n" + REPORT)
    assert reason(judge) == "kernel panic: first"
    assert judge.system is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            KERNEL + "[    2.104423] Kernel panic - not syncing: VFS: Unable to mount root fs on "
            "unknown-block(0,0)",
            "kernel panic: VFS: Unable to mount root fs on unknown-block(0,0)",
        ),
        (
            SYSTEMD + "[FAILED] Failed to start remount.service\n"
            "You are in emergency mode. After logging in, type journalctl -xb",
            "the system is in emergency mode (the console said: Failed to start remount.service)",
        ),
        (
            FIRMWARE + "Boot failed: not a bootable disk\nNo bootable device.",
            "the firmware found nothing to boot",
        ),
        (
            "BdsDxe: No bootable option or device was found.",
            "the firmware found nothing to boot",
        ),
        (
            "BdsDxe: starting Boot0002\nUEFI Interactive Shell v2.2",
            "the firmware found nothing to boot and opened its shell",
        ),
        (
            ">>Start PXE over IPv4.",
            "the firmware found nothing to boot on the disk and asks the network",
        ),
        (
            SYSTEMD + "[!!!!!!] Failed to allocate manager object.\n"
            "[    3.1] systemd[1]: Freezing execution.",
            "systemd gave up",
        ),
    ],
)
def test_failures_end_the_boot_at_once(text: str, expected: str) -> None:
    assert reason(listen(text)) == expected


@pytest.mark.parametrize(
    ("before", "prompt", "expected"),
    [
        (
            FIRMWARE + "error: no such device: system-boot.\nEntering rescue mode...",
            "grub rescue> ",
            "grub stopped at its prompt (the console said: error: no such device: system-boot.)",
        ),
        (FIRMWARE, "grub> ", "grub stopped at its prompt"),
        (
            KERNEL + "ALERT!  PARTLABEL=a does not exist.",
            "(initramfs) ",
            INITRAMFS,
        ),
    ],
)
def test_a_prompt_ends_the_boot_though_its_line_does_not_end(
    before: str, prompt: str, expected: str
) -> None:
    judge = listen(before)
    judge.hear_prompt(prompt, 50.0)
    assert reason(judge) == expected


def test_half_a_line_is_no_milestone() -> None:
    judge = Judge(timeout=300.0)
    judge.hear_prompt("Welcome to G", 1.0)
    assert list(judge.milestones) == [Milestone.FIRMWARE]


def test_grub_may_go_on_after_an_error() -> None:
    judge = listen(FIRMWARE + "error: no suitable video mode found.\nBooting in blind mode")
    assert judge.deadline == 3.0 + GRUB_GRACE
    judge.hear("[    0.000000] Linux version 6.12", 5.0)
    assert judge.deadline == 300.0
    judge.expire(100.0)
    assert judge.verdict is None


def test_grub_that_does_not_go_on_fails() -> None:
    judge = listen(FIRMWARE + "error: file `/a/vmlinuz' not found.\nerror: load the kernel first.")
    judge.expire(judge.deadline - 0.1)
    assert undecided(judge)
    judge.expire(judge.deadline)
    assert reason(judge).startswith("grub did not start the kernel (the console said: error: ")


def test_errors_after_grub_are_not_grubs() -> None:
    judge = listen(FIRMWARE + KERNEL + "error: no such thing\nmount: error: x")
    assert judge.deadline == 300.0


def test_a_hang_says_how_far_it_got() -> None:
    judge = listen(FIRMWARE + KERNEL + "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!")
    judge.expire(299.9)
    assert undecided(judge)
    judge.expire(300.0)
    assert judge.verdict is not None
    assert judge.verdict.outcome is Outcome.HUNG
    assert judge.verdict.reason == (
        "no report within 300 s; it got as far as 'kernel' "
        "(the console said: BUG: soft lockup - CPU#0 stuck for 26s!)"
    )


def test_a_silent_machine_hangs_too() -> None:
    judge = Judge(timeout=5.0)
    judge.expire(5.0)
    assert judge.verdict is not None
    assert judge.verdict.reason == "no report within 5 s; it got as far as 'nothing'"


def test_a_damaged_report_is_not_believed_and_not_forgotten() -> None:
    judge = listen(SYSTEMD + "coreimage-report: state=run", timeout=60.0)
    assert undecided(judge)
    judge.expire(60.0)
    assert judge.verdict is not None
    assert "a damaged report: coreimage-report: state=run" in judge.verdict.reason


def test_a_second_report_replaces_a_damaged_one() -> None:
    judge = listen(f"coreimage-report: state=run\n{REPORT}")
    assert judge.verdict is not None
    assert judge.verdict.outcome is Outcome.PASSED


def test_a_machine_that_restarts_has_failed() -> None:
    judge = listen(FIRMWARE + KERNEL)
    judge.end(12.34)
    assert reason(judge) == "the machine restarted or switched off after 12.3 s, before any report"
