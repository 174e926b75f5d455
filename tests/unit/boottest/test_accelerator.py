from pathlib import Path

import pytest

from coreimage.boottest.accelerator import Name, Probe, choose, device_problem, kvm_patience
from coreimage.errors import CommandError

TCG = Probe(name=Name.TCG, seconds=0.11)


def test_kvm_that_answers_is_taken() -> None:
    chosen = choose(TCG, Probe(name=Name.KVM, seconds=0.2))
    assert chosen.name is Name.KVM
    assert chosen.reason == "kvm answered in 0.20 s, tcg in 0.11 s"


def test_kvm_with_a_problem_is_not_and_the_reason_says_which() -> None:
    chosen = choose(TCG, Probe(name=Name.KVM, seconds=None, problem="there is no /dev/kvm"))
    assert chosen.name is Name.TCG
    assert chosen.reason == "there is no /dev/kvm; tcg answered in 0.11 s"


def test_without_tcg_nothing_can_run() -> None:
    broken = Probe(name=Name.TCG, seconds=None, problem="tcg does not work: no bios")
    with pytest.raises(CommandError, match="tcg does not work: no bios"):
        choose(broken, Probe(name=Name.KVM, seconds=None, problem="kvm was not tried"))


@pytest.mark.parametrize(("tcg", "patience"), [(0.1, 1.0), (0.33, 1.0), (2.0, 6.0)])
def test_a_busy_machine_gives_kvm_more_time(tcg: float, patience: float) -> None:
    assert kvm_patience(tcg) == patience


def test_no_device(tmp_path: Path) -> None:
    assert device_problem(tmp_path / "kvm") == f"there is no {tmp_path}/kvm"


def test_a_device_that_may_be_opened(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    assert device_problem(device) == ""
