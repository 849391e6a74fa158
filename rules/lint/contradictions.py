"""Tests on one value that no value passes: sound, so that what is told of is certain.

Narrowly, what a check takes is known to the letter. Widely much more may pass, so fewer of them
contradict each other for certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import cast

from rules.conditions import checks_of
from rules.describe import describe_checks
from rules.errors import Unreadable
from rules.model import Check, Scalar, ValueTest
from rules.values import NUMERIC, Value, fold, holds, text_holds

_IN_NUMBERS = frozenset("-0123456789.")


def contradiction(test: ValueTest, *, typed: bool, wide: bool, guard: bool = False) -> str | None:
    """Why nothing passes the test, in words; None if something may. `typed` is for JSON; `guard`
    leaves out only what the test asks for in another spelling than its own."""
    checks = checks_of(test)
    if not nothing_passes(checks, typed=typed, wide=wide, guard=guard):
        return None
    return f"nothing is {describe_checks(checks)}"


def nothing_passes(
    checks: Sequence[Check], *, typed: bool, wide: bool, guard: bool = False
) -> bool:
    """Whether certainly no value passes all of them."""
    if _bounds_exclude(checks, whole=False) or _lengths_exclude(checks):
        return True
    if _texts_exclude(checks, wide=wide or guard):
        return True
    if wide:
        return False
    candidates = _candidates(checks, typed=typed)
    if candidates is not None:
        return not any(passes(checks, one, typed=typed, wide=guard) for one in candidates)
    return _kinds_exclude(checks, typed=typed, guard=guard)


def passes(checks: Sequence[Check], value: Value, *, typed: bool, wide: bool = False) -> bool:
    """Whether the value passes all of them, read narrowly unless `wide`."""
    try:
        if typed:
            return all(holds(check, value, wide=wide) for check in checks)
        return isinstance(value, str) and all(text_holds(c, value, wide=wide) for c in checks)
    except Unreadable:
        return wide


def _candidates(checks: Sequence[Check], *, typed: bool) -> list[Scalar] | None:
    """The only values that may pass, where a check lists them."""
    for check in checks:
        if check.op == "eq":
            return [cast(Scalar, check.value)]
        if check.op == "in":
            return list(cast(tuple[Scalar, ...], check.value))
        if check.op == "glob" and "*" not in cast(str, check.value):
            return [cast(str, check.value)]
    return None


def _bounds_exclude(checks: Iterable[Check], *, whole: bool) -> bool:
    """Whether the comparisons among them leave no number; `whole` leaves integers from 0 on."""
    low: Decimal | None = Decimal(0) if whole else None
    high: Decimal | None = None
    low_out = high_out = False
    for check in checks:
        if check.op not in NUMERIC and not (whole and check.op == "eq"):
            continue
        bound = cast(Decimal, check.value)
        if check.op in ("gt", "gte", "eq"):
            least, out = (_least(check.op, bound), False) if whole else (bound, check.op == "gt")
            if low is None or least > low or (least == low and out):
                low, low_out = least, out
        if check.op in ("lt", "lte", "eq"):
            most, out = (_most(check.op, bound), False) if whole else (bound, check.op == "lt")
            if high is None or most < high or (most == high and out):
                high, high_out = most, out
    if low is None or high is None:
        return False
    return low > high or (low == high and (low_out or high_out))


def _least(op: str, bound: Decimal) -> Decimal:
    """The least integer that compares so."""
    up = bound.to_integral_value(ROUND_CEILING)
    return up + 1 if op == "gt" and up == bound else up


def _most(op: str, bound: Decimal) -> Decimal:
    """The greatest integer that compares so."""
    down = bound.to_integral_value(ROUND_FLOOR)
    return down - 1 if op == "lt" and down == bound else down


def _lengths(checks: Iterable[Check]) -> list[Check]:
    return [
        inner
        for check in checks
        if check.op == "length"
        for inner in cast(tuple[Check, ...], check.value)
    ]


def _lengths_exclude(checks: Sequence[Check]) -> bool:
    return _bounds_exclude(_lengths(checks), whole=True)


def sizes_exclude(checks: Sequence[Check]) -> bool:
    """Whether no number of bytes is as they want it."""
    return _bounds_exclude(checks, whole=True)


def _texts_exclude(checks: Sequence[Check], *, wide: bool) -> bool:
    """Whether two beginnings, or two ends, exclude each other."""
    for op in ("prefix", "suffix"):
        texts = [cast(str, check.value) for check in checks if check.op == op]
        if wide:
            texts = [fold(text) for text in texts]
        for i, one in enumerate(texts):
            for other in texts[i + 1 :]:
                short, long = sorted((one, other), key=len)
                if not (long.startswith(short) if op == "prefix" else long.endswith(short)):
                    return True
    return False


def _kinds_exclude(checks: Sequence[Check], *, typed: bool, guard: bool) -> bool:
    """Whether they ask for a number and for what a number is not."""
    if not any(check.op in NUMERIC for check in checks):
        return False
    if typed:
        # Read widely, a number begins and ends as it is written.
        others = ("length",) if guard else ("prefix", "suffix", "glob", "length")
        return any(check.op in others for check in checks)
    return any(
        check.op in ("prefix", "suffix") and not set(cast(str, check.value)) <= _IN_NUMBERS
        for check in checks
    )
