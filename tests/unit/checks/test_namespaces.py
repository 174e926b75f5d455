from pathlib import Path

import pytest

from coreimage.checks.check import Status
from coreimage.checks.namespaces import (
    User,
    blocking_switches,
    check_mapper,
    check_namespaces,
    check_probe,
    check_range,
    check_restriction,
)

ROOT = User(name="root", number=0)
ANNA = User(name="anna", number=1001)


def write_settings(root: Path, **values: str) -> Path:
    for name, value in values.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("anna:100000:65536\n", Status.OK),
        ("1001:100000:65536\n", Status.OK),
        ("# ids\nanna:1:10\nanna:100000:70000\n", Status.OK),
        ("anna:100000:1000\n", Status.MISSING),
        ("bert:100000:65536\n", Status.MISSING),
        ("anna:100000:many\n", Status.MISSING),
        ("", Status.MISSING),
    ],
)
def test_ranges_of_ids(tmp_path: Path, content: str, status: Status) -> None:
    path = tmp_path / "subuid"
    path.write_text(content)
    assert check_range(path, ANNA, "subuids").status is status


def test_the_command_that_adds_a_range(tmp_path: Path) -> None:
    check = check_range(tmp_path / "subgid", ANNA, "subgids")
    assert check.mend == "sudo usermod --add-subgids 100000-165535 anna"


def test_root_needs_no_range(tmp_path: Path) -> None:
    assert check_range(tmp_path / "subuid", ROOT, "subuids").status is Status.OK


def test_switches_of_the_kernel_that_are_in_the_way(tmp_path: Path) -> None:
    settings = write_settings(
        tmp_path,
        kernel__apparmor_restrict_unprivileged_userns="1",
        kernel__unprivileged_userns_clone="1",
        user__max_user_namespaces="0",
    )
    assert blocking_switches(settings) == [
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        "sudo sysctl -w user.max_user_namespaces=15000",
    ]
    assert blocking_switches(tmp_path / "absent") == []


def test_apparmors_restriction_is_a_warning(tmp_path: Path) -> None:
    assert check_restriction(tmp_path).status is Status.OK
    write_settings(tmp_path, kernel__apparmor_restrict_unprivileged_userns="1")
    assert check_restriction(tmp_path).status is Status.WARNING


def test_a_namespace_that_is_refused_names_the_obstacle() -> None:
    check = check_probe("namespaces", ["--no-such-option"], ANNA, ["sudo sysctl -w a=0"])
    assert check.status is Status.MISSING
    assert "no-such-option" in check.found
    assert check.mend == "sudo sysctl -w a=0"


def test_root_does_without_namespaces() -> None:
    assert check_probe("namespaces", ["--no-such-option"], ROOT, []).status is Status.OK


def test_a_mapper_without_a_right() -> None:
    check = check_mapper("true", ANNA)
    assert check.status is Status.MISSING
    assert "neither setuid root" in check.found


def test_a_mapper_that_is_not_there() -> None:
    check = check_mapper("no-such-mapper", ANNA)
    assert check.status is Status.MISSING
    assert check.packages == ("uidmap",)


def test_everything_is_well_for_root() -> None:
    assert {check.status for check in check_namespaces(ROOT)} <= {Status.OK, Status.WARNING}
