"""Limits that never count, or that no call gets through; and conditions that cannot be seen
through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from rules.conditions import checks_of
from rules.limits import Limit
from rules.lint.finding import Example, Finding
from rules.lint.never import falls_under
from rules.lint.view import View
from rules.lint.witness import calls
from rules.model import Match, Rule
from rules.places import parse_place
from rules.reading.call import Reading


def measures(view: View) -> Iterator[Finding]:
    """Of all rules with limits or with expressions."""
    for rule in view.policy.rules:
        for limit in rule.limits:
            yield from _of_limit(view, rule, limit)
        if any(match.when is not None for match in (*rule.matches, *rule.excepts)):
            yield from _opaque(view, rule)


def _of_limit(view: View, rule: Rule, limit: Limit) -> Iterator[Finding]:
    least = [_least(match, limit) for match in rule.matches]
    if least and all(bound is not None and bound > limit.most for bound in least):
        message = (
            f"each call takes more than {limit.most} of its limit on {limit.place}, so none ever "
            "fits"
        )
        example = _under(view, rule)
        if example is not None:
            yield view.finding("limit-never-fits", "warning", rule, message, example)
    for other in rule.limits:
        if other is limit or other.place != limit.place or other.over == "hold":
            continue
        # In any stretch of the one there are at most so many of the other.
        stretches = -(-limit.per // other.per)
        if other.per <= limit.per and other.most * stretches <= limit.most:
            message = (
                f"its limit of {limit.most} in {limit.per} s is never reached, since {other.most} "
                f"in {other.per} s is reached before: it counts for nothing"
            )
            example = _under(view, rule)
            if example is not None:
                yield view.finding("limit-never-reached", "note", rule, message, example)
            return


def _least(match: Match, limit: Limit) -> Decimal | None:
    """What each call under the match takes at least."""
    if limit.place is None:
        return None
    place = parse_place(limit.place)
    tests = {
        "json": match.json,
        "form": match.form,
        "query": match.query,
        "header": match.headers,
    }[place.kind]
    bounds = [
        check.value
        for test in tests
        if test.name == place.name
        for check in checks_of(test)
        if check.op in ("gt", "gte") and isinstance(check.value, Decimal)
    ]
    return max(bounds, default=None)


def _under(view: View, rule: Rule) -> Example | None:
    """A call that the rule decides, and that its limits count."""
    for match in rule.matches:
        found = view.find(
            match,
            view.subject(rule.agents[0], match),
            lambda decision, _: any(demand.rule == rule.id for demand in decision.limits),
            rule,
        )
        if found is not None:
            return found
    return None


def _opaque(view: View, rule: Rule) -> Iterator[Finding]:
    """What is said of the rule's other conditions is said without the expression."""
    alone = view.alone(rule)
    seen = _seen_through(rule)
    near: Example | None = None
    shows = "the example is one of its agents' calls, and does not fall under it"
    for match in (*seen.matches, *map(_place_of, seen.matches)):
        subject = view.subject(rule.agents[0], match)
        for request in calls(match):
            call, tried = Reading(request, subject), Example(subject, request)
            if view.falls(rule, call) and falls_under(alone, tried):
                near, shows = tried, "the example falls under it"
                break
            near = near or tried
        else:
            continue
        break
    else:
        if near is not None and falls_under(view.alone(seen), near):
            shows = "the example is as all else in it asks, and the expression leaves it out"
    message = (
        "an expression decides, which is not looked into: whether it can hold, and what it leaves "
        f"open, is for a person to see; try it with tests ({shows})"
    )
    yield view.finding("opaque-condition", "note", rule, message, near)


def _place_of(match: Match) -> Match:
    """Where the match is about, for a call if nothing else gives one."""
    return Match(match.methods, match.hosts, match.paths, match.scheme)


def _seen_through(rule: Rule) -> Rule:
    """The rule without what its expressions ask, or take out."""
    return replace(
        rule,
        matches=tuple([replace(match, when=None) for match in rule.matches]),
        excepts=tuple([hole for hole in rule.excepts if hole.when is None]),
    )
