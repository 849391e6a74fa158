"""Rules that change nothing, since stronger ones, or wider ones, take all their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from rules.lint.finding import Example, Finding
from rules.lint.never import falls_under, why_never
from rules.lint.view import Placed, View
from rules.lint.within import Spot, match_within, spot_within
from rules.lint.witness import calls, counted
from rules.matching import is_wide
from rules.model import Match, Rule

_FORCE = {"allow": 1, "hold": 2, "deny": 3}


def covered(view: View) -> Iterator[Finding]:
    """Of all rules that are about calls and match some."""
    for order, rule in enumerate(view.policy.rules):
        if rule.effect == "tunnel":
            continue
        if all(why_never(rule, match, wide=is_wide(rule)) for match in rule.matches):
            continue
        yield from _of_rule(view, order, rule)


def _of_rule(view: View, order: int, rule: Rule) -> Iterator[Finding]:
    stronger = _all_covered(view, order, rule, _is_stronger)
    if stronger:
        yield from _stronger(view, rule, stronger)
        return
    alike = _all_covered(view, order, rule, _is_alike)
    if alike:
        ids = _ids(alike)
        example = _example(view, rule)
        if example is not None:
            message = f"all its calls fall under {ids} too, which does the same: it changes nothing"
            yield view.finding("covered-by-alike", "note", rule, message, example)


def _stronger(view: View, rule: Rule, stronger: list[Rule]) -> Iterator[Finding]:
    adds = rule.effect == "allow" and _adds_credential(rule, stronger)
    example = _example(view, rule, "hold" if adds else None)
    if example is None:
        return
    does = {"deny": "denies", "hold": "holds"}[stronger[0].effect]
    verb = {"allow": "allows", "hold": "holds"}[rule.effect]
    message = f"{_ids(stronger)} {does} everything that it {verb}"
    if adds:
        message += ": it allows nothing by itself, and only adds its credential to held calls"
        yield view.finding("allow-only-adds", "note", rule, message, example)
    else:
        message += ": it never decides a call"
        yield view.finding("covered", "warning", rule, message, example)


def _adds_credential(rule: Rule, stronger: list[Rule]) -> bool:
    holds = [other for other in stronger if other.effect == "hold"]
    return any(not set(rule.use) <= set(other.use) for other in holds)


def _is_stronger(rule: Rule, order: int, other: Placed) -> bool:
    return _FORCE[other.rule.effect] > _FORCE[rule.effect]


def _is_alike(rule: Rule, order: int, other: Placed) -> bool:
    """Whether removing the rule leaves another of the same effect and credentials."""
    wide = other.rule
    if wide.effect != rule.effect or other.order == order or rule.effect == "hold":
        return False
    return rule.effect == "deny" or not (
        rule.limits or wide.limits or rule.stream or not set(rule.use) <= set(wide.use)
    )


def _within(inner: Rule, outer: Rule) -> bool:
    reading: Literal["wide", "narrow"] = "wide" if is_wide(inner) else "narrow"
    return (
        set(inner.agents) <= set(outer.agents)
        and not outer.excepts
        and all(any(match_within(m, o, reading) for o in outer.matches) for m in inner.matches)
    )


def _all_covered(
    view: View, order: int, rule: Rule, fits: Callable[[Rule, int, Placed], bool]
) -> list[Rule]:
    """The rules that together take every call of this one; empty if some are left."""
    found: dict[str, Rule] = {}
    for selector in rule.agents:
        for match in rule.matches:
            if why_never(rule, match, wide=is_wide(rule)):
                continue
            for spot in Spot.all_of(match):
                other = _cover(view, order, rule, selector, spot, fits)
                if other is None:
                    return []
                found[other.id] = other
    return list(found.values())


def _cover(
    view: View,
    order: int,
    rule: Rule,
    selector: str,
    spot: Spot,
    fits: Callable[[Rule, int, Placed], bool],
) -> Rule | None:
    """Of two rules that are the same the later one is told of."""
    reading: Literal["wide", "narrow"] = "wide" if is_wide(rule) else "narrow"
    mine = view.holes_of(rule)
    for placed in view.around(selector, spot):
        other = placed.rule
        if (
            fits(rule, order, placed)
            and _lets_none_through(placed, mine, spot.match)
            and spot_within(spot, placed.spot, reading)
            and (other.effect != rule.effect or placed.order < order or not _within(other, rule))
        ):
            return other
    return None


def _lets_none_through(placed: Placed, mine: Sequence[int], match: Match) -> bool:
    """Whether the holes of the other rule let no call of this one through: this rule has them too,
    and reads them no more narrowly; or they are about other methods."""
    for number, hole in zip(placed.holes, placed.rule.excepts, strict=True):
        if number not in mine and not (
            hole.methods and match.methods and not hole.methods & match.methods
        ):
            return False
    return True


def _example(view: View, rule: Rule, effect: str | None = None) -> Example | None:
    """A call under the rule, of that effect."""
    alone = view.alone(rule)
    for match in rule.matches:
        subject = view.subject(rule.agents[0], match)
        for request in calls(counted(match, rule.limits)):
            found = Example(subject, request)
            if falls_under(alone, found) and (
                effect is None or view.book.decide(subject, request).effect == effect
            ):
                return found
    return None


def _ids(rules: list[Rule]) -> str:
    names = ", ".join(f'"{rule.id}"' for rule in rules[:3])
    more = f" and {len(rules) - 3} more" if len(rules) > 3 else ""
    return f"{'rule' if len(rules) == 1 else 'rules'} {names}{more}"
