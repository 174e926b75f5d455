"""The judge: reads the console line by line and says as early as possible how a boot ends."""

import re
from dataclasses import dataclass

from coreimage.boottest.report import Milestone, Outcome, SystemReport, is_report, parse_report

# GRUB goes on after many of its errors: no video mode, no font, the other slot's kernel. How long,
# in seconds, the kernel may take to show itself after one; loading takes 10 s on a busy machine.
GRUB_GRACE = 60.0

_MILESTONES = {
    Milestone.BOOTLOADER: (
        r"GNU GRUB|Welcome to GRUB|Booting from Hard Disk|BdsDxe: starting|U-Boot 20\d\d"
    ),
    Milestone.KERNEL: r"Linux version \d|\[ {1,4}\d{1,2}\.\d{6}\]|EFI stub:|^Starting kernel",
    Milestone.SYSTEMD: r"systemd\[1\]:|Welcome to (?!GRUB|rescue|emergency)\S",
}
_FATAL = {
    r"Kernel panic - not syncing: *(?P<detail>.*)": "kernel panic",
    # "Entering rescue mode" would be GRUB.
    r"(You are in|Welcome to) (emergency|rescue) mode|Entering emergency mode": (
        "the system is in emergency mode"
    ),
    r"Freezing execution": "systemd gave up",
    r"No bootable (option or )?device": "the firmware found nothing to boot",
    r"UEFI Interactive Shell": "the firmware found nothing to boot and opened its shell",
    r">>Start (PXE|HTTP)": "the firmware found nothing to boot on the disk and asks the network",
}
# These stand at the beginning of a line that never ends.
_PROMPTS = {
    r"^\s*\(initramfs\)": "the initramfs gave up and opened a shell",
    r"^\s*grub( rescue)?>": "grub stopped at its prompt",
    r"^\s*Shell>": "the firmware found nothing to boot and opened its shell",
}
_CLUES = (
    r"ALERT!.*",
    r"Failed to start .*",
    r"Dependency failed for .*",
    r"BUG: soft lockup.*",
    r"rcu: INFO: .*stall.*",
    r"Out of memory: .*",
    r"device-mapper: verity: .*corrupted",
)
_PAST_GRUB = {Milestone.KERNEL, Milestone.SYSTEMD}
_GRUB_ERROR = r"(?:^|\.)\s*(error: .*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a boot ended and why, in words."""

    outcome: Outcome
    reason: str


class Judge:
    """Follows one boot; `verdict` is None until it is decided. Times are seconds since its start.

    Pure: it is told what happens and when, and looks at no clock.
    """

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._clue = ""
        self._grub_error_at: float | None = None
        self.verdict: Verdict | None = None
        self.system: SystemReport | None = None
        self.milestones: dict[Milestone, float] = {}

    @property
    def deadline(self) -> float:
        """The moment at which `expire` will decide."""
        if self._grub_error_at is None:
            return self._timeout
        return min(self._timeout, self._grub_error_at + GRUB_GRACE)

    def hear(self, text: str, at: float) -> None:
        """Take a line of the console."""
        self.hear_prompt(text, at)
        self._reach(text, at)
        self._look_for_failure(text)
        self._look_for_grub_error(text, at)
        if is_report(text):
            self._take_report(text, at)

    def hear_prompt(self, text: str, at: float) -> None:
        """Take what stands on the console after its last line end: a prompt, or half a line."""
        self.milestones.setdefault(Milestone.FIRMWARE, at)
        for pattern, reason in _PROMPTS.items():
            if re.search(pattern, text):
                self._fail(reason)

    def expire(self, at: float) -> None:
        """Take note of the time: past the deadline the boot is over."""
        if self.verdict is not None or at < self.deadline:
            return
        if self._grub_error_at is not None:
            self._fail("grub did not start the kernel")
            return
        furthest = list(self.milestones)[-1] if self.milestones else "nothing"
        reason = f"no report within {self._timeout:g} s; it got as far as '{furthest}'"
        self._fail(reason, Outcome.HUNG)

    def end(self, at: float) -> None:
        """Take note that the machine is gone."""
        self._fail(f"the machine restarted or switched off after {at:.1f} s, before any report")

    def _reach(self, text: str, at: float) -> None:
        for milestone, pattern in _MILESTONES.items():
            if milestone not in self.milestones and re.search(pattern, text):
                self.milestones[milestone] = at
                self._clue = ""
                self._grub_error_at = None

    def _look_for_failure(self, text: str) -> None:
        for pattern, reason in _FATAL.items():
            if match := re.search(pattern, text):
                detail = match.groupdict().get("detail", "")
                self._fail(f"{reason}: {detail}" if detail else reason)
        for pattern in _CLUES:
            if match := re.search(pattern, text):
                self._clue = match[0]

    def _look_for_grub_error(self, text: str, at: float) -> None:
        match = re.search(_GRUB_ERROR, text)
        if match and not _PAST_GRUB & self.milestones.keys():
            self._clue = match[1]
            self._grub_error_at = at if self._grub_error_at is None else self._grub_error_at

    def _take_report(self, text: str, at: float) -> None:
        report = parse_report(text)
        if report is None:
            self._clue = f"a damaged report: {text}"
        elif self.verdict is None:
            self.system = report
            self.milestones[Milestone.REPORT] = at
            outcome = Outcome.PASSED if report.healthy else Outcome.FAILED
            self.verdict = Verdict(outcome=outcome, reason=report.describe())

    def _fail(self, reason: str, outcome: Outcome = Outcome.FAILED) -> None:
        clue = f" (the console said: {self._clue})" if self._clue else ""
        self.verdict = self.verdict or Verdict(outcome=outcome, reason=reason + clue)
