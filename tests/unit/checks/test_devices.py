from dataclasses import replace
from pathlib import Path

from coreimage.boottest.platform import Firmware, platform_of
from coreimage.checks import devices
from coreimage.checks.check import Status


def test_grub_of_another_architecture_says_how_it_is_got(tmp_path: Path) -> None:
    check = devices.check_disks("arm64", ["arm64-efi"], modules=[tmp_path])
    assert check.status is Status.OPTIONAL
    assert "tools/grub-modules grub-efi-arm64-bin" in check.mend

    (tmp_path / "arm64-efi").mkdir()
    (tmp_path / "arm64-efi/modinfo.sh").touch()
    check = devices.check_disks("arm64", ["arm64-efi"], modules=[tmp_path])
    assert (check.status, check.found) == (Status.OK, f"{tmp_path}/arm64-efi")


def test_every_platform_of_grub_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "i386-pc").mkdir()
    (tmp_path / "i386-pc/modinfo.sh").touch()
    check = devices.check_disks("i386", ["i386-pc", "i386-efi"], modules=[tmp_path])
    assert check.status is Status.OPTIONAL
    assert "grub-efi-ia32-bin" in check.mend


def test_without_qemu_there_are_no_boots() -> None:
    platform = replace(platform_of("arm64"), program="qemu-system-nothing")
    check = devices.check_boots("arm64", platform, Firmware.UEFI)
    assert check.status is Status.OPTIONAL
    assert check.mend == "install the package qemu-system-arm"


def test_no_other_architecture_is_ever_missing() -> None:
    checks = devices.check_devices()
    assert {check.status for check in checks} <= {Status.OK, Status.OPTIONAL}
    assert [check.name for check in checks] == [
        *("disks of arm64", "boots of arm64", "boots of armhf"),
        *("disks of i386", "boots of i386"),
    ]
    assert all(check.mend for check in checks if check.status is Status.OPTIONAL)
