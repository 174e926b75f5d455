"""Pins of archives: priorities, and files of them as in apt_preferences(5)."""

import re
from collections.abc import Iterator
from pathlib import Path

from coreimage.errors import DataError
from coreimage.lib.files import read_text
from coreimage.model.build import PIN_PRIORITIES

PRIORITY_HINT = (
    f"write a number from {PIN_PRIORITIES[0]} to {PIN_PRIORITIES[-1]} that is not 0, such as 1001"
)
_KINDS = ("release", "origin", "version")


def is_priority(text: str) -> bool:
    """Tell whether apt takes a text for a priority as it is meant."""
    return (
        re.fullmatch(r"[+-]?[0-9]+", text) is not None
        and int(text) != 0
        and int(text) in PIN_PRIORITIES
    )


def read_pins(path: Path) -> str:
    """Return the text of a file of pins.

    Raises DataError with the line for what apt would not take, or would pass over without a word.
    """
    text = read_text(path)
    for fields in _records(path, text):
        _check(path, fields)
    return text


def _records(path: Path, text: str) -> Iterator[dict[str, tuple[int, str]]]:
    """Yield the fields of each record by their names in small letters: line and value."""
    fields: dict[str, tuple[int, str]] = {}
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0].isspace() and fields:
            fields[last] = (fields[last][0], f"{fields[last][1]} {line.strip()}")
        elif ":" in line and not line[0].isspace():
            key, _, value = line.partition(":")
            last = key.strip().lower()
            fields[last] = (number, value.strip())
        else:
            raise DataError(
                f"{path}:{number}: '{line.strip()}' is not a line of pins",
                hint="write 'Package: …', 'Pin: …' and 'Pin-Priority: …'",
            )
    if fields:
        yield fields


def _check(path: Path, fields: dict[str, tuple[int, str]]) -> None:
    first = min(number for number, _ in fields.values())
    for name in ("Package", "Pin", "Pin-Priority"):
        if not fields.get(name.lower(), (0, ""))[1]:
            raise DataError(f"{path}:{first}: a pin has no '{name}'", hint=f"write '{name}: …'")
    number, pin = fields["pin"]
    if pin.split()[0] not in _KINDS:
        raise DataError(
            f"{path}:{number}: '{pin}' is not what apt pins", hint="write " + " or ".join(_KINDS)
        )
    number, priority = fields["pin-priority"]
    if not is_priority(priority):
        raise DataError(f"{path}:{number}: '{priority}' is no pin priority", hint=PRIORITY_HINT)
