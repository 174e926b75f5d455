import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreimage.errors import DataError
from coreimage.model.hardware import Hardware

GOOD = Hardware(kernel="assets/vmlinuz", initrd="assets/initrd.img", bootloader="grub")


def test_hardware_round_trips() -> None:
    text = GOOD.to_yaml()
    assert text == (
        "kernel: assets/vmlinuz\n"
        "initrd: assets/initrd.img\n"
        "partition-layout: system-AB\n"
        "bootloader: grub\n"
    )
    assert Hardware.from_yaml(text) == GOOD


def test_what_people_write_is_understood() -> None:
    text = (
        "--- # a document\n# a comment\nkernel: 'assets/vmlinuz' # the kernel\n\n"
        'initrd: "assets/initrd.img"\nbootloader:   u-boot  \ndtbs: assets/dtbs\nfuture: yes\n'
    )
    found = Hardware.from_yaml(text)
    assert (found.kernel, found.bootloader, found.dtbs) == (
        "assets/vmlinuz",
        "u-boot",
        "assets/dtbs",
    )
    assert found.extra == {"future": "yes"}
    assert Hardware.from_yaml(found.to_yaml()) == found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no 'kernel'"),
        ("kernel: a\n", "has no 'initrd'"),
        ("kernel: a\ninitrd: b\nbootloader:\n", "has no 'bootloader'"),
        ("kernel: a\ninitrd b\n", "hardware.yaml:2: expected 'key: value', found 'initrd b'"),
        ("kernel:\n  path: a\n", "hardware.yaml:2: expected"),
        (": a\n", "hardware.yaml:1: expected"),
        ("- kernel\n", "hardware.yaml:1: expected"),
    ],
)
def test_what_is_missing_or_malformed_is_named(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Hardware.from_yaml(text)


@given(st.text(":\n #-'\"abc\t\x00\u2028"))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        Hardware.from_yaml(text)
    except DataError:
        return
    raise AssertionError("it has no kernel")
