import json
import re
from pathlib import Path

import pytest

from coreimage.errors import DataError, NotFoundError
from coreimage.lib import run
from coreimage.rootfs.definitions import ids
from coreimage.rootfs.definitions.definition import definition_places, select

USERS = """\
# users
root:x:0:0:root:/root:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
core:x:1000:1000::/home/core:/bin/bash
"""
GROUPS = "root:x:0:\nadm:x:4:core\ncore:x:1000:\n"


def pins(folder: Path, passwd: str = USERS, group: str = GROUPS) -> ids.Pins:
    (folder / "passwd").write_text(passwd)
    (folder / "group").write_text(group)
    found = ids.read_pins([folder / "passwd"], [folder / "group"])
    assert found is not None
    return found


def test_later_files_win_by_name(tmp_path: Path) -> None:
    pins(tmp_path)
    (tmp_path / "more").write_text("sshd:x:102:65534::/run/sshd:/bin/false\nnew:x:103:103::/:/x\n")
    found = ids.read_pins([tmp_path / "passwd", tmp_path / "more"], [])
    assert found is not None
    assert list(found.users) == ["root", "sshd", "core", "new"]
    assert ":102:" in found.users["sshd"]
    assert ids.read_pins([], []) is None


@pytest.mark.parametrize(
    ("passwd", "group", "complaint"),
    [
        ("a:x:1:1\n", "", "passwd:1: 'a:x:1:1' does not have the 7 fields"),
        ("", "a:x:²:\n", "group:1: 'a:x:²:' does not have the 4 fields"),
        ("\na:x:1:b:::\n", "", "passwd:2: "),
        ("", "a:x:one:\n", "group:1: "),
        ("a:x:5:5:::\nb:x:5:6:::\n", "", "'b' and 'a' have the same number"),
        ("", "a:x:5:\nb:x:5:\n", "'b' and 'a' have the same number"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, passwd: str, group: str, complaint: str) -> None:
    with pytest.raises(DataError, match=re.escape(complaint)):
        pins(tmp_path, passwd, group)


def test_system_ids_are_written_early_and_cannot_log_in(tmp_path: Path) -> None:
    assert ids.early_files(pins(tmp_path), epoch=86400 * 100 + 5) == {
        "passwd": USERS.splitlines(keepends=True)[1].encode()
        + USERS.splitlines(keepends=True)[2].encode(),
        "group": b"root:x:0:\nadm:x:4:core\n",
        "shadow": b"root:!*:100::::::\nsshd:!*:100::::::\n",
        "gshadow": b"root:!*::\nadm:!*::core\n",
    }


@pytest.mark.parametrize("shadow", [True, False])
def test_the_script_adds_what_is_missing(tmp_path: Path, *, shadow: bool) -> None:
    """The script itself, on files elsewhere than /etc."""
    etc = tmp_path / "etc"
    (tmp_path / "ids").mkdir()
    etc.mkdir()
    for name, text in ids.early_files(pins(tmp_path), epoch=86400).items():
        (tmp_path / "ids" / name).write_bytes(text)
    (etc / "passwd").write_text("root:*:0:0:root:/root:/bin/bash\n")
    (etc / "group").write_text("root:*:0:\n")
    if shadow:
        (etc / "shadow").write_text("root:*:1::::::\n")
        (etc / "gshadow").write_text("root:*::\n")
    (tmp_path / "pin-ids").write_text(ids.PIN_SCRIPT.replace("/etc/", f"{etc}/"))
    for _ in range(2):
        run.run(["sh", tmp_path / "pin-ids"])
        found = {path.name: path.read_text() for path in etc.iterdir()}
        word = "x" if shadow else "*"
        assert found["passwd"] == (
            f"root:*:0:0:root:/root:/bin/bash\nsshd:{word}:101:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        assert found["group"] == f"root:*:0:\nadm:{word}:4:core\n"
        if shadow:
            assert found["shadow"] == "root:*:1::::::\nsshd:!*:1::::::\n"
            assert found["gshadow"] == "root:*::\nadm:!*::core\n"
        else:
            assert set(found) == {"passwd", "group"}


def test_a_tree_with_the_pinned_ids_passes(tmp_path: Path) -> None:
    ids.check(pins(tmp_path), passwd=USERS[8:].encode(), group=b"adm:x:4:other\n", folder=tmp_path)


def test_new_ids_are_told_with_the_lines_to_add(tmp_path: Path) -> None:
    added = "_chrony:!:102:103:Chrony daemon,,,:/var/lib/chrony:/usr/sbin/nologin\n"
    with pytest.raises(DataError) as caught:
        ids.check(
            pins(tmp_path),
            passwd=(USERS[8:] + added).encode(),
            group=(GROUPS + "_chrony:x:103:core\n").encode(),
            folder=Path("d/ids"),
        )
    assert caught.value.message == (
        "the build made ids that are not pinned:\n"
        "  d/ids/passwd: _chrony:x:102:103:Chrony daemon,,,:/var/lib/chrony:/usr/sbin/nologin\n"
        "  d/ids/group: _chrony:x:103:"
    )
    assert "add the lines" in caught.value.hint


def test_moved_ids_are_told_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ids.check(
            pins(tmp_path),
            passwd=b"sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n",
            group=b"adm:x:5:\n",
            folder=tmp_path,
        )
    assert caught.value.message == (
        "ids have moved:\n  user 'sshd' is 105:65534, pinned is 101:65534\n"
        "  group 'adm' is 5, pinned is 4"
    )


@pytest.mark.parametrize("release", ["12", "13"])
def test_debian_core_pins_its_ids(release: str) -> None:
    found = select("debian-core", release, "amd64", definition_places(None)).pins()
    assert found is not None
    assert {"root", "nobody", "sshd", "systemd-network", "core"} <= found.users.keys()
    groups = {line.split(":")[2] for line in found.groups.values()}
    assert {line.split(":")[3] for line in found.users.values()} <= groups


BEFORE = ids.numbers(b"root:x:0:0:::\nsshd:x:101:65534:::\n", b"root:x:0:\nadm:x:4:core\n")


@pytest.mark.parametrize(
    ("passwd", "group", "moved"),
    [
        ("root:x:0:0:::\nsshd:x:101:65534:::\nnew:x:102:102:::\n", "adm:x:4:\n", []),
        ("sshd:x:102:65534:::\n", "", ["user 'sshd' is 102:65534, was 101:65534"]),
        ("sshd:x:101:101:::\n", "", ["user 'sshd' is 101:101, was 101:65534"]),
        ("new:x:101:5:::\n", "", ["user 'new' is 101:5, which was user 'sshd'"]),
        ("", "new:x:4:\n", ["group 'new' is 4, which was group 'adm'"]),
        # Both are there, the first one by another name as well.
        ("sshd:x:101:65534:::\nalso:x:101:65534:::\n", "", []),
    ],
)
def test_no_build_gives_other_numbers_than_the_one_before(
    passwd: str, group: str, moved: list[str]
) -> None:
    now = ids.numbers(passwd.encode(), group.encode())
    if not moved:
        ids.refuse_moved(BEFORE, now, name="build 7")
        return
    with pytest.raises(DataError) as caught:
        ids.refuse_moved(BEFORE, now, name="build 7")
    assert caught.value.message == "\n  ".join(["ids are not those of build 7:", *moved])
    assert "--new-ids" in caught.value.hint


def test_pins_that_contradict_an_earlier_build(tmp_path: Path) -> None:
    group = "adm:x:4:\n"
    ids.refuse_moved_pins(BEFORE, pins(tmp_path, USERS, group), name="build 7")
    moved = pins(tmp_path, USERS.replace(":101:", ":103:"), group)
    with pytest.raises(DataError) as caught:
        ids.refuse_moved_pins(BEFORE, moved, name="build 7")
    assert caught.value.message == (
        "the definition pins other ids than those of build 7:\n"
        "  user 'sshd' is 103:65534, was 101:65534"
    )
    assert "--new-ids" in caught.value.hint


def test_the_numbers_of_a_record(tmp_path: Path) -> None:
    record = tmp_path / "livecd.core.build.json"
    with pytest.raises(NotFoundError, match="cannot be read: No such file"):
        ids.read_numbers(record)
    record.write_text(json.dumps({"product": "core"}))
    assert ids.read_numbers(record) == {"user": {}, "group": {}}
    record.write_text(json.dumps({"ids": BEFORE}))
    assert ids.read_numbers(record) == BEFORE
    for text in ('{"ids": 3}', '{"ids": {"user": 3}}', "[]", "{"):
        record.write_text(text)
        with pytest.raises(DataError):
            ids.read_numbers(record)


def test_the_lines_that_pin_a_tree(tmp_path: Path) -> None:
    lines = ids.pin_lines(b"sshd:!:101:65534::/run/sshd:/x\n\n", b"adm:*:4:core,you\n")
    assert lines == {"passwd": ["sshd:x:101:65534::/run/sshd:/x"], "group": ["adm:x:4:"]}
    again = pins(tmp_path, *("".join(f"{line}\n" for line in lines[name]) for name in lines))
    ids.check(again, passwd=b"sshd:x:101:65534:::\n", group=b"adm:x:4:\n", folder=tmp_path)
