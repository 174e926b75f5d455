"""JSON documents for parsers: good ones with something wrong in one place."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HUGE = (1 << 63, 10**30, -(10**30), 10**4000)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([*HUGE, -1, 0, 1.0, 1.5])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
UNKNOWN = st.dictionaries(st.text("xyz", min_size=1, max_size=4), JSON, max_size=3)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values inside of a document."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*at, number))


def replaced(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another value in one place."""
    if not at:
        return value
    key, *rest = at
    if isinstance(document, dict):
        return {**document, key: replaced(document[key], tuple(rest), value)}
    return [*document[:key], replaced(document[key], tuple(rest), value), *document[key + 1 :]]


def nested(depth: int) -> str:
    """Return the text of lists within lists."""
    return "[" * depth + "]" * depth
