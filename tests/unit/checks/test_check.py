from coreimage.checks.check import Check, Status, install_command, road_works


def check(status: Status, *packages: str) -> Check:
    return Check(name="x", status=status, found="y", packages=packages)


def test_warnings_do_not_block_the_road() -> None:
    assert road_works([check(Status.OK), check(Status.OPTIONAL), check(Status.WARNING)])
    assert not road_works([check(Status.OK), check(Status.MISSING)])


def test_one_command_installs_everything_once() -> None:
    checks = [
        check(Status.MISSING, "mtools"),
        check(Status.MISSING, "mtools"),
        check(Status.WARNING, "xz-utils"),
        check(Status.OK, "pigz"),
    ]
    assert install_command(checks, as_root=True) == "apt-get install mtools xz-utils"
    assert install_command(checks, as_root=False) == "sudo apt-get install mtools xz-utils"


def test_nothing_to_install_is_no_command() -> None:
    assert install_command([check(Status.MISSING), check(Status.OK, "pigz")], as_root=True) == ""


def test_a_check_for_machines() -> None:
    assert check(Status.MISSING, "a").to_json() == {
        "name": "x",
        "status": "missing",
        "found": "y",
        "mend": "",
        "packages": ["a"],
    }
