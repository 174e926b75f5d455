from pathlib import Path

import pytest

from coreimage.boottest.accelerator import Name, Probe
from coreimage.boottest.platform import FlashFiles
from coreimage.checks import resources
from coreimage.checks.check import Status
from coreimage.errors import RightsError

TCG = Probe(name=Name.TCG, seconds=0.1)


def test_grubs_modules_for_each_platform(tmp_path: Path) -> None:
    (tmp_path / "i386-pc").mkdir()
    (tmp_path / "i386-pc/moddep.lst").touch()
    bios, uefi = resources.check_grub_modules(tmp_path)
    assert (bios.status, uefi.status) == (Status.OK, Status.MISSING)
    assert uefi.packages == ("grub-efi-amd64-bin",)


def test_firmware_needs_code_and_variables(tmp_path: Path) -> None:
    files = FlashFiles(code=tmp_path / "code", variables=tmp_path / "variables")
    files.code.touch()
    assert resources.check_firmware([files]).packages == ("ovmf",)
    files.variables.touch()
    assert resources.check_firmware([files]).status is Status.OK


def test_either_name_of_the_keyring_counts(tmp_path: Path) -> None:
    assert resources.check_keyring(tmp_path).status is Status.MISSING
    (tmp_path / "debian-archive-keyring.pgp").touch()
    assert resources.check_keyring(tmp_path).status is Status.OK


def test_without_kvm_boots_are_slow_but_work() -> None:
    kvm = Probe(name=Name.KVM, seconds=None, problem="there is no /dev/kvm")
    statuses = [check.status for check in resources.judge_accelerators(TCG, kvm)]
    assert statuses == [Status.WARNING, Status.OK]


def test_with_kvm_everything_is_well() -> None:
    checks = resources.judge_accelerators(TCG, Probe(name=Name.KVM, seconds=0.1))
    assert {check.status for check in checks} == {Status.OK}
    assert checks[-1].found.startswith("kvm: ")


def test_without_any_accelerator_the_road_ends() -> None:
    broken = Probe(name=Name.TCG, seconds=None, problem="tcg does not work: no bios")
    kvm = Probe(name=Name.KVM, seconds=None, problem="kvm was not tried")
    checks = resources.judge_accelerators(broken, kvm)
    assert checks[-1].status is Status.MISSING
    assert "no bios" in checks[-1].found


def test_space_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    assert resources.check_space("space", tmp_path / "later/on", 1).status is Status.OK
    check = resources.check_space("space", tmp_path / "later/on", 10**18)
    assert check.status is Status.MISSING
    assert f"free in {tmp_path}, 1000000000 GB needed" in check.found


def test_memory(tmp_path: Path) -> None:
    information = tmp_path / "meminfo"
    information.write_text("MemTotal: 4000000 kB\nMemFree: 1 kB\nMemAvailable: 3000000 kB\n")
    assert resources.check_memory(information).status is Status.OK
    information.write_text("MemTotal: 4000000 kB\nMemFree: 1 kB\nMemAvailable: 30000 kB\n")
    assert resources.check_memory(information).status is Status.WARNING


def test_other_architectures_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(arch: str, *, host: str) -> None:
        assert host == "amd64"
        if arch == "armhf":
            raise RightsError("programs of armhf do not run", hint="install qemu")

    monkeypatch.setattr(resources, "require_buildable", require)
    assert [check.to_json() for check in resources.check_foreign_arches("amd64")] == [
        {
            "name": f"builds of {arch}",
            "status": status,
            "found": found,
            "mend": mend,
            "packages": [],
        }
        for arch, status, found, mend in (
            ("arm64", "ok", "by qemu-user", ""),
            ("armhf", "optional", "programs of armhf do not run", "install qemu"),
            ("i386", "ok", "by the processor", ""),
        )
    ]
