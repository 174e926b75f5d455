"""The systemd units, looked at by systemd."""

from pathlib import Path

import pytest

from coreimage.lib import run

UNITS = Path(__file__).parents[2] / "data/systemd"


def test_systemd_has_nothing_to_complain_of(tmp_path: Path) -> None:
    names = sorted(path.name for path in UNITS.iterdir())
    assert names == [
        "coreimage-builds.service",
        "coreimage-schedule.service",
        "coreimage-schedule.timer",
    ]
    for name in names:
        # The program need not be in /usr/bin of the machine that tests.
        text = (UNITS / name).read_text().replace("/usr/bin/coreimage", "/usr/bin/true")
        (tmp_path / name).write_text(text)
    places = [str(tmp_path / name) for name in names]
    done = run.run(["systemd-analyze", "verify", "--man=no", *places])
    assert done.stdout + done.stderr == b""


@pytest.mark.parametrize("name", ["coreimage-builds", "coreimage-schedule"])
@pytest.mark.parametrize("line", ["NoNewPrivileges", "RestrictNamespaces", "SystemCallFilter"])
def test_nothing_keeps_builds_from_their_user_namespace(name: str, line: str) -> None:
    service = (UNITS / f"{name}.service").read_text()
    assert f"\n{line}=" not in service


@pytest.mark.parametrize(
    ("name", "expected"),
    [("coreimage-builds", "build run"), ("coreimage-schedule", "schedule run")],
)
def test_the_command_that_is_called_exists(name: str, expected: str) -> None:
    service = (UNITS / f"{name}.service").read_text()
    (command,) = (
        line.removeprefix("ExecStart=") for line in service.splitlines() if "ExecStart=" in line
    )
    assert command == f"/usr/bin/coreimage {expected}"
