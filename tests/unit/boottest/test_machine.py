from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from coreimage.boottest.accelerator import Name
from coreimage.boottest.machine import (
    FirmwareFiles,
    Machine,
    Serial,
    find_firmware,
    qemu_argv,
    require_disk,
)
from coreimage.boottest.platform import (
    PLATFORMS,
    Firmware,
    FlashFiles,
    find_flash,
    find_uboot,
    platform_of,
)
from coreimage.errors import DataError, NotFoundError, RightsError

FLASH = FlashFiles(code=Path("/fw/CODE.fd"), variables=Path("/fw/VARS.fd"))


def machine(
    *,
    disk: str = "/images/core.img",
    firmware: Firmware = Firmware.BIOS,
    accelerator: Name = Name.TCG,
    snapshot: bool = True,
    online: bool = False,
    ssh_port: int | None = None,
) -> Machine:
    return Machine(
        disk=Path(disk),
        firmware=firmware,
        accelerator=accelerator,
        snapshot=snapshot,
        online=online,
        ssh_port=ssh_port,
    )


def options(argv: list[str], name: str) -> list[str]:
    return [after for option, after in pairwise(argv) if option == name]


def test_a_test_machine_on_bios() -> None:
    argv = qemu_argv(machine(), serial=Serial.STREAM)
    assert argv == [
        "qemu-system-x86_64",
        *("-accel", "tcg"),
        *("-machine", "q35,graphics=off"),
        *("-smp", "1"),
        *("-m", "1024"),
        *("-display", "none"),
        "-nodefaults",
        "-no-reboot",
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        "-drive",
        "file=/images/core.img,format=raw,if=none,id=disk,snapshot=on,cache=unsafe,discard=unmap",
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-netdev", "user,id=net,restrict=on"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def test_uefi_never_writes_to_the_firmware_of_the_machine() -> None:
    argv = qemu_argv(
        machine(firmware=Firmware.UEFI), serial=Serial.STREAM, firmware=FirmwareFiles(flash=FLASH)
    )
    assert options(argv, "-drive")[:2] == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/fw/CODE.fd",
        "if=pflash,unit=1,format=raw,snapshot=on,file=/fw/VARS.fd",
    ]


def test_a_persons_machine_keeps_its_state_and_restarts() -> None:
    argv = qemu_argv(machine(snapshot=False, online=True), serial=Serial.TERMINAL)
    assert "snapshot" not in options(argv, "-drive")[0]
    assert "cache=writeback" in options(argv, "-drive")[0]
    assert "-no-reboot" not in argv
    assert options(argv, "-serial") == ["mon:stdio"]
    assert options(argv, "-netdev") == ["user,id=net"]


def test_ssh_is_forwarded_from_the_loopback_address_only() -> None:
    argv = qemu_argv(machine(online=True, ssh_port=2222), serial=Serial.TERMINAL)
    assert options(argv, "-netdev") == ["user,id=net,hostfwd=tcp:127.0.0.1:2222-:22"]


def test_kvm_shows_the_guest_the_hosts_processor() -> None:
    argv = qemu_argv(machine(accelerator=Name.KVM), serial=Serial.STREAM)
    assert options(argv, "-accel") == ["kvm"]
    assert options(argv, "-cpu") == ["host"]


def test_a_comma_in_the_disks_name_stays_part_of_it() -> None:
    argv = qemu_argv(machine(disk="/images/a,b.img"), serial=Serial.STREAM)
    assert options(argv, "-drive")[0].startswith("file=/images/a,,b.img,format=raw,")


def test_a_colon_in_a_relative_name_is_no_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    argv = qemu_argv(machine(disk="nbd:x.img"), serial=Serial.STREAM)
    assert options(argv, "-drive")[0].startswith("file=/nbd:x.img,")


def test_the_first_complete_firmware_is_taken(tmp_path: Path) -> None:
    half = FlashFiles(code=tmp_path / "code", variables=tmp_path / "none")
    whole = FlashFiles(code=tmp_path / "code", variables=tmp_path / "variables")
    whole.code.touch()
    whole.variables.touch()
    assert find_flash(replace(PLATFORMS["amd64"], flash=[half, whole])) == whole


def test_no_firmware_names_the_package(tmp_path: Path) -> None:
    absent = FlashFiles(code=tmp_path / "code", variables=tmp_path / "variables")
    with pytest.raises(RightsError) as caught:
        find_flash(replace(PLATFORMS["amd64"], flash=[absent]))
    assert "'ovmf'" in caught.value.hint
    assert "--firmware bios" in caught.value.hint
    with pytest.raises(RightsError) as caught:
        find_flash(replace(PLATFORMS["arm64"], flash=[absent]))
    assert caught.value.hint == "install the package 'qemu-efi-aarch64'"
    with pytest.raises(RightsError, match="no U-Boot for qemu-system-arm"):
        find_uboot(replace(PLATFORMS["armhf"], uboot=tmp_path / "absent"))


def test_each_architecture_has_its_machine() -> None:
    arm64 = qemu_argv(
        replace(machine(firmware=Firmware.UEFI), arch="arm64"),
        serial=Serial.STREAM,
        firmware=FirmwareFiles(flash=FLASH),
    )
    assert arm64[0] == "qemu-system-aarch64"
    assert options(arm64, "-machine") == ["virt"]
    assert options(arm64, "-cpu") == ["cortex-a57"]
    armhf = qemu_argv(
        replace(machine(firmware=Firmware.UBOOT), arch="armhf"),
        serial=Serial.STREAM,
        firmware=FirmwareFiles(uboot=Path("/u-boot.bin")),
    )
    assert armhf[0] == "qemu-system-arm"
    assert options(armhf, "-bios") == ["/u-boot.bin"]
    i386 = qemu_argv(replace(machine(), arch="i386"), serial=Serial.STREAM)
    assert i386[0] == "qemu-system-i386"
    assert platform_of("i386").firmwares == (Firmware.BIOS, Firmware.UEFI)
    with pytest.raises(NotFoundError) as caught:
        platform_of("s390x")
    assert "arm64" in caught.value.hint


def test_a_firmware_that_a_machine_cannot_have_is_refused() -> None:
    with pytest.raises(DataError, match="machines of arm64 have no bios"):
        find_firmware("arm64", Firmware.BIOS)
    with pytest.raises(DataError) as caught:
        find_firmware("armhf", Firmware.UEFI)
    assert caught.value.hint == "boot it with --firmware u-boot"


def test_large_sectors_are_the_disks_own() -> None:
    argv = qemu_argv(replace(machine(), sector_size=4096), serial=Serial.STREAM)
    device = options(argv, "-device")[0]
    assert device.endswith(",logical_block_size=4096,physical_block_size=4096")


def test_a_disk_with_a_boot_signature_is_accepted(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"\xfa" + bytes(509) + b"\x55\xaa")
    require_disk(disk, Firmware.BIOS)


def test_a_disk_without_boot_code_is_for_uefi_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(510) + b"\x55\xaa")
    require_disk(disk, Firmware.UEFI)
    with pytest.raises(DataError, match="has no boot code for BIOS firmware") as caught:
        require_disk(disk, Firmware.BIOS)
    assert "--firmware uefi" in caught.value.hint


def test_a_missing_disk(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no disk"):
        require_disk(tmp_path / "core.img", Firmware.BIOS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no disk", "no boot signature"),
        (bytes(512), "no boot signature"),
        (b"QFI\xfb" + bytes(600), "a qcow2 image"),
        (b"\xfd7zXZ\x00" + bytes(600), "compressed with xz"),
    ],
)
def test_what_is_no_disk(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "core.img"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        require_disk(path, Firmware.UEFI)


def test_a_folder_is_no_disk(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a disk image but a directory"):
        require_disk(tmp_path, Firmware.BIOS)
