"""What one call takes of a rule's limits.

A number that could be read in two ways is never guessed at: an allow whose sum is in doubt does not
match, a hold counts it as more than there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from rules.errors import Unreadable
from rules.limits import DIGITS, EXACT, FRACTION, UNREADABLE, Demand, Limit, parse_amount, tidy
from rules.places import Place, parse_place
from rules.reading.call import Reading
from rules.reading.forms import Pairs, may_be
from rules.reading.json import Json, Number, pointer_steps, step_into
from rules.values import fold_name
from rules.words import describe_place

_NUMBER = re.compile(r"[0-9.]{1,60}(?:[eE][+-]?[0-9]{1,3})?")
"""A JSON number that is not negative, and short enough to be looked at exactly."""
_MORE_THAN_ONE = "the number to count stands there more than once, or spelled otherwise"


def demands_of(rule: str, limits: Iterable[Limit], call: Reading) -> tuple[Demand, ...]:
    """What the call takes of the rule's limits."""
    return tuple([Demand(rule, limit, _amount(limit, call)) for limit in limits])


def doubt_about(limits: Iterable[Limit], call: Reading) -> str | None:
    """Which number that is summed up cannot be counted, and what it must be like; None if all can.

    Raises Unreadable where it stands in something that has no one reading.
    """
    for limit in limits:
        if limit.place is not None:
            place = parse_place(limit.place)
            try:
                _read(place, call)
            except ValueError:
                return (
                    f"{describe_place(limit.place)} must stand there once, as a plain decimal such"
                    " as 12.50"
                )
    return None


def _amount(limit: Limit, call: Reading) -> Decimal:
    if limit.place is None:
        return Decimal(1)
    try:
        return _read(parse_place(limit.place), call)
    except (Unreadable, ValueError):
        return UNREADABLE


def _read(place: Place, call: Reading) -> Decimal:
    """Raises ValueError, Unreadable."""
    if place.kind == "json":
        return _of_json(place.name, call.json)
    return parse_amount(_only(place, call))


def _of_json(pointer: str, value: Json) -> Decimal:
    """The number at the pointer, itself or as text. Raises ValueError, Unreadable.

    Not if a name on the way stands there in another spelling as well: some readers take letter case
    for the same.
    """
    for step in pointer_steps(pointer):
        key = fold_name(step)
        alike = [n for n in value if fold_name(n) == key] if isinstance(value, dict) else []
        if alike and alike != [step]:
            raise Unreadable(_MORE_THAN_ONE)
        inside = list(step_into(value, step))
        if not inside:
            raise ValueError("it is not there")
        (value,) = inside
    if isinstance(value, Number):
        return _of_number(value)
    if not isinstance(value, str):
        raise ValueError("it is not a number")
    return parse_amount(value)


def _of_number(value: Number) -> Decimal:
    """A JSON number exactly, `1e3` included. Raises ValueError, Unreadable."""
    if not _NUMBER.fullmatch(value.text):
        raise ValueError("it is negative, or too long")
    number = value.value.normalize(EXACT)
    exponent = number.as_tuple().exponent
    if number.adjusted() >= DIGITS or not isinstance(exponent, int) or exponent < -FRACTION:
        raise ValueError("it is too large, or too fine")
    return tidy(number)


def _only(place: Place, call: Reading) -> str:
    """The one value at the place. Raises ValueError if there is none; Unreadable if there is
    another that some readers may take for it."""
    if place.kind == "header":
        values = call.request.values(place.name)
        if len(values) > 1:
            raise Unreadable(_MORE_THAN_ONE)
        if not values:
            raise ValueError("it is not there")
        return values[0]
    query, clear = call.query
    if not clear:
        raise Unreadable("its query is read in two ways")
    own, other = query, call.body_beside_query(place.name)
    if place.kind == "form":
        own, other = call.form_pairs(wide=False), query
    if any(may_be(part.name, place.name) for part in call.form_files):
        raise ValueError("it is sent as a file")
    alike = [(name, value) for name, value in own if may_be(name, place.name)]
    elsewhere = _has(other, place.name)
    if not alike and not elsewhere:
        raise ValueError("it is not there")
    if len(alike) != 1 or alike[0][0] != place.name or elsewhere:
        raise Unreadable(_MORE_THAN_ONE)
    return alike[0][1]


def _has(pairs: Pairs, name: str) -> bool:
    return any(may_be(given, name) for given, _ in pairs)
