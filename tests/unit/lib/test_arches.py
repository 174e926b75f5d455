import re
from pathlib import Path

import pytest

from coreimage.errors import RightsError
from coreimage.lib.arches import buildable, obstacle, require_buildable

ALL = ["amd64", "arm64", "armhf", "i386"]
ENABLED = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: PF\noffset 0\n"


@pytest.fixture
def binfmt(tmp_path: Path) -> Path:
    """What a kernel shows of binfmt_misc when it is mounted and nothing is registered."""
    (tmp_path / "register").touch()
    (tmp_path / "status").write_text("enabled\n")
    return tmp_path


@pytest.mark.parametrize(
    ("host", "expected"),
    [("amd64", ["amd64", "i386"]), ("arm64", ["arm64"]), ("i386", ["i386"]), ("riscv64", [])],
)
def test_a_processor_runs_its_own(binfmt: Path, host: str, expected: list[str]) -> None:
    assert buildable(ALL, host=host, binfmt=binfmt) == expected


def test_enabled_interpreters_count_and_disabled_ones_do_not(binfmt: Path) -> None:
    (binfmt / "qemu-aarch64").write_text(ENABLED)
    (binfmt / "qemu-arm").write_text(ENABLED.replace("enabled", "disabled"))

    assert buildable(["armhf", "arm64"], host="amd64", binfmt=binfmt) == ["arm64"]


def test_what_runs_here_needs_nothing(binfmt: Path) -> None:
    (binfmt / "qemu-aarch64").write_text(ENABLED)
    for arch in ("amd64", "i386", "arm64"):
        require_buildable(arch, host="amd64", binfmt=binfmt)


@pytest.mark.parametrize(
    ("files", "problem", "hint"),
    [
        ({"register": None}, "binfmt_misc is not mounted on", "mount -t binfmt_misc"),
        ({}, "'qemu-aarch64' is not registered", "apt-get install qemu-user-static"),
        ({"qemu-aarch64": "disabled\nflags: F\n"}, "'qemu-aarch64' is disabled", "echo 1 | tee"),
        ({"qemu-aarch64": ENABLED, "status": "disabled\n"}, "is disabled", "/status "),
        ({"qemu-aarch64": "enabled\nflags: P\n"}, "without flag F", "install qemu-user-static"),
    ],
)
def test_an_obstacle_is_named_with_its_remedy(
    binfmt: Path,
    files: dict[str, str | None],
    problem: str,
    hint: str,
) -> None:
    for name, text in files.items():
        if text is None:
            (binfmt / name).unlink()
        else:
            (binfmt / name).write_text(text)
    with pytest.raises(
        RightsError, match=f"arm64 do not run on this amd64 machine: .*{re.escape(problem)}"
    ) as caught:
        require_buildable("arm64", host="amd64", binfmt=binfmt)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 77


def test_an_architecture_without_emulator_is_built_on_itself(binfmt: Path) -> None:
    assert obstacle("m88k", binfmt) == (
        "there is no emulator for 'm88k'",
        "build on a machine of m88k",
    )
