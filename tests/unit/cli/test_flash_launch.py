"""What the flash tool says of kvm; the programs are stand-ins that answer as guests do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coreimage.boottest import accelerator
from coreimage.cli.flash_launch import asking_for_kvm, kvm_works

# What isa-debug-exit makes of the number that the probe's guest tells it.
ANSWER = 33
Stand = Callable[[str, str], None]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Put a program into the way of the real one."""
    device = tmp_path / "device"
    device.touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", device)
    monkeypatch.setattr("coreimage.cli.space.host_arch", lambda: "amd64")
    monkeypatch.setattr(accelerator, "_KVM_PATIENCE", 0.1)
    # Found first, and alone of that name.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "setpriv"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(programs))

    def put(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    accelerator.probes.cache_clear()
    yield put
    accelerator.probes.cache_clear()


SLOW = 'case "$*" in *"-accel kvm"*) exec sleep 30;; esac; exit 33'
BROKEN = 'case "$*" in *"-accel kvm"*) echo no >&2; exit 1;; esac; exit 33'


@pytest.mark.parametrize(
    ("script", "works"),
    [(f"exit {ANSWER}", True), (SLOW, False), (BROKEN, False), ("exit 1", False)],
    ids=["answers", "too slow", "broken", "no guest at all"],
)
def test_kvm_works_when_a_guest_says_so(stand: Stand, script: str, *, works: bool) -> None:
    stand("kvm", "exit 1")
    stand("qemu-system-x86_64", script)
    with asking_for_kvm(wanted=True) as answer:
        assert answer() is works


def test_without_program_or_device_no_guest_is_started(stand: Stand, tmp_path: Path) -> None:
    stand("qemu-system-x86_64", f"touch {tmp_path}/started; exit {ANSWER}")
    assert not kvm_works()
    stand("kvm", "exit 1")
    accelerator.KVM_DEVICE.unlink()
    assert not kvm_works()
    assert not (tmp_path / "started").exists()


def test_nothing_is_asked_for_what_kvm_does_not_start(stand: Stand, tmp_path: Path) -> None:
    stand("kvm", "exit 1")
    stand("qemu-system-x86_64", f"touch {tmp_path}/started; exit {ANSWER}")
    with asking_for_kvm(wanted=False) as answer:
        assert not answer()
    assert not (tmp_path / "started").exists()


def test_a_flash_that_fails_says_why_it_did(stand: Stand) -> None:
    stand("kvm", "exit 1")
    stand("qemu-system-x86_64", SLOW)
    with pytest.raises(RuntimeError, match="of the disk"), asking_for_kvm(wanted=True):
        raise RuntimeError("of the disk")
