"""Whether an override asks less of people, or lets more through, than the pack that it changes.

In doubt it does: a change that is not plainly for the stricter is named, so that nobody loosens a
shipped rule without being told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields

from rules.model import ANYONE, Match, Rule, Tier

_FORCE = {"tunnel": 0, "allow": 1, "hold": 2, "deny": 3}
_TEXTS = frozenset(("id", "line", "summary", "impact", "undo", "confirm", "use"))
"""What is said to people, and what goes in: neither changes which calls run without them. What
they retype is looked at by itself."""
_JUDGED = frozenset(("effect", "risk", "agents", "matches", "excepts", "shadow"))
_LISTS = ("methods", "hosts", "paths")
"""Fields of a match any of whose values will do, so that more of them match more."""
_ALL = ("query", "headers", "json", "form")
"""Those all of which must hold, so that more of them match less."""


def loosened(shipped: Rule, now: Rule, tiers: Mapping[str, Tier]) -> str | None:
    """What the rule no longer asks, in words; None if it is as strict as it was shipped."""
    guards = shipped.effect != "allow" or bool(shipped.limits)
    if now.shadow and guards:
        return f"shipped as {_asks(shipped)}, now only tried (mode: shadow)"
    if _FORCE[now.effect] < _FORCE[shipped.effect]:
        return f"shipped as {_asks(shipped)}, now {_asks(now)}"
    one, other = tiers.get(shipped.tier or ""), tiers.get(now.tier or "")
    if one is not None and other is not None and _asks_less(one, other):
        return f"shipped as {_asks(shipped)}, now {_asks(now)}"
    retyped = one is not None and one.confirm == "retype" and shipped.confirm
    if now.effect == "hold" and retyped and now.confirm != shipped.confirm:
        return f"shipped with {shipped.confirm} to be retyped, now {now.confirm or 'the path'}"
    if now.effect != "deny" and not set(now.agents) <= set(shipped.agents):
        return "it is for more agents than the include"
    if guards and not set(shipped.agents) <= set(now.agents):
        return "it is for fewer agents than the include, and others may be allowed such calls"
    same = now.matches == shipped.matches and now.excepts == shipped.excepts
    if shipped.effect == "allow":
        within = _within(now.matches, shipped.matches) and _within(shipped.excepts, now.excepts)
        if now.effect != "deny" and not within:
            return f"it {_lets(now)} other calls than shipped"
    if guards and not same:
        does = "limits" if shipped.effect == "allow" else _asks(shipped)
        return f"it is about other calls than shipped, which this rule {does}"
    if now.effect == "deny":
        return None
    for field in fields(Rule):
        name = field.name
        if name in _TEXTS | _JUDGED or getattr(now, name) == getattr(shipped, name):
            continue
        if getattr(shipped, name) != field.default or name in ("stream",):
            return f"{name} is not as shipped"
    return None


def _asks(rule: Rule) -> str:
    if rule.effect == "allow" and rule.tier:
        return f"allowed, and held beyond its limit ({rule.tier})"
    return {"allow": "allowed", "deny": "denied", "tunnel": "passed on undecrypted"}.get(
        rule.effect, f"held ({rule.risk})"
    )


def _lets(rule: Rule) -> str:
    return "holds" if rule.effect == "hold" else "allows"


def _asks_less(one: Tier, other: Tier) -> bool:
    """Whether the second tier leaves out something that the first asks for."""
    people = [sum(entry.count for entry in tier.quorum) for tier in (one, other)]
    return (
        people[1] < people[0]
        or not _of_groups(one) <= _of_groups(other)
        or not set(one.exclude) <= set(other.exclude)
        or (one.confirm, other.confirm) == ("retype", "none")
        or (one.reason, other.reason) == ("required", "optional")
        or other.denials > one.denials
    )


def _of_groups(tier: Tier) -> Counter[str]:
    """How many people of each group it asks for."""
    found: Counter[str] = Counter()
    for entry in tier.quorum:
        if entry.group != ANYONE:
            found[entry.group] += entry.count
    return found


def _within(inner: tuple[Match, ...], outer: tuple[Match, ...]) -> bool:
    """Whether every call under one of `inner` falls under one of `outer`, as far as one sees."""
    return all(any(_narrower(one, other) for other in outer) for one in inner)


def _narrower(one: Match, other: Match) -> bool:
    for field in fields(Match):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if mine == its or (its == field.default and field.name != "scheme"):
            continue
        if field.name in _LISTS and mine and set(mine) <= set(its):
            continue
        if field.name in _ALL and set(its) <= set(mine):
            continue
        return False
    return True
