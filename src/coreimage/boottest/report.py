"""Reports: what the guest says about itself, and what we say about its boot."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from coreimage.boottest.accelerator import Accelerator
from coreimage.boottest.platform import Firmware

_LINE = re.compile(r"coreimage-report: *(.*)")
_STATE = re.compile(r"[a-z-]+")
# Source: systemd.unit(5), the characters of a unit's name.
_FAILED = re.compile(r"-|[\w:.\\@,-]+")
_RUNNING = "running"


class Milestone(StrEnum):
    """The steps of a boot, in their order; each is the moment of the first sign of it."""

    FIRMWARE = "firmware"
    BOOTLOADER = "bootloader"
    KERNEL = "kernel"
    SYSTEMD = "systemd"
    REPORT = "report"


class Outcome(StrEnum):
    """How a boot ended."""

    PASSED = "passed"
    FAILED = "failed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemReport:
    """What the image's own service prints when the system is up, or has failed to come up."""

    state: str
    failed: tuple[str, ...] = ()
    slot: str = ""
    build: str = ""
    channel: str = ""

    @property
    def healthy(self) -> bool:
        """Whether everything runs."""
        return self.state == _RUNNING and not self.failed

    def describe(self) -> str:
        """Return the system's state in words."""
        if not self.failed:
            return f"the system is {self.state}"
        return f"the system is {self.state}; failed: {', '.join(self.failed)}"


def is_report(line: str) -> bool:
    """Tell whether a line of the console means to be a report."""
    return _LINE.search(line) is not None


def parse_report(line: str) -> SystemReport | None:
    """Return the report in a line of the console, or None when there is no whole one.

    The format is `coreimage-report: state=running failed=- slot=a build=1 channel=c`, with
    anything before it; `failed` is a comma separated list of units or `-`. A message of the kernel
    can land in the middle of the line: then a field is missing or does not look as it should.
    """
    match = _LINE.search(line)
    if match is None:
        return None
    fields = dict(word.split("=", 1) for word in match[1].split() if "=" in word)
    state, failed = fields.get("state", ""), fields.get("failed", "")
    if not (_STATE.fullmatch(state) and _FAILED.fullmatch(failed)):
        return None
    return SystemReport(
        state=state,
        failed=tuple(unit for unit in failed.split(",") if unit not in ("", "-")),
        slot=fields.get("slot", ""),
        build=fields.get("build", ""),
        channel=fields.get("channel", ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a disk booted under one firmware; milestones are in seconds since QEMU was started.

    `retried` is the reason for which the first attempt was given up, or empty. `tail` holds the
    last lines of the console.
    """

    disk: Path
    firmware: Firmware
    accelerator: Accelerator
    outcome: Outcome
    reason: str
    retried: str = ""
    milestones: Mapping[Milestone, float]
    system: SystemReport | None
    console_log: Path
    tail: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the disk may go out."""
        return self.outcome is Outcome.PASSED

    def to_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        system = self.system
        return {
            "disk": str(self.disk),
            "firmware": self.firmware.value,
            "accelerator": {
                "name": self.accelerator.name.value,
                "reason": self.accelerator.reason,
            },
            "outcome": self.outcome.value,
            "reason": self.reason,
            "retried": self.retried,
            "seconds": {name.value: round(at, 2) for name, at in self.milestones.items()},
            "system": None
            if system is None
            else {
                "state": system.state,
                "failed": list(system.failed),
                "slot": system.slot,
                "build": system.build,
                "channel": system.channel,
            },
            "console_log": str(self.console_log),
            "tail": list(self.tail),
        }
