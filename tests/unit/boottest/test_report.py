from pathlib import Path

import pytest

from coreimage.boottest.accelerator import Accelerator, Name
from coreimage.boottest.platform import Firmware
from coreimage.boottest.report import (
    Milestone,
    Outcome,
    Report,
    SystemReport,
    is_report,
    parse_report,
)

LINE = "coreimage-report: state=running failed=- slot=a build=1 channel=debian-core/13/edge"


def test_a_healthy_report() -> None:
    report = parse_report(LINE)
    assert report == SystemReport(
        state="running", failed=(), slot="a", build="1", channel="debian-core/13/edge"
    )
    assert report.healthy
    assert report.describe() == "the system is running"


def test_anything_may_stand_before_the_report() -> None:
    assert parse_report(f"[  OK  ] Reached target x. sh[312]: {LINE}") == parse_report(LINE)


def test_failed_units_are_named() -> None:
    report = parse_report("coreimage-report: state=degraded failed=ssh.service,a\\x2db@1.mount")
    assert report is not None
    assert report.failed == ("ssh.service", "a\\x2db@1.mount")
    assert not report.healthy
    assert report.describe() == "the system is degraded; failed: ssh.service, a\\x2db@1.mount"


@pytest.mark.parametrize("text", ["state=degraded failed=-", "state=running failed=a.service"])
def test_both_state_and_units_must_be_well(text: str) -> None:
    report = parse_report(f"coreimage-report: {text}")
    assert report is not None
    assert not report.healthy


@pytest.mark.parametrize(
    "text",
    [
        "coreimage-report:",
        "coreimage-report: state=run",
        "coreimage-report: state=running",
        "coreimage-report: state=running failed=",
        "coreimage-report: state=running failed=-[   12.300000] virtio_net: up",
        "coreimage-report: state=run[   12.300000] usb ning failed=-",
    ],
)
def test_half_a_report_is_none(text: str) -> None:
    assert is_report(text)
    assert parse_report(text) is None


def test_another_line_is_no_report() -> None:
    assert not is_report("coreimage-reporter.service: Deactivated successfully")
    assert parse_report("login:") is None


def test_report_for_machines(tmp_path: Path) -> None:
    report = Report(
        disk=Path("core.img"),
        firmware=Firmware.UEFI,
        accelerator=Accelerator(name=Name.TCG, reason="there is no /dev/kvm"),
        outcome=Outcome.PASSED,
        reason="the system is running",
        milestones={Milestone.KERNEL: 4.321, Milestone.REPORT: 20.0},
        system=parse_report(LINE),
        console_log=tmp_path / "log",
        tail=("last",),
    )
    assert report.passed
    document = report.to_json()
    assert document["accelerator"] == {"name": "tcg", "reason": "there is no /dev/kvm"}
    assert document["seconds"] == {"kernel": 4.32, "report": 20.0}
    assert document["system"]["failed"] == []
    assert document["outcome"] == "passed"
