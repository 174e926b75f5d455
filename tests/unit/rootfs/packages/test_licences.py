import pytest

from coreimage.rootfs.packages.licences import declared_licences

FORMAT = "Format: https://spec.example/copyright-format/1.0/\n"
DEP5 = f"""\
{FORMAT}Upstream-Name: example
License: BSD-3-clause

Files: *
Copyright: 2020 Somebody
License: GPL-2+
 Text of the licence.
 .
 License: not a field

Files: lib/*
Copyright: 2021 Somebody
LICENSE: Expat

Files: debian/*
Copyright: 2021 Somebody
License: GPL-2+

License: Expat
 Permission is hereby granted.
"""


@pytest.mark.parametrize("text", [DEP5, DEP5.replace("\n", "\r\n"), DEP5.replace("\n\n", "\n \n")])
def test_the_licences_of_files_are_named_once(text: str) -> None:
    assert declared_licences(text.encode()) == ["Expat", "GPL-2+"]


@pytest.mark.parametrize(
    "text",
    ["", "This is GPL.\nLicense: GPL\nFiles: *\n", FORMAT, f"{FORMAT}\nFiles: *\nLicense:\n"],
)
def test_a_text_for_people_declares_nothing(text: str) -> None:
    assert list(declared_licences(text.encode())) == []


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert declared_licences(f"{FORMAT}\nFiles: *\nLicense: X\n".encode() + b"\xff\xfe") == ["X"]
