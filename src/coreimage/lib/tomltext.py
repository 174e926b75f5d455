"""Where keys stand in the text of a TOML file, so that errors can name the line."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SYNTAX_HINT = "write TOML: KEY = VALUE, text in quotes, lists in brackets"
"""What to do about a text that is not TOML."""


def syntax_complaint(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """Return the line, counted from 1, where a text stops to be TOML, and why, with the column."""
    message = str(error)
    message = message[:1].lower() + message[1:]
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message)
    if found is None:
        return max(len(text.splitlines()), 1), message
    return int(found[2]), f"{found[1]} (column {found[3]})"


def line_of(text: str, where: Sequence[str | int]) -> int | None:
    """Return the line, counted from 1, that writes what is at `where`; None when nothing does.

    `where` has the keys, and indices of arrays, that lead to the value. The text must be valid
    TOML: the line is found by parsing ever longer beginnings of it.
    """
    lines = text.splitlines()
    complete = 0
    for number in range(1, len(lines) + 1):
        beginning = "\n".join(lines[:number])
        document = _parse(beginning)
        if document is None:
            # Within an array of several lines: closed here, it parses.
            document = _parse(beginning + "\n]")
        if document is not None:
            if _has(document, where):
                return complete + 1
            complete = number
    return None


def place_of(path: Path, text: str, where: Sequence[str | int]) -> str:
    """Return file and line of the value at `where`, or of the nearest table around it.

    `text` is what the file holds, valid TOML; without a line in it, only the file is named.
    """
    for end in range(len(where), 0, -1):
        line = line_of(text, where[:end])
        if line is not None:
            return f"{path}:{line}"
    return str(path)


def _parse(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _has(document: Any, where: Sequence[str | int]) -> bool:
    for part in where:
        if isinstance(part, int):
            if not isinstance(document, list) or part >= len(document):
                return False
        elif not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True
