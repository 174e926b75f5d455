from pathlib import Path

import pytest

from coreimage.errors import DataError
from coreimage.rootfs.definitions.definition import select
from coreimage.rootfs.definitions.packagelists import read_list
from tests.support.definitions import BASE, write

FACTS = {"ARCHITECTURES": "amd64", "DISTRIBUTION": "trixie"}


def read(folder: Path, text: str) -> list[str]:
    path = folder / "x.list.chroot"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return read_list(path, facts=FACTS, known={"ARCHITECTURES": ["amd64", "i386"]})


def test_names_comments_and_conditions(tmp_path: Path) -> None:
    text = """\
# a comment
one two   # the rest

#if ARCHITECTURES amd64 i386
three
#endif
#if DISTRIBUTION bookworm
four
  # not seen
#endif
g++
"""
    assert read(tmp_path, text) == ["one", "two", "three", "g++"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("aa\n!rm -rf /\n", ":2: '!rm' is not the name of a package"),
        ("One\n", ":1: 'One' is not"),
        ("#if SECTIONS main\n#endif\n", ":1: '#if SECTIONS main' is not understood"),
        ("#if\n#endif\n", ":1: '#if ' is not understood"),
        ("#if ARCHITECTURES\n#endif\n", ":1: "),
        ("#if ARCHITECTURES arm46\n#endif\n", ":1: 'arm46' is not among ARCHITECTURES"),
        ("#if ARCHITECTURES amd64 x\n#endif\n", ":1: 'x' is not among ARCHITECTURES"),
        ("#if ARCHITECTURES amd64\n#else\n#endif\n", ":2: there is no '#else'"),
        ("#elif ARCHITECTURES amd64\n", ":1: there is no '#elif'"),
        ("aa\nb\udcfc\n", ":2: byte 0xfc is not UTF-8"),
        ("aa\n#endif\n", ":2: '#endif' without '#if'"),
        ("#if ARCHITECTURES amd64\naa\n", ":1: '#if' does not end"),
        ("#if ARCHITECTURES amd64\n#if ARCHITECTURES amd64\n", ":2: '#if' inside of '#if'"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert f"x.list.chroot{complaint}" in caught.value.message
    assert caught.value.hint


def test_lists_add_to_the_packages_of_a_definition(tmp_path: Path) -> None:
    write(tmp_path / "base", BASE, **{"package-lists__a_DOT_list_DOT_chroot": "gpsd\nsed\n"})
    assert "gpsd" in select("base", None, "amd64", [tmp_path]).packages
    assert "sed" not in select("base", "12", "amd64", [tmp_path]).packages


def test_only_what_there_can_be_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "base", BASE)
    path = tmp_path / "base/package-lists/a.list.chroot"
    path.parent.mkdir()
    path.write_text("#if ARCHITECTURES riscv64\ngpsd\n#endif\n")
    assert "gpsd" not in select("base", None, "amd64", [tmp_path]).packages
    path.write_text("#if SUBPROJECT sytem-image\ngpsd\n#endif\n")
    with pytest.raises(DataError, match="'sytem-image' is not among SUBPROJECT"):
        _ = select("base", None, "amd64", [tmp_path]).packages
