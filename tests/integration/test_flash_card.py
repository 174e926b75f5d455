"""Writing real block devices: loop devices, which the kernel treats like any other disk."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coreimage.lib.run import Completed, run
from tests.integration.test_flash_local import build

# Not a whole number of GB, nor of MiB, as cards are.
SIZE = 4_100_000_256 // 512 * 512
COMMAND = (sys.executable, "-m", "coreimage", "flash", "core", "--rootfs", "build")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can make block devices")
    folder = tmp_path_factory.mktemp("card")
    build(folder / "build")
    return folder


@contextmanager
def device(file: Path, *options: str, size: int = SIZE) -> Iterator[Path]:
    """Yield a block device on a file that is full of other things in many places."""
    with file.open("wb") as card:
        card.truncate(size)
        for place in range(0, size - 4096, 97 << 20):
            card.seek(place)
            card.write(b"\xa5" * 4096)
    name = run(["losetup", "--find", "--show", "--partscan", *options, file]).stdout.decode()
    try:
        yield Path(name.strip())
    finally:
        run(["losetup", "--detach", name.strip()])


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    with device(tmp_path / "card") as made:
        yield made


def flashed(home: Path, target: Path, *words: str) -> Completed:
    return run([*COMMAND, "--write", target, *words], cwd=home, check=False)


def refused(home: Path, target: Path, *words: str, status: int, says: str) -> None:
    ended = flashed(home, target, *words)
    assert ended.status == status, ended.stderr.decode()
    assert says in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()


def digest(path: Path, *, start: int = 0, size: int = -1) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(1 << 20, size) if size >= 0 else 1 << 20):
            found.update(chunk)
            size -= len(chunk) if size >= 0 else 0
    return found.hexdigest()


def test_a_device_that_cannot_be_taken_out_is_left_alone(home: Path, card: Path) -> None:
    before = digest(card, size=256 << 20)
    refused(home, card, status=77, says="is not removable")
    refused(home, card, "--dry-run", status=77, says="--yes-i-know")
    assert digest(card, size=256 << 20) == before


def test_it_is_written_over_when_that_is_known(home: Path, card: Path) -> None:
    done = flashed(home, card, "--yes-i-know")
    assert done.status == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert f"writing {card}" in said
    assert f"reading {card} back" in said
    assert f" Output: {card}" in done.stdout.decode()

    assert b"No problems found" in run(["sgdisk", "--verify", card]).stdout
    run(["partx", "--update", card])
    for name, check in (
        ("2", ["fsck.fat", "-n"]),
        ("3", ["e2fsck", "-fn"]),
        ("5", ["e2fsck", "-fn"]),
    ):
        run([*check, f"{card}p{name}"])
    with mounted(Path(f"{card}p3"), home / "mnt") as tree:
        assert (tree / "etc/ubuntu-build").read_text() == "0\n"
    shown = run([*COMMAND[:3], "disk", "show", card], cwd=home).stdout.decode()
    assert "system-a" in shown
    assert "version 0" in shown


def test_the_file_systems_are_those_of_an_image(home: Path, card: Path) -> None:
    """What is not written on a card is nobody's; all of the boot partition is."""
    assert flashed(home, card, "--yes-i-know", "--size", "4").status == 0
    run([*COMMAND, "--size", "4", "--output", "plain.img"], cwd=home)
    head = 16384 * 512
    assert digest(card, size=head) == digest(home / "plain.img", size=head)


def test_a_card_that_can_be_taken_out_needs_no_word_more(home: Path, card: Path) -> None:
    """A loop device that says of itself, to the command alone, that it is removable."""
    says, word = Path(f"/sys/block/{card.name}/removable"), home / "removable"
    word.write_text("1\n")
    shell = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh")
    argv: list[str | Path] = [
        *private,
        word,
        says.resolve(),
        *COMMAND,
        "--write",
        card,
    ]

    held = os.open(card, os.O_RDONLY | os.O_EXCL)
    try:
        busy = run(argv, cwd=home, check=False)
    finally:
        os.close(held)
    assert busy.status == 75, busy.stderr.decode()
    assert "cannot be opened" in busy.stderr.decode()

    done = run(argv, cwd=home, check=False)
    assert done.status == 0, done.stderr.decode()
    assert f"reading {card} back" in done.stderr.decode()
    assert says.read_text() == "0\n"
    assert b"No problems found" in run(["sgdisk", "--verify", card]).stdout


@contextmanager
def mounted(partition: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    run(["mount", "-o", "ro,noload", partition, place])
    try:
        yield place
    finally:
        run(["umount", place])


def test_what_is_mounted_is_refused(home: Path, card: Path) -> None:
    run(["mke2fs", "-q", "-F", "-t", "ext4", card])
    with mounted(card, home / "mnt") as place:
        refused(home, card, status=75, says=f"is mounted at {place}")
    assert run(["e2fsck", "-fn", card], check=False).status == 0


def test_so_is_what_is_swapped_to_whatever_is_said(home: Path, card: Path) -> None:
    run(["mkswap", card])
    run(["swapon", card])
    try:
        refused(home, card, "--yes-i-know", status=75, says="is in use: swap on")
    finally:
        run(["swapoff", card])


def test_so_are_partitions_and_what_is_read_only_or_too_small(home: Path, tmp_path: Path) -> None:
    with device(tmp_path / "card") as card:
        run(["sfdisk", "--quiet", card], data=b"label: gpt\n,1G\n,,\n")
        run(["partx", "--update", card])
        part = Path(f"{card}p1")
        refused(home, part, "--yes-i-know", status=65, says=f"'/dev/{card.name}'")
    with device(tmp_path / "card", "--read-only") as card:
        refused(home, card, "--yes-i-know", status=77, says="is read-only")
    with device(tmp_path / "card", size=1 << 30) as card:
        refused(home, card, "--yes-i-know", "--size", "4", status=65, says="are needed")
        refused(home, card, "--yes-i-know", status=65, says="too small")
