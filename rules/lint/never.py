"""Rules, or parts of them, that no call falls under; and matches that look like a slip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from rules.decide import Rulebook
from rules.describe import describe_match
from rules.lint.finding import Example, Finding
from rules.lint.meeting import meet, without_body
from rules.lint.possible import asks_form, asks_json, impossible, never_with_body
from rules.lint.view import View
from rules.lint.within import match_within
from rules.lint.witness import calls
from rules.matching import is_wide
from rules.model import Match, Rule, ValueTest
from rules.reading.call import Reading
from rules.yamlfile import did_you_mean


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


METHODS = _words(
    """GET HEAD OPTIONS POST PUT PATCH DELETE QUERY PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK
    REPORT SEARCH PURGE LINK UNLINK MKCALENDAR ACL BIND REBIND UNBIND"""
)
"""Those of RFC 9110, WebDAV and a few more that servers know."""


def never(view: View) -> Iterator[Finding]:
    """Of all rules that are about calls."""
    for rule in view.policy.rules:
        if rule.effect != "tunnel":
            yield from _of_rule(view, rule)


def _of_rule(view: View, rule: Rule) -> Iterator[Finding]:
    wide = is_wide(rule)
    whys = [why_never(rule, match, wide=wide) for match in rule.matches]
    plainly = [why_never(rule, match, wide=False) for match in rule.matches]
    if all(whys):
        meaning = (
            "the guard guards nothing (only what cannot be read in one way falls under it)"
            if wide
            else "nothing is allowed by it"
        )
        message = f"it can never match ({whys[0]}): {meaning}"
        example = _missing_one(view, rule)
        yield view.finding("never-matches", "warning", rule, message, example)
    elif all(plainly):
        message = (
            f"no plainly written call falls under it ({plainly[0]}): it takes only odd spellings, "
            "and what it was meant to stop passes by"
        )
        example = _missing_one(view, rule)
        yield view.finding("matches-no-plain-call", "warning", rule, message, example)
    else:
        for index, why in enumerate(whys):
            if why is not None:
                message = (
                    f"match {index + 1} of {len(whys)} can never hold ({why}): it does nothing"
                )
                match = rule.matches[index]
                example = _missing(view, replace(rule, matches=(match,)), match)
                yield view.finding("match-never-holds", "warning", rule, message, example)
    if not all(whys) and rule.id not in view.policy.packed:
        yield from _idle_holes(view, rule)
    yield from _slips(view, rule)


def _idle_holes(view: View, rule: Rule) -> Iterator[Finding]:
    """What is excepted from the rule, and is about none of its calls."""
    for hole in rule.excepts:
        why, out = impossible(hole, wide=not is_wide(rule)), "no plainly written call"
        if all(_part(match, hole) for match in rule.matches):
            why, out = "it is about other hosts, ports or methods than the rule", "nothing"
        example = None if why is None else _kept(view, rule, hole)
        if example is not None:
            message = f"its except of {describe_match(hole)} takes {out} out ({why})"
            yield view.finding("except-never-holds", "warning", rule, message, example)


def _part(match: Match, hole: Match) -> bool:
    """Whether the two certainly have no call in common, by all but paths."""
    return meet(replace(match, paths=()), replace(hole, paths=())) is None


def _kept(view: View, rule: Rule, hole: Match) -> Example | None:
    """A call that stays under the rule, as like to what is excepted as can be."""
    for match in rule.matches:
        subject = view.subject(rule.agents[0], match)
        place = replace(match, paths=hole.paths or match.paths)
        for asked in (place, match):
            found = view.find(asked, subject, lambda _, __: True, rule)
            if found is not None:
                return found
    return None


def why_never(rule: Rule, match: Match, *, wide: bool) -> str | None:
    """Why no call falls under the rule by this match; None if one may. Sound but for calls that
    have no one reading, where it is read widely.

    Of a rule that restricts, without `wide`: why no plainly written call does.
    """
    why = impossible(match, wide=wide, guard=is_wide(rule))
    if why is not None:
        return why
    reading: Literal["exact", "narrow"] = "exact" if wide else "narrow"
    for hole in rule.excepts:
        if match_within(match, hole, reading):
            return "its except: takes all of it out"
    if rule.effect == "allow":
        return _uncountable(rule, match)
    return None


def _uncountable(rule: Rule, match: Match) -> str | None:
    for limit in rule.limits:
        place = limit.place or ""
        if place.startswith("form:") and (asks_json(match) or match.grpc is not None):
            return f"the limit sums up {place}, and the body is no form"
        if place.startswith("json:") and (asks_form(match) or match.grpc is not None):
            return f"the limit sums up {place}, and the body is not JSON"
    return None


def _missing_one(view: View, rule: Rule) -> Example | None:
    found = (_missing(view, rule, match) for match in rule.matches)
    return next((example for example in found if example is not None), None)


def _missing(view: View, rule: Rule, match: Match) -> Example | None:
    """A call that the author must have meant, and that does not fall under the rule."""
    subject = view.subject(rule.agents[0], match)
    alone = view.alone(rule)
    for relaxed in (match, _relaxed(match), without_body(_relaxed(match)), _bare(match)):
        for request in calls(relaxed):
            if not falls_under(alone, Example(subject, request)):
                return Example(subject, request)
    return None


def falls_under(alone: Rulebook, example: Example) -> bool:
    """Whether the call falls under the only rule of the book."""
    return bool(alone.matching(Reading(example.request, example.subject)))


def _relaxed(match: Match) -> Match:
    """The same with the first check only of each value, so that contradictions go."""

    def first(tests: tuple[ValueTest, ...]) -> tuple[ValueTest, ...]:
        return tuple(replace(test, checks=test.checks[:1]) for test in tests)

    return replace(
        match,
        query=first(match.query),
        headers=first(match.headers),
        json=first(match.json),
        form=first(match.form),
        body=match.body and replace(match.body, size=()),
        grpc=None,
    )


def _bare(match: Match) -> Match:
    return Match(match.methods - {"GET"} or match.methods, match.hosts, match.paths, match.scheme)


def _slips(view: View, rule: Rule) -> Iterator[Finding]:
    for match in rule.matches:
        if never_with_body(match):
            message = (
                "it looks at the body of GET or HEAD, and hardly any client sends one: calls "
                "without it do not fall under the rule"
            )
            example = _unmatched(view, rule, without_body(match))
            if example is not None:
                yield view.finding("body-of-get", "note", rule, message, example)
        for method in sorted(match.methods - set(METHODS)):
            hint = did_you_mean(method, METHODS)
            message = (
                f"{method} is no method that servers know{hint}: calls with another do not fall "
                "under this match"
            )
            only = replace(rule, matches=(replace(match, methods=frozenset((method,))),))
            example = _unmatched(view, only, replace(match, methods=frozenset(("GET",))))
            if example is not None:
                yield view.finding("unusual-method", "note", rule, message, example)


def _unmatched(view: View, rule: Rule, match: Match) -> Example | None:
    subject = view.subject(rule.agents[0], match)
    alone = view.alone(rule)
    for request in calls(match):
        example = Example(subject, request)
        if not falls_under(alone, example):
            return example
    return None
