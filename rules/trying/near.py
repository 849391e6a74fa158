"""Why a past call did not fall under a rule, as far as the ledger tells."""

from __future__ import annotations

from collections.abc import Collection

from rules.explain import MAX_NEAR, Near
from rules.index import Entry, Index
from rules.misses import Miss, Why, found, wanted
from rules.model import Policy, Subject
from rules.trying.glimpse import Glimpse, Look

NOT_KEPT = "the ledger does not keep it"
_MOST = 200
"""Of a policy's matches for one host."""


def near_then(
    policy: Policy, subject: Subject, glimpse: Glimpse, matched: Collection[str]
) -> tuple[Near, ...]:
    """Of the rules that the call did not fall under, the nearest: the conditions that failed, and
    those of which it cannot be told whether they did."""
    look = Look(glimpse, subject)
    nearest: dict[int, tuple[Miss, Near]] = {}
    entries = [
        entry
        for entry in Index(policy).candidates(subject, glimpse.host)
        if entry.rule.effect != "tunnel"
        and entry.rule.id not in matched
        and entry.port in (None, glimpse.port)
    ]
    entries.sort(key=lambda entry: not entry.may_cover(glimpse.path, glimpse.port))
    for entry in entries[:_MOST]:
        miss, near = _compared(entry, look)
        other = nearest.get(entry.order)
        if other is None or miss.distance < other[0].distance:
            nearest[entry.order] = miss, near
    every = sorted(nearest.items(), key=lambda item: (item[1][0].distance, item[0]))
    some = [found for _, found in every if found[0].is_near] or [found for _, found in every]
    return tuple([near for _, near in some[:MAX_NEAR]])


def _compared(entry: Entry, look: Look) -> tuple[Miss, Near]:
    told = [(c, look.tell(c, wide=entry.wide)) for c in entry.matcher.conditions]
    failed = [condition for condition, holds in told if holds is False]
    reasons = [Why(wanted(c), found(c, look.call, openly=True)) for c in failed]
    reasons += [Why(wanted(c), NOT_KEPT) for c, holds in told if holds is None]
    if not reasons:
        # Its place and method are right, and it asks for nothing else: an exception took it out.
        reasons = [Why("if it is none of its exceptions", NOT_KEPT)]
    miss = Miss(entry.rule, entry.matcher.match, True, tuple(failed))
    return miss, Near(entry.rule, tuple(reasons))
