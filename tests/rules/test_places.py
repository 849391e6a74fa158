"""Places: how they are spelled."""

from __future__ import annotations

import pytest

from rules.places import Place, parse_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("json:/a/0/b~1c", Place("json", "/a/0/b~1c")),
        ("form:amount", Place("form", "amount")),
        ("form:items[0]", Place("form", "items[0]")),
        ("query:a:b", Place("query", "a:b")),
        ("header:X-Trace", Place("header", "x-trace")),
    ],
)
def test_spellings(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("amount", "is not a place in a request; write json:/pointer, form:name"),
        ("body:x", "is not a place"),
        ("Form:x", "is not a place"),
        ("form", "is not a place"),
        ("form:", "names nothing"),
        ("json:a", "is not a JSON pointer"),
        ("json:/a~2", "is not a JSON pointer"),
        ("header:a b", "is not a header name"),
        ("header:a_b", "is not a header name"),
    ],
)
def test_what_is_no_place(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_place(text)
