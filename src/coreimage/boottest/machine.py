"""Machines: a disk, a firmware and an accelerator as a QEMU command line."""

import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coreimage.boottest.accelerator import Name
from coreimage.boottest.disk import DEFAULT_ARCH
from coreimage.boottest.platform import (
    Firmware,
    FlashFiles,
    find_flash,
    find_uboot,
    platform_of,
)
from coreimage.errors import DataError, NotFoundError

MEMORY = 1024
_BOOT_CODE = 440
_BOOT_SIGNATURE = b"\x55\xaa"
_FOREIGN = {
    b"QFI\xfb": ("a qcow2 image", "convert it with 'qemu-img convert -O raw'"),
    b"\x1f\x8b": ("compressed with gzip", "decompress it with 'gunzip'"),
    b"\xfd7zXZ\x00": ("compressed with xz", "decompress it with 'unxz'"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "decompress it with 'unzstd'"),
}


class Serial(StrEnum):
    """Where the guest's serial console goes."""

    TERMINAL = "terminal"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is to run. Memory is in MiB; with `snapshot` the disk is never written to.

    A machine that is not `online` has a network card and a DHCP server, but reaches nobody.
    """

    disk: Path
    firmware: Firmware
    accelerator: Name
    memory: int = MEMORY
    snapshot: bool
    online: bool
    ssh_port: int | None = None
    arch: str = DEFAULT_ARCH
    sector_size: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareFiles:
    """Where a machine's firmware is on this one; with none QEMU's own BIOS is taken."""

    flash: FlashFiles | None = None
    uboot: Path | None = None


def find_firmware(arch: str, firmware: Firmware) -> FirmwareFiles:
    """Return the files of a firmware.

    Raises DataError when machines of the architecture have no such firmware, RightsError when it
    is not installed.
    """
    platform = platform_of(arch)
    if firmware not in platform.firmwares:
        names = " or ".join(platform.firmwares)
        raise DataError(
            f"machines of {arch} have no {firmware} firmware",
            hint=f"boot it with --firmware {names}",
        )
    return FirmwareFiles(
        flash=find_flash(platform) if firmware is Firmware.UEFI else None,
        uboot=find_uboot(platform) if firmware is Firmware.UBOOT else None,
    )


def require_disk(path: Path, firmware: Firmware | None = None) -> None:
    """Raise NotFoundError when there is no such disk, DataError when it is not one for `firmware`.

    A BIOS runs whatever stands in the first sector: without code there the machine would hang.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no disk '{path}'", hint="make one with 'coreimage flash core'"
        ) from None
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        raise DataError(f"'{path}' is not a disk image but a directory or a special file")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DataError(f"disk '{path}' is empty")
    for magic, (what, hint) in _FOREIGN.items():
        if head.startswith(magic):
            raise DataError(f"'{path}' is not a raw disk image but {what}", hint=hint)
    if head[510:512] != _BOOT_SIGNATURE:
        raise DataError(f"'{path}' is not a disk: no boot signature 55 aa in its first sector")
    if firmware is Firmware.BIOS and not any(head[:_BOOT_CODE]):
        raise DataError(
            f"disk '{path}' has no boot code for BIOS firmware", hint="boot it with --firmware uefi"
        )


def qemu_argv(
    machine: Machine, *, serial: Serial, firmware: FirmwareFiles = FirmwareFiles()
) -> list[str]:
    """Return the command that runs a machine; all but BIOS need the files of their firmware.

    One processor: with two, one boot in twenty locked up under TCG. A reset ends QEMU, so that
    nobody takes a second boot for the first one. With graphics off, what the BIOS and GRUB's
    rescue prompt say goes to the serial console too.
    """
    platform = platform_of(machine.arch)
    cpu = "host" if machine.accelerator is Name.KVM else platform.cpu
    sector = machine.sector_size
    # A BIOS reads 512 bytes, whatever the disk says.
    sectors = f",logical_block_size={sector},physical_block_size={sector}" if sector != 512 else ""  # noqa: PLR2004
    return [
        platform.program,
        *("-accel", machine.accelerator.value),
        *(("-cpu", cpu) if cpu else ()),
        *("-machine", platform.machine),
        *("-smp", "1"),
        *("-m", str(machine.memory)),
        *("-display", "none"),
        "-nodefaults",
        *_serial_options(serial),
        *_firmware_options(machine, firmware),
        *("-drive", f"file={_value(machine.disk)},{_disk_options(machine)}"),
        *("-device", f"virtio-blk-pci,drive=disk,bootindex=1{sectors}"),
        *("-netdev", _network(machine)),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def _serial_options(serial: Serial) -> list[str]:
    if serial is Serial.TERMINAL:
        return ["-serial", "mon:stdio"]
    return ["-no-reboot", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]


def _firmware_options(machine: Machine, firmware: FirmwareFiles) -> list[str]:
    if machine.firmware is Firmware.BIOS:
        return []
    if machine.firmware is Firmware.UBOOT:
        if firmware.uboot is None:
            raise ValueError("U-Boot needs its file")
        return ["-bios", str(firmware.uboot)]
    flash = firmware.flash
    if flash is None:
        raise ValueError("UEFI needs its flash files")
    # The variables are a private copy in a temporary overlay: our disks boot by the removable
    # path, so nothing depends on what the firmware wrote there the last time.
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_value(flash.code)}"),
        *("-drive", f"if=pflash,unit=1,format=raw,snapshot=on,file={_value(flash.variables)}"),
    ]


def _disk_options(machine: Machine) -> str:
    keep = "snapshot=on,cache=unsafe" if machine.snapshot else "cache=writeback"
    return f"format=raw,if=none,id=disk,{keep},discard=unmap"


def _network(machine: Machine) -> str:
    restrict = "" if machine.online else ",restrict=on"
    forward = f",hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22" if machine.ssh_port else ""
    return f"user,id=net{restrict}{forward}"


def _value(path: Path) -> str:
    # QEMU ends a value at a comma unless it is doubled, and takes "a:b" for a protocol.
    return str(path.absolute()).replace(",", ",,")
