"""Limits as values: so many calls, or so much of a number in them, in a stretch of time.

What one call takes of them is read by rules.counting; what has been used stands in the store
(broker.limits).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Literal

BEYOND = ("deny", "hold")
MAX_CALLS = 1_000_000_000
MAX_PER = 31 * 86400
"""Seconds: the longest stretch."""
UNREADABLE = Decimal("Infinity")
"""The amount of a call whose number could not be read: more than any limit."""

EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])
"""Sums of amounts within it are exact, or an error."""
_PLAIN = re.compile(r"(?:0|[1-9][0-9]{0,23})(?:\.[0-9]{1,18})?")
DIGITS, FRACTION = 24, 18
"""Of an amount, before and after the point: 18 are what a coin has that counts finest."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` in any stretch of `per` seconds, for each agent by itself."""

    most: Decimal
    per: int
    place: str | None = None
    """Where the number stands of which the sum counts; None: each call counts as one."""
    over: Literal["deny", "hold"] = "deny"
    """What becomes of a call that would go beyond it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one call takes of one rule's limit."""

    rule: str
    limit: Limit
    amount: Decimal
    """Or UNREADABLE, in holds only."""


@dataclass(frozen=True, slots=True)
class Over:
    """A demand that goes beyond its limit."""

    demand: Demand
    used: Decimal
    """What other calls have taken of it."""
    at: datetime
    """When that was so."""
    frees_at: datetime | None
    """From when on there is room for it, as things stand. None: it never fits by itself, or only
    after calls that wait for people were decided."""

    @property
    def fits(self) -> bool:
        """Whether there is room for such a call while nothing is used."""
        return self.demand.amount <= self.demand.limit.most


def sums_body(limits: Iterable[Limit]) -> bool:
    """Whether one of the numbers stands in the body."""
    return any((limit.place or "").startswith(("json:", "form:")) for limit in limits)


def parse_amount(text: str) -> Decimal:
    """A plain decimal: digits without a sign or zeros before them, and a fraction at most. Raises
    ValueError.

    What other readers might take for another number (`1e3`, `0x10`, `010`, `1,000`) is none.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(
            f'"{text[:40]}" is not a plain decimal, such as 5000 or 12.50, of at most {DIGITS}'
            f" digits and {FRACTION} after the point"
        )
    return tidy(Decimal(text))


def tidy(number: Decimal) -> Decimal:
    """The same number without zeros at its end, as it is kept and shown."""
    reduced = number.normalize(EXACT)
    return reduced.quantize(Decimal(1), context=EXACT) if reduced == int(reduced) else reduced
