"""Cards: what sysfs says, and what may be written over."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from coreimage.errors import BusyError, CommandError, CoreImageError, DataError, RightsError
from coreimage.flasher.media import card
from coreimage.flasher.media.card import DeviceFacts, check_device, facts_of, read_facts, write_card
from coreimage.flasher.media.ranges import Range, merged
from coreimage.lib.progress import Silent

CARD = DeviceFacts(path=Path("/dev/sdx"), size=8 << 30, model="Some Stick", removable=True)


def test_a_removable_device_that_nobody_uses_may_be_written() -> None:
    check_device(CARD, needed=8 << 30, accepted=False)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"removable": False}, RightsError, "Some Stick, 8.6 GB"),
        ({"mounts": ("/media/card",)}, BusyError, "/media/card"),
    ],
)
def test_some_refusals_can_be_overruled(
    changes: dict[str, object], kind: type[CoreImageError], says: str
) -> None:
    facts = replace(CARD, **changes)  # type: ignore[arg-type]
    with pytest.raises(kind, match=says) as raised:
        check_device(facts, needed=1, accepted=False)
    assert "--yes-i-know" in raised.value.hint
    check_device(facts, needed=1, accepted=True)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"whole": "sdx"}, DataError, "a partition"),
        ({"read_only": True}, RightsError, "read-only"),
        ({"size": 1}, DataError, "has 1 bytes"),
        ({"mounts": ("/boot", "/")}, BusyError, "the running system"),
        ({"holders": ("dm-0",)}, BusyError, "dm-0"),
    ],
)
def test_others_cannot(changes: dict[str, object], kind: type[CoreImageError], says: str) -> None:
    facts = replace(CARD, **changes)  # type: ignore[arg-type]
    with pytest.raises(kind, match=says):
        check_device(facts, needed=4 << 30, accepted=True)


def sysfs(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")


USB = "sys/devices/pci0000:00/usb1/1-1/block/sdx"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    sysfs(
        tmp_path,
        {
            f"{USB}/dev": "8:32",
            f"{USB}/size": "15633408",
            f"{USB}/ro": "0",
            f"{USB}/removable": "0",
            f"{USB}/device/vendor": "Acme   ",
            f"{USB}/device/model": "Reader",
            f"{USB}/sdx1/partition": "1",
            f"{USB}/sdx1/dev": "8:33",
            f"{USB}/sdx1/size": "2048",
            "sys/block/mmcblk0/dev": "179:0",
            "sys/block/mmcblk0/size": "8",
            "sys/block/mmcblk0/device/type": "SD",
            "sys/block/sda/dev": "8:0",
            "sys/block/sda/size": "8",
            "sys/block/sda/removable": "0",
            "sys/block/sda/sda2/partition": "2",
            "sys/block/sda/sda2/dev": "8:2",
            "sys/block/sda/sda2/holders/dm-0/dev": "253:0",
            "sys/block/sda/sda3/partition": "3",
            "sys/block/sda/sda3/dev": "8:3",
            "proc/self/mountinfo": "25 1 8:33 / /media/card rw - vfat /dev/sdx1 rw",
            "proc/swaps": "Filename Type Size\n/dev/sda3 partition 1",
        },
    )
    return tmp_path


def facts(machine: Path, home: str) -> DeviceFacts:
    return facts_of(Path("/dev/x"), machine / home, proc=machine / "proc")


def test_a_stick_is_known_by_its_bus_and_by_what_is_mounted_of_it(machine: Path) -> None:
    assert facts(machine, USB) == DeviceFacts(
        path=Path("/dev/x"),
        size=15633408 * 512,
        model="Acme Reader",
        removable=True,
        mounts=("/media/card",),
    )
    assert facts(machine, f"{USB}/sdx1").whole == "sdx"


def test_a_fixed_disk_shows_who_holds_it(machine: Path) -> None:
    found = facts(machine, "sys/block/sda")
    assert not found.removable
    assert found.holders == ("dm-0", "swap on /dev/sda3")
    assert facts(machine, "sys/block/mmcblk0").removable


@pytest.mark.parametrize(("word", "removable"), [("1", True), ("0", False), ("", False)])
def test_a_device_says_itself_whether_it_can_be_taken_out(
    machine: Path, word: str, *, removable: bool
) -> None:
    sysfs(machine, {"sys/block/sda/removable": word})
    assert facts(machine, "sys/block/sda").removable is removable


def test_a_real_device_is_found_by_its_number(tmp_path: Path) -> None:
    """Its node is what the kernel made; what is said of it is ours."""
    nodes = sorted(path for path in Path("/dev").iterdir() if path.is_block_device())
    assert nodes, "a machine has block devices"
    state = nodes[0].stat()
    number = f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"
    sysfs(tmp_path, {"devices/card/removable": "1", "devices/card/size": "8388608"})
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / "dev/block" / number).symlink_to("../../devices/card")
    found = read_facts(nodes[0], sys=tmp_path, proc=tmp_path)
    assert (found.removable, found.size) == (True, 4 << 30)
    check_device(found, needed=4 << 30, accepted=False)


def test_a_file_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a block device"):
        read_facts(tmp_path / "file")


def test_what_is_required_is_written_and_the_rest_is_not_touched(tmp_path: Path) -> None:
    disk, target = tmp_path / "disk", tmp_path / "card"
    content = os.urandom(5 << 20)
    disk.write_bytes(content)
    target.write_bytes(b"\xff" * (6 << 20))
    ranges = [Range(start=0, end=4096), Range(start=1 << 20, end=4 << 20)]
    write_card(disk, target, ranges, exclusive=False, progress=Silent())
    written = target.read_bytes()
    for each in ranges:
        assert written[each.start : each.end] == content[each.start : each.end]
    assert written[4096 : 1 << 20] == b"\xff" * ((1 << 20) - 4096)
    assert written[4 << 20 :] == b"\xff" * (2 << 20)


def test_a_card_that_forgets_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, target = tmp_path / "disk", tmp_path / "card"
    disk.write_bytes(b"x" * 8192)
    target.write_bytes(bytes(8192))
    # A worn-out card: what was written is something else when it is read again.
    monkeypatch.setattr(card, "_forget", lambda descriptor: os.pwrite(descriptor, b"y", 5000))
    with pytest.raises(CommandError, match="bytes 4096 to 8192"):
        write_card(
            disk,
            target,
            [Range(start=0, end=4096), Range(start=4096, end=8192)],
            exclusive=False,
            progress=Silent(),
        )


def test_ranges_are_whole_blocks_that_do_not_touch() -> None:
    found = merged(
        [Range(start=5000, end=5001), Range(start=0, end=1), Range(start=8191, end=8192)],
        size=1 << 20,
    )
    assert found == [Range(start=0, end=8192)]
    assert merged([Range(start=9000, end=20000)], size=10000) == [Range(start=8192, end=10000)]
    assert merged([Range(start=5, end=5)], size=100) == []
