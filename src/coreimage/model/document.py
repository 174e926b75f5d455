"""JSON documents: strict parsing, so that what we accept means the same to every client.

Source: RFC 8259; what it leaves open (numbers that are not finite, names that occur twice, any
depth) is refused.
"""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from coreimage.errors import DataError

_MAX_DEPTH = 32


def parse_object(text: str | bytes, *, name: str) -> dict[str, Any]:
    """Parse a JSON document that is an object; raises DataError that names it."""
    try:
        document = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_distinct
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{name} is not an object")
    _require_shallow(document, name)
    return document


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"'{text}' is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _refuse(text)
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' occurs twice in an object")
    return fields


def _require_shallow(document: Any, name: str) -> None:
    level = [document]
    for _ in range(_MAX_DEPTH):
        level = [inner for outer in level for inner in _contents(outer)]
        if not level:
            return
    raise DataError(f"{name} is nested more than {_MAX_DEPTH} levels deep")


def _contents(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
