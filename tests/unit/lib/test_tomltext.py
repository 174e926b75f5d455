import tomllib
from pathlib import Path

import pytest

from coreimage.lib.tomltext import line_of, place_of, syntax_complaint

TEXT = """\
# a comment
name = "x"

packages = [
    "one",  # a comment
    "two",
]
paths = ["a", "b"]
text = '''
name = 7
'''

[releases.13]
series = "trixie"
suites = [
    "trixie",
]

[releases]
12 = { series = "bookworm" }

[channels.edge]
files = [
    { generator = "keyring" },
    { generator = "cdimage-rootfs", devices = [
        "a",
    ] }, { generator = "version" },
]

[[channels.beta.files]]
generator = "keyring"

[[channels.beta.files]]
# the second
generator = "version"
devices = [
    "a",
]
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (["name"], 2),
        (["packages"], 4),
        (["packages", 0], 5),
        (["packages", 1], 6),
        (["paths", 1], 8),
        (["text"], 9),
        (["releases"], 13),
        (["releases", "13"], 13),
        (["releases", "13", "series"], 14),
        (["releases", "13", "suites", 0], 16),
        (["releases", "12", "series"], 20),
        (["channels", "edge", "files"], 23),
        (["channels", "edge", "files", 0, "generator"], 24),
        (["channels", "edge", "files", 1, "generator"], 25),
        (["channels", "edge", "files", 1, "devices", 0], 25),
        (["channels", "edge", "files", 2], 25),
        (["channels", "beta", "files", 0], 30),
        (["channels", "beta", "files", 1], 33),
        (["channels", "beta", "files", 1, "generator"], 35),
        (["channels", "beta", "files", 1, "devices"], 36),
        (["channels", "beta", "files", 1, "devices", 0], 37),
        (["absent"], None),
        (["packages", 2], None),
        (["name", "below"], None),
        (["releases", 0], None),
    ],
)
def test_the_line_of_a_value(where: list[str | int], line: int | None) -> None:
    assert line_of(TEXT, where) == line


def test_the_nearest_table_has_a_place() -> None:
    path = Path("/x.toml")
    assert place_of(path, TEXT, ["releases", "13", "series"]) == "/x.toml:14"
    assert place_of(path, TEXT, ["releases", "13", "absent", 0]) == "/x.toml:13"
    assert place_of(path, TEXT, ["absent", "too"]) == "/x.toml"
    assert place_of(path, TEXT, []) == "/x.toml"


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a = 1\nb = \n", 2, "invalid value (column 5)"),
        ("a = 1\na = 2\n", 2, "cannot overwrite a value (column 6)"),
        ("a = 1\nb = [\n", 2, "invalid value (at end of document)"),
    ],
)
def test_where_a_text_stops_to_be_toml(text: str, line: int, complaint: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert syntax_complaint(text, caught.value) == (line, complaint)
