"""Limits as values: plain decimals, and what fits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.limits import Demand, Limit, Over, parse_amount, sums_body, tidy

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"), [("0", "0"), ("10.10", "10.1"), ("100", "100"), ("5.00", "5"), ("0.0", "0")]
)
def test_a_plain_decimal_is_shown_without_zeros_at_its_end(text: str, shown: str) -> None:
    assert format(parse_amount(text), "f") == shown


def test_which_limits_look_at_the_body() -> None:
    def limit(place: str | None) -> Limit:
        return Limit(Decimal(1), 1, place)

    assert sums_body([limit(None), limit("form:a")]) and sums_body([limit("json:/a")])
    assert not sums_body([limit(None), limit("query:a"), limit("header:a")])


@given(st.decimals(0, 10**23, allow_nan=False, places=6))
def test_a_number_stays_the_same(number: Decimal) -> None:
    plain = tidy(number)
    assert plain == number
    assert parse_amount(format(plain, "f")) == plain


def test_what_fits_by_itself() -> None:
    for asked, fits in (("10", True), ("10.01", False), ("Infinity", False)):
        demand = Demand("r", Limit(Decimal(10), 60, "form:a"), Decimal(asked))
        assert Over(demand, Decimal(0), NOW, NOW + timedelta(seconds=1)).fits is fits
