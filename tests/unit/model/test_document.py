import json

import pytest
from hypothesis import given

from coreimage.errors import DataError
from coreimage.model.document import parse_object
from tests.support.documents import JSON, nested


@given(JSON)
def test_what_is_accepted_means_what_json_means(value: object) -> None:
    assert parse_object(json.dumps({"a": value}), name="x.json") == {"a": value}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "x.json is not JSON"),
        ("[]", "x.json is not an object"),
        ("null", "x.json is not an object"),
        ('{"a": 1} x', "x.json is not JSON"),
        ('{"a": NaN}', "'NaN' is not a number"),
        ('{"a": -Infinity}', "'-Infinity' is not a number"),
        ('{"a": 1e999}', "'1e999' is not a number"),
        ('{"a": ' + "9" * 5000 + "}", "x.json is not JSON"),
        ('{"b": {"a": 1, "a": 1}}', "'a' occurs twice"),
        ('{"a": ' + nested(40) + "}", "nested more than 32 levels"),
        ('{"a": ' + nested(100_000) + "}", "x.json is not JSON"),
    ],
)
def test_what_clients_would_read_differently_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        parse_object(text, name="x.json")


@pytest.mark.parametrize("data", [b"\xff", b"\xff\xfe{", b"{\x00", b'{"a": "\xe4"}'])
def test_bytes_that_are_no_text_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.json is not JSON"):
        parse_object(data, name="x.json")
