import pytest

from coreimage.lib.tomltext import line_of

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
        (["absent"], None),
        (["packages", 2], None),
        (["name", "below"], None),
        (["releases", 0], None),
    ],
)
def test_the_line_of_a_value(where: list[str | int], line: int | None) -> None:
    assert line_of(TEXT, where) == line
