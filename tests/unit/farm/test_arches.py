from pathlib import Path

import pytest

from coreimage.farm.arches import buildable

ALL = ["amd64", "arm64", "armhf", "i386"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("amd64", ["amd64", "i386"]), ("arm64", ["arm64"]), ("i386", ["i386"]), ("riscv64", [])],
)
def test_a_processor_runs_its_own(tmp_path: Path, host: str, expected: list[str]) -> None:
    assert buildable(ALL, host=host, binfmt=tmp_path) == expected


def test_enabled_interpreters_count_and_disabled_ones_do_not(tmp_path: Path) -> None:
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64\n")
    (tmp_path / "qemu-arm").write_text("disabled\ninterpreter /usr/bin/qemu-arm\n")

    assert buildable(["armhf", "arm64"], host="amd64", binfmt=tmp_path) == ["arm64"]
