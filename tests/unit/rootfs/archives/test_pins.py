from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.rootfs.archives.pins import is_priority, read_pins

GOOD = """\
# ours come first

Explanation: none
# of old
Package: a
 b*
Pin:origin mirror.example
pin-priority:-32768

Package: *
Pin: version 5*
Pin-Priority: 32767
"""


def test_pins_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.pref.chroot"
    for text in ("", "# none\n", GOOD):
        path.write_text(text)
        assert read_pins(path) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Package: *\nPin: release o=x\nPin-Priority: abc\n", ":3: 'abc' is no pin priority"),
        ("Package: *\nPin: release o=x\nPin-Priority: 12x\n", ":3: '12x' is no pin priority"),
        ("Package: *\nPin: release o=x\nPin-Priority: 0\n", ":3: '0' is no pin priority"),
        ("Package: *\nPin: release o=x\nPin-Priority: 99999\n", ":3: '99999' is no pin"),
        ("Package: *\nPin: release o=x\n", ":1: a pin has no 'Pin-Priority'"),
        ("\nPackage: *\nPin-Priority: 5\n", ":2: a pin has no 'Pin'"),
        ("Pin: release o=x\nPin-Priority: 5\n", ":1: a pin has no 'Package'"),
        ("Package: *\nPin: relase o=x\nPin-Priority: 5\n", ":2: 'relase o=x' is not what"),
        ("\nPackage *\n", ":2: 'Package \\*' is not a line of pins"),
        (" Package: *\n", ":1: 'Package: \\*' is not a line of pins"),
    ],
)
def test_what_apt_would_not_take_is_named_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "x.pref.chroot"
    path.write_text(text)
    with pytest.raises(DataError, match=f"x.pref.chroot{complaint}") as caught:
        read_pins(path)
    assert caught.value.hint


def test_priorities_have_16_bits_and_are_not_0() -> None:
    assert all(map(is_priority, ("1", "-1", "+1001", "32767", "-32768")))
    assert not any(map(is_priority, ("", "0", "-0", "32768", "-32769", "1.5", "high", "1 ")))
