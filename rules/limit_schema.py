"""`limit:` of a rule, from plain YAML values to the values of rules.limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, cast

from rules.limits import BEYOND, MAX_CALLS, MAX_PER, Limit, parse_amount
from rules.places import parse_place
from rules.source import Section
from rules.yamlfile import parse_duration

LIMIT = ("calls", "sum", "max", "per", "over")
MOST_LIMITS = 10


def read_limits(at: Section, value: object) -> tuple[Limit, ...]:
    """`{calls: 30, per: 1m}`, `{sum: form:amount, max: 5000, per: 1d}`, or a list of such."""
    items = value if isinstance(value, list) else [value]
    if not 1 <= len(items) <= MOST_LIMITS:
        at.error(f"limit takes 1 to {MOST_LIMITS} limits; leave the field out or fill it in")
        return ()
    sections = [at.at(i) for i in range(len(items))] if isinstance(value, list) else [at]
    found: dict[tuple[str | None, int], Limit] = {}
    for here, item in zip(sections, items, strict=True):
        limit = _read_limit(here, item)
        if limit is not None and found.setdefault((limit.place, limit.per), limit) is not limit:
            here.error("there is a limit of the same thing in the same time already")
    return tuple(found.values())


def _read_limit(at: Section, value: object) -> Limit | None:
    fields = at.mapping(value, LIMIT)
    if fields is None:
        return None
    if ("calls" in fields) == ("sum" in fields) or ("max" in fields) != ("sum" in fields):
        at.error("write {calls: 30, per: 1m}, or {sum: form:amount, max: 5000, per: 1d}")
        return None
    most = place = None
    if "calls" in fields:
        calls = at.at("calls").count(fields["calls"], MAX_CALLS)
        most = None if calls is None else Decimal(calls)
    else:
        place = at.at("sum").parsed(fields["sum"], _parse_sum)
        most = _read_most(at.at("max"), fields["max"])
    per = at.at("per").parsed(fields["per"], _parse_per) if at.has(fields, "per") else None
    over = at.at("over").choice(fields.get("over", "deny"), BEYOND)
    if most is None or per is None or over is None:
        return None
    return Limit(most, per, place, cast(Literal["deny", "hold"], over))


def _parse_sum(text: str) -> str:
    place = parse_place(text)
    if place.kind == "json" and "*" in place.name.split("/"):
        raise ValueError("a limit sums up one number of each call; name the item, not `*`")
    return str(place)


def _read_most(at: Section, value: object) -> Decimal | None:
    """A plain decimal above zero, as a number or as text."""
    # The shortest spelling of a double is the one in the file, or one of the same double.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    most = at.parsed(repr(value) if number else value, parse_amount)
    if most is not None and most <= 0:
        at.error("max must be more than 0")
        return None
    return most


def _parse_per(text: str) -> int:
    seconds = parse_duration(text)
    if not 1 <= seconds <= MAX_PER:
        raise ValueError(f"it must be from 1s to {MAX_PER // 86400}d")
    return seconds
