"""The record's form is RFC 8785, its hash is fixed for ever, and what has no form is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import NotCanonical
from audit.record import GENESIS, JSON, MAX_DATA, Draft, canonical_json, check, seal, timestamp

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"b": 1, "a": [True, False, None]}, b'{"a":[true,false,null],"b":1}'),
        # RFC 8785 3.2.3: the order is that of UTF-16 code units, where U+1F600 precedes U+FB33.
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7},
            '{"\\r":2,"1":4,"\x80":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'.encode(),
        ),
        # RFC 8785 3.2.2.2: the short escapes, \u00xx in lower case, all else as it is.
        ('\b\t\n\f\r"\\/', b'"\\b\\t\\n\\f\\r\\"\\\\/"'),
        ("\x01\x1f\x7f\u2028", b'"\\u0001\\u001f\x7f\xe2\x80\xa8"'),
        ((1, 2), b"[1,2]"),
        (-(2**53) + 1, b"-9007199254740991"),
    ],
)  # fmt: skip
def test_the_form_is_that_of_rfc_8785(value: JSON, form: bytes) -> None:
    assert canonical_json(value) == form


@given(VALUES)
def test_the_form_is_json_and_one_value_has_one_form(value: JSON) -> None:
    form = canonical_json(value)
    assert json.loads(form) == value
    assert canonical_json(json.loads(form)) == form


@given(st.dictionaries(TEXT, st.integers(0, 9), min_size=2))
def test_the_order_of_members_makes_no_difference(value: dict[str, int]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def nested(depth: int) -> JSON:
    value: JSON = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.0, "a float has no place"),
        (b"x", "a bytes has no place"),
        ({"a": {"b": {1}}}, "a set has no place"),
        (2**53, "beyond"),
        (-(2**53), "beyond"),
        ({1: 2}, "a key is not a string"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (nested(33), "nested too deep"),
    ],
)
def test_what_has_no_form_is_refused_with_the_reason(value: JSON, reason: str) -> None:
    with pytest.raises(NotCanonical, match=reason):
        canonical_json(value)
    with pytest.raises(NotCanonical, match=reason):
        check(Draft("call.sent", {"x": value}))


def test_depth_up_to_the_limit_has_a_form() -> None:
    assert canonical_json(nested(32)) == b"[" * 32 + b"1" + b"]" * 32


@pytest.mark.parametrize(
    "kind", ["", "call", "Call.sent", "call.", ".sent", "call.sent\n", "a b.c"]
)
def test_a_type_is_noun_and_event(kind: str) -> None:
    with pytest.raises(NotCanonical, match="is not a record type"):
        check(Draft(kind))


def test_data_has_a_largest_size() -> None:
    assert len(check(Draft("a.b", {"x": "y" * (MAX_DATA - 8)}))) == MAX_DATA
    with pytest.raises(NotCanonical, match="more than"):
        check(Draft("a.b", {"x": "y" * (MAX_DATA - 7)}))


def test_the_hash_is_over_the_label_and_the_canonical_record() -> None:
    """Spelt out from the format's description, apart from the code."""
    record = seal(Draft("call.sent", {"b": 1, "a": "é"}, "c1", None), 7, "t", GENESIS)
    text = (
        '{"agent":null,"call":"c1","data":{"a":"é","b":1},"prev":"' + "0" * 64 + '",'
        '"seq":7,"time":"t","type":"call.sent"}'
    )
    assert record.hash == hashlib.sha256(b"keybroker/ledger/v1\n" + text.encode()).hexdigest()
    assert (
        canonical_json(
            {
                "type": record.type,
                "time": record.time,
                "seq": record.seq,
                "prev": record.prev,
                "data": record.data,
                "call": record.call,
                "agent": record.agent,
            }
        )
        == text.encode()
    )


def test_the_hash_of_a_known_record_never_changes() -> None:
    """A vector: if this fails, ledgers written before can no longer be verified."""
    draft = Draft("call.completed", {"status": 200, "duration_ms": 12}, "c1", "bot")
    record = seal(draft, 1, "2026-11-22T16:00:00.000000Z", GENESIS)
    assert record.hash == "13cb01981c3bb6784427069d060a31e4a939465dd3892ff2091d3804fdf81aaf"


@given(VALUES, VALUES)
def test_different_records_have_different_hashes(one: JSON, other: JSON) -> None:
    first, second = (seal(Draft("a.b", {"x": value}), 1, "t", GENESIS) for value in (one, other))
    alike = canonical_json(one) == canonical_json(other)
    assert (first.hash == second.hash) == alike


def test_every_field_counts() -> None:
    draft = Draft("a.b", {"x": 1}, "c", "g")
    hashes = [
        seal(d, seq, time, prev).hash
        for d, seq, time, prev in [
            (draft, 1, "t", GENESIS),
            (draft, 2, "t", GENESIS),
            (draft, 1, "u", GENESIS),
            (draft, 1, "t", "1" * 64),
            (replace(draft, type="a.c"), 1, "t", GENESIS),
            (replace(draft, call="d"), 1, "t", GENESIS),
            (replace(draft, call=None), 1, "t", GENESIS),
            (replace(draft, agent="h"), 1, "t", GENESIS),
            (replace(draft, data={"x": 2}), 1, "t", GENESIS),
        ]
    ]
    assert len(set(hashes)) == len(hashes)


def test_times_are_utc_with_microseconds() -> None:
    moment = datetime(2026, 11, 22, 17, 0, 0, 5, timezone(timedelta(hours=1)))
    assert timestamp(moment) == "2026-11-22T16:00:00.000005Z"
    assert timestamp(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 1, 2))
