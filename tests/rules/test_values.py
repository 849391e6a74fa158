"""Operators: strict where a rule permits, lenient where it restricts."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import Unreadable
from rules.model import Check, Op
from rules.reading.json import Json, Number
from rules.values import (
    Value,
    glob_holds,
    holds,
    lenient_decimal,
    lenient_decimals,
    plain_decimal,
    value_of,
)

YES, NO, WIDE = (True, True), (False, False), (False, True)
D = Decimal


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (Check("eq", "eur"), "eur", YES),
        (Check("eq", "eur"), " EUR ", WIDE),
        (Check("eq", "eur"), "usd", NO),
        (Check("eq", D(5)), D("5.0"), YES),
        (Check("eq", D(5)), "5", WIDE),
        (Check("eq", "5"), D(5), WIDE),
        (Check("eq", D(5)), "five", NO),
        (Check("eq", True), True, YES),
        (Check("eq", True), "True", WIDE),
        (Check("eq", True), D(1), NO),
        (Check("eq", None), None, YES),
        (Check("eq", None), "null", WIDE),
        (Check("eq", None), False, NO),
        (Check("in", ("a", D(2))), "a", YES),
        (Check("in", ("a", D(2))), "2", WIDE),
        (Check("not_in", ("a", "b")), "c", YES),
        (Check("not_in", ("a", "b")), "A", WIDE),
        (Check("not_in", ("a", "b")), "a", NO),
        (Check("not_in", ("a", D(2))), D(3), YES),
        (Check("not_in", ("a", "b")), D(5), WIDE),
        (Check("not_in", ("a", "b")), ["a"], WIDE),
        (Check("not_in", ("a", "b")), ["c"], WIDE),
        (Check("not_in", ("a", "b")), {"a": "a"}, WIDE),
        (Check("not_in", ("a", None)), None, NO),
        (Check("gt", D(1000)), D(1001), YES),
        (Check("gt", D(1000)), D(1000), NO),
        (Check("gt", D(1000)), "5000", WIDE),
        (Check("gt", D(1000)), "5e3", WIDE),
        (Check("gt", D(1000)), "5,000", WIDE),
        (Check("gt", D(1000)), "0xffff", WIDE),
        (Check("gt", D(1000)), "much", NO),
        (Check("gt", D(1000)), "5000x", WIDE),
        (Check("gt", D(1000)), "5000 usd", WIDE),
        (Check("gt", D(1000)), "5000.00.1", WIDE),
        (Check("gt", D(1000)), "0x1388zz", WIDE),
        (Check("gt", D(1000)), "5000\0", WIDE),
        (Check("gt", D(1000)), ".5e4x", WIDE),
        (Check("lt", D(10)), "5e3", WIDE),
        (Check("eq", D(5)), "5.7", WIDE),
        (Check("eq", D(5)), "x5", NO),
        (Check("not_in", (D(5),)), "5x", WIDE),
        (Check("gt", D(1000)), [Number("5000")], WIDE),
        (Check("gt", D(1000)), [[Number("1")], ["5000x"]], WIDE),
        (Check("gt", D(1000)), [Number("1"), {"a": Number("5000")}], NO),
        (Check("eq", "eur"), ["usd", "EUR"], WIDE),
        (Check("eq", None), [None], WIDE),
        (Check("prefix", "/etc"), ["/etc/passwd"], WIDE),
        (Check("length", (Check("gt", D(3)),)), ["abcd"], NO),
        (Check("gt", D(1000)), True, NO),
        (Check("lte", D("0.1")), D("0.1"), YES),
        (Check("lt", D(0)), D("-1e300"), YES),
        (Check("prefix", "/etc"), "/etc/passwd", YES),
        (Check("prefix", "/etc"), "/ETC/passwd", WIDE),
        (Check("prefix", "/etc"), "/srv/../etc/passwd", WIDE),
        (Check("prefix", "/etc"), "//etc/passwd", WIDE),
        (Check("prefix", "/etc"), "/./etc/passwd", WIDE),
        (Check("prefix", "/etc"), "../../etc/passwd", WIDE),
        (Check("prefix", "/etc"), "file:///etc/passwd", WIDE),
        (Check("prefix", "/etc"), "\\srv\\..\\etc\\passwd", WIDE),
        (Check("prefix", "/etc/"), "/srv/../etc", WIDE),
        (Check("prefix", "/etc"), "see /etc", NO),
        (Check("prefix", ".github/"), "./.github/workflows/ci.yml", WIDE),
        (Check("prefix", "c:\\windows"), "C:/x/../Windows/y", WIDE),
        (Check("prefix", "https://a.example/admin"), "https://a.example/x/%2E./admin", WIDE),
        (Check("prefix", "https://a.example/"), "https://a.example//x", YES),
        (Check("glob", "/a/secrets/*"), "/a/x/../secrets/b", WIDE),
        (Check("eq", "/etc/passwd"), "/etc//passwd", WIDE),
        (Check("not_in", ("/etc/passwd",)), "/etc/./passwd", WIDE),
        (Check("eq", "prod"), "x/../prod", NO),
        (Check("prefix", "prod"), "prod/../x", YES),
        (Check("prefix", "/srv/"), "/srv/...", YES),
        (Check("prefix", "/srv/"), "/srv/a..b/.c", YES),
        (Check("suffix", ".env"), "a.env", YES),
        (Check("glob", "delete*"), "deleteAll", YES),
        (Check("glob", "delete*"), "DeleteAll", WIDE),
        (Check("glob", "5*"), D(50), WIDE),
        (Check("length", (Check("lte", D(3)),)), "abc", YES),
        (Check("length", (Check("lte", D(3)),)), "abcd", NO),
        (Check("length", (Check("eq", D(2)),)), [None, None], YES),
        (Check("length", (Check("eq", D(2)),)), D(22), NO),
    ],
)
def test_operators(check: Check, value: Value, expected: tuple[bool, bool]) -> None:
    assert (holds(check, value, wide=False), holds(check, value, wide=True)) == expected


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("/srv/", "/srv/../etc/passwd"),
        ("/srv/", "/srv/."),
        ("/srv/", "/srv/\\..\\etc"),
        ("/srv/", "/srv/a/.."),
        ("https://a.example/v1/", "https://a.example/v1/%2e%2E/admin"),
        ("https://a.example/v1/", "https://a.example/v1/..%2Fadmin"),
        ("https://a.example/v1/", "https://a.example/v1/..?x"),
    ],
)
def test_a_path_that_leads_elsewhere_than_it_says_is_in_doubt(wanted: str, value: str) -> None:
    """Who reads the file, or fetches the URL, goes where it leads."""
    check = Check("prefix", wanted)
    with pytest.raises(Unreadable, match="leads elsewhere"):
        holds(check, value, wide=False)
    assert holds(check, value, wide=True)


@pytest.mark.parametrize("text", ["0", "-1", "12.50", "0.001"])
def test_a_plain_decimal(text: str) -> None:
    assert plain_decimal(text) == Decimal(text)


@pytest.mark.parametrize(
    "text", ["", "+1", "01", "1.", ".5", "1e3", "1_000", "1,5", "0x1", "\u0663", " 1", "NaN", "-"]
)
def test_what_is_no_plain_decimal(text: str) -> None:
    assert plain_decimal(text) is None


def test_what_no_reader_takes_for_a_number() -> None:
    for text in ("", "NaN", "ten", "1" * 1000, "0xzz", "--1"):
        assert lenient_decimal(text) is None
    assert lenient_decimal("\u0663") == 3
    assert lenient_decimal(" +1_000.5 ") == Decimal("1000.5")


def test_numbers_with_something_behind_them() -> None:
    assert list(lenient_decimals("5.70e1x")) == [5, D("5.7"), 57]
    assert list(lenient_decimals(" 1,500 ")) == [1500, 1]
    assert list(lenient_decimals("-0x10!")) == [-16]
    for text in ("", "-", "e5", "x1", ".", "+.e1", "NaN"):
        assert not list(lenient_decimals(text))


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*a", "a", False),
        ("*", "", True),
        ("*b*b*", "abcb", True),
        ("*b*b*", "abc", False),
        ("x*y*z", "xyyz", True),
        ("x*yy*yz", "xyyz", False),
        ("abc", "abcd", False),
    ],
)
def test_globs(pattern: str, text: str, expected: bool) -> None:
    assert glob_holds(pattern, text) is expected


scalars = st.one_of(
    st.none(), st.booleans(), st.text(max_size=6), st.decimals(allow_nan=False, places=2)
)
values = st.one_of(scalars, st.text("0123456789.eE+-_,xX ", max_size=8))
operators: st.SearchStrategy[Op] = st.sampled_from(("gt", "gte", "lt", "lte"))
checks = st.one_of(
    st.builds(Check, st.just("eq"), scalars),
    st.builds(Check, st.sampled_from(("in", "not_in")), st.lists(scalars, min_size=1).map(tuple)),
    st.builds(Check, operators, st.decimals(allow_nan=False, places=2)),
    st.builds(Check, st.sampled_from(("prefix", "suffix", "glob")), st.text(max_size=3)),
)


@given(checks, values)
def test_what_holds_narrowly_holds_widely(check: Check, value: Value) -> None:
    with suppress(Unreadable):
        assert holds(check, value, wide=True) or not holds(check, value, wide=False)


@pytest.mark.parametrize(
    ("value", "expected"), [(Number("10.10"), Decimal("10.1")), ("x", "x"), (None, None)]
)
def test_json_values(value: Json, expected: Value) -> None:
    assert value_of(value) == expected
