"""Booting: the environment block and the script, as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.flasher.disk.grub import grub_config, grubenv, slot_directory


def test_the_environment_is_what_grub_reads() -> None:
    block = grubenv({"snappy_ab": "a", "snappy_mode": "regular"})

    assert block.startswith(b"# GRUB Environment Block\nsnappy_ab=a\nsnappy_mode=regular\n###")
    assert len(block) == 1024


@pytest.mark.parametrize("values", [{"a b": ""}, {"": ""}, {"ä": ""}, {"a": "x" * 1000}])
def test_an_environment_that_grub_cannot_hold_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(DataError):
        grubenv(values)


@given(st.text(st.characters(codec="ascii", exclude_characters="\0\r"), max_size=200))
def test_every_value_takes_one_logical_line(value: str) -> None:
    body = grubenv({"x": value}).decode().split("\n", 1)[1]

    content, last = "", 0
    while body[last] != "\n":  # a backslash takes the next character as it is
        last += body[last] == "\\"
        content += body[last]
        last += 1
    assert content == f"x={value}"
    assert set(body[last + 1 :]) <= {"#"}


def test_the_kernel_is_told_its_slot_and_its_consoles() -> None:
    line = next(each for each in grub_config(arguments=["quiet"]).splitlines() if "linux" in each)

    assert line.split()[2:] == [
        "$slot/vmlinuz",
        "root=PARTLABEL=system-$snappy_ab",
        "snappy_ab=$snappy_ab",
        "ab.trial=$snappy_trial_boot",
        "ro",
        "panic=5",
        "console=tty0",
        "console=ttyS0,115200",
        "systemd.gpt_auto=0",
        "quiet;",
        "then",
    ]


@pytest.mark.parametrize(
    "argument", ["", "a b", "a;reboot", "$root", 'a"', "a'", "{}", "a\nb", "é"]
)
def test_arguments_that_are_script_are_refused(argument: str) -> None:
    with pytest.raises(DataError, match="kernel argument"):
        grub_config(arguments=[argument])


def test_slots_lie_beside_the_configuration() -> None:
    assert slot_directory("b") == "EFI/ubuntu/grub/b"


def test_the_console_is_the_one_that_the_architecture_has() -> None:
    assert "console=ttyAMA0,115200" in grub_config(arch="arm64")
    assert "console=ttyS0,115200" in grub_config(arch="i386")
