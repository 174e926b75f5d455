"""Package lists as live-build has them: names, comments, and parts for some builds only."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from coreimage.config import nearest
from coreimage.errors import DataError
from coreimage.lib.files import read_text

PACKAGE = r"^[a-z0-9][a-z0-9+.:-]*[a-z0-9+.]$"


def read_list(
    path: Path, *, facts: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Return the packages of a list.

    `#if NAME VALUE…` begins lines that count only when the fact NAME has one of the values, and
    `#endif` ends them; other lines that begin with # are comments. `known` has the values of facts
    that can have no others. Raises DataError with the line.
    """
    packages: list[str] = []
    condition: tuple[int, bool] | None = None
    for number, line in enumerate(read_text(path).splitlines(), 1):
        place = f"{path}:{number}"
        words = line.split()
        match words[:1]:
            case ["#if"]:
                if condition is not None:
                    raise DataError(f"{place}: '#if' inside of '#if'", hint="end the first one")
                condition = (number, _holds(words[1:], facts, known or {}, place))
            case ["#endif"]:
                if condition is None:
                    raise DataError(f"{place}: '#endif' without '#if'", hint="remove it")
                condition = None
            case [("#else" | "#elif" | "#elseif") as word]:
                raise DataError(
                    f"{place}: there is no '{word}'",
                    hint="write '#endif', and an '#if' with the other values",
                )
            case [first] if not first.startswith("#") and (condition is None or condition[1]):
                packages += _packages(words, place)
    if condition is not None:
        raise DataError(f"{path}:{condition[0]}: '#if' does not end", hint="add '#endif'")
    return packages


def _holds(
    words: Sequence[str], facts: Mapping[str, str], known: Mapping[str, Sequence[str]], place: str
) -> bool:
    name, *values = words or [""]
    if name not in facts or not values:
        raise DataError(
            f"{place}: '#if {' '.join(words)}' is not understood",
            hint="write '#if NAME VALUE…'; the names are " + ", ".join(facts),
        )
    for value in values:
        if value not in (facts[name], *known.get(name, (value,))):
            raise DataError(
                f"{place}: '{value}' is not among {name}",
                hint=nearest(value, known[name], "known are"),
            )
    return facts[name] in values


def _packages(words: Sequence[str], place: str) -> list[str]:
    found = []
    for word in words:
        if word.startswith("#"):
            break
        if not re.fullmatch(PACKAGE, word):
            raise DataError(
                f"{place}: '{word}' is not the name of a package",
                hint="write names of packages, one or more a line",
            )
        found.append(word)
    return found
