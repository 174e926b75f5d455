"""What programs and kernels are for, by their first bytes."""

import platform
import sys
from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.flasher.tree.arch import check_arch, kernel_arches, program_arches
from coreimage.flasher.tree.staging import Staging
from tests.support.programs import elf, pc_kernel

ARM_KERNEL = bytes(0x38) + b"ARM\x64" + bytes(8)


def test_the_program_that_runs_us_is_for_this_machine() -> None:
    arches = {"x86_64": "amd64", "aarch64": "arm64"}
    with Path(sys.executable).open("rb") as file:
        assert program_arches(file.read(64)) == (arches[platform.machine()],)


@pytest.mark.parametrize("arch", ["amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"])
def test_programs_say_what_they_are_for(arch: str) -> None:
    assert program_arches(elf(arch)) == (arch,)


@pytest.mark.parametrize(
    "head", [b"", b"#!/bin/sh\n", b"\x7fELF", elf("amd64")[:19], b"\x7fELF" * 9]
)
def test_what_does_not_say_is_nothing(head: bytes) -> None:
    assert program_arches(head) == ()
    assert kernel_arches(head) == []


def test_a_kernel_of_64_bits_runs_systems_of_32() -> None:
    assert kernel_arches(pc_kernel(wide=True)) == ("amd64", "i386")
    assert kernel_arches(pc_kernel(wide=False)) == ("i386",)
    assert kernel_arches(pc_kernel(wide=True)[:0x206]) == ("i386",)
    assert kernel_arches(ARM_KERNEL) == ["arm64"]


@pytest.mark.parametrize(
    ("program", "kernel", "says"),
    [
        (elf("amd64"), pc_kernel(wide=True), ""),
        (b"#!/bin/sh\n", b"a kernel", ""),
        (elf("i386"), pc_kernel(wide=True), "'sbin/init' of the image is for i386"),
        (elf("amd64"), ARM_KERNEL, "'assets/vmlinuz' of the image is for arm64"),
        (elf("amd64"), pc_kernel(wide=False), "'assets/vmlinuz' of the image is for i386"),
    ],
)
def test_all_that_runs_is_for_the_oem_packages_machine(
    tmp_path: Path, program: bytes, kernel: bytes, says: str
) -> None:
    system, boot = Staging(tmp_path / "system"), Staging(tmp_path / "boot")
    system.put_symlink("sbin", "usr/sbin")
    system.put_symlink("usr/sbin/init", "/usr/lib/systemd/systemd")
    system.put_file("usr/lib/systemd/systemd", program)
    boot.put_file("assets/vmlinuz", kernel)

    def check() -> None:
        check_arch("amd64", system=system, boot=boot, kernel="assets/vmlinuz", oem="x")

    if not says:
        check()
        return
    with pytest.raises(DataError, match=f"{says}, OEM package 'x' for amd64") as raised:
        check()
    assert "--oem" in raised.value.hint
