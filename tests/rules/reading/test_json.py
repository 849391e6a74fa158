"""One reading or none: what two parsers could take differently is not read."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.reading.json import (
    MAX_DEPTH,
    MAX_NUMBER,
    MAX_PIECES,
    Json,
    Number,
    Unreadable,
    json_text,
    read_json,
)


def test_values() -> None:
    text = ' {"a": [1, -2.50, "x", null, true, false], "é\\u00e9": {}} '
    assert read_json(text.encode()) == {
        "a": [Number("1"), Number("-2.50"), "x", None, True, False],
        "éé": {},
    }
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert read_json(b'"a\\u0000b"') == "a\0b"


def test_a_number_is_no_text() -> None:
    assert read_json(b"[1]") != read_json(b'["1"]')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "a": 1}', "a name occurs twice"),
        (b'{"a": 1, "\\u0061": 2}', "a name occurs twice"),
        (b'[{"b": {"a": 1, "c": 2, "a": 3}}]', "a name occurs twice"),
        (b'{"a\\u0000b": 1}', "NUL"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b'"\xc0\xaf"', "utf-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        ('{"a": 1}'.encode("utf-16-le"), "property name"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "Infinity is not JSON"),
        (b"Infinity", "Infinity is not JSON"),
        (b"[1e309]", "range of a double"),
        (b"[-1e99999999999999999999]", "range of a double"),
        (b"[1e-400]", "range of a double"),
        (b"[0.%s1]" % (b"0" * 350), "range of a double"),
        (b"[1%s]" % (b"0" * 309), "range of a double"),
        (b"[1.%s]" % (b"0" * MAX_NUMBER), "too long"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'["\\ud83d \\ude00"]', "surrogate"),
        (b"", "Expecting value"),
        (b" ", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"{'a': 1}", "property name"),
        (b'{"a": 1,}', r"line 1 column \d"),
        (b"[1,]", r"line 1 column \d"),
        (b"[01]", r"line 1 column \d"),
        (b"[+1]", r"line 1 column \d"),
        (b"[.5]", r"line 1 column \d"),
        (b"[5.]", r"line 1 column \d"),
        (b"[0x1]", r"line 1 column \d"),
        (b"[1] // no", "Extra data"),
        (b'"a\nb"', "control character"),
        (b'"\\x41"', "escape"),
        (b'"\\u00g0"', "escape"),
        (b"True", "Expecting value"),
        (b'\x0b{"a": 1}', "Expecting value"),
        ("\u00a0{}".encode(), "Expecting value"),
    ],
)
def test_what_has_no_one_reading(text: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_json(text)


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"[" * (depth % 2) + b"]" * (depth % 2) + b"]}" * (depth // 2)


def test_depth_has_a_limit() -> None:
    assert read_json(nested(MAX_DEPTH))
    assert read_json(b"[" + nested(MAX_DEPTH - 1) + b",1" * 1000 + b"]")
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 1_000, 40_000):
        with pytest.raises(Unreadable, match="levels deep"):
            read_json(nested(depth))
    with pytest.raises(Unreadable, match="levels deep"):
        read_json(b"[" * 90_000)


@pytest.mark.parametrize("piece", [b"1,", b"{},", b"[],", b'"",'])
def test_pieces_have_a_limit(piece: bytes) -> None:
    assert read_json(b"[" + piece * (MAX_PIECES // 4) + b"1]")
    with pytest.raises(Unreadable, match="too many pieces"):
        read_json(b"[" + piece * MAX_PIECES + b"1]")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0e99999999999999999999", "0"),
        ("0.00", "0"),
        ("1", "1"),
        ("10.10", "10.1"),
        ("1E2", "100"),
        ("1e+2", "100"),
        ("0.1", "0.1"),
        ("-0.30000000000000004", "-0.30000000000000004"),
        ("9007199254740992", "9007199254740992"),
        ("-9007199254740992", "-9007199254740992"),
        ("1152921504606847000", "1152921504606847000"),
        ("1e300", "1e300"),
        ("1" + "0" * 300, "1e300"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
    ],
)
def test_a_number_has_an_exact_value(text: str, value: str) -> None:
    number = read_json(text.encode())
    assert isinstance(number, Number)
    assert number.value == Decimal(value)
    assert json_text(number) == text


@pytest.mark.parametrize(
    "text",
    [
        "9007199254740993",
        "9007199254740993.0",
        "90071992547409.93e2",
        "1152921504606846976",
        "175928847299117063",
        "1000.0000000000000001",
        "0.10000000000000001",
        "3.141592653589793238462643383279",
        "6e-324",
    ],
)
def test_a_number_that_a_double_does_not_keep_has_no_value(text: str) -> None:
    """It is shown as it was written, and its neighbours in the body can be read."""
    number = read_json(text.encode())
    assert isinstance(number, Number)
    assert json_text(number) == text
    with pytest.raises(Unreadable, match="double"):
        _ = number.value


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_double_has_its_one_value(number: float) -> None:
    read = read_json(repr(number).encode())
    assert isinstance(read, Number)
    assert float(read.value) == number


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
def test_values_are_equal_as_their_doubles_are(text: str) -> None:
    try:
        number = read_json(text.encode())
        assert isinstance(number, Number)
        value = number.value
    except Unreadable:
        return
    assert Decimal(repr(float(text))) == value == Decimal(text)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(DOCUMENTS, st.booleans())
def test_what_json_writes_is_read_as_it_was(document: Any, ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        read = read_json(text)
    except Unreadable:
        escaped = json.dumps(document)
        assert "\\ud" in escaped or "\\u0000" in escaped
        return
    assert plain(read) == document


def plain(value: Json) -> Any:
    if isinstance(value, Number):
        return int(value.text)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


@given(
    st.binary(max_size=40)
    | st.text(alphabet='{}[]",:\\u0d8e+-.10naNI \n', max_size=40).map(str.encode)
)
def test_reading_is_total(text: bytes) -> None:
    try:
        value = read_json(text)
    except Unreadable:
        return
    assert isinstance(json_text(value), str)


def test_text_for_people() -> None:
    text = b'{"a": [1.50, "x\\u00e9", null], "b\\"": {"c": true}}'
    assert json_text(read_json(text)) == '{"a":[1.50,"xé",null],"b\\"":{"c":true}}'
    assert json_text(read_json(b'"x"')) == "x"
