"""What the linter says is certain: for random policies and calls that come near to them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from rules.conditions import Source
from rules.decide import Rulebook
from rules.errors import Unreadable
from rules.lint.check import lint_policy
from rules.lint.meeting import meet
from rules.lint.never import why_never
from rules.lint.possible import impossible
from rules.lint.within import match_within
from rules.lint.witness import calls
from rules.matching import Matcher
from rules.model import Decision, Match, Policy, Rule, SourceTest, Subject
from rules.reading.call import Reading
from rules.request import Request, Via
from tests.support.linting import SHOWS, Case
from tests.support.policies import MATCHES, SUBJECTS, _alike, near, policies

THOROUGH = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def holds(match: Match, call: Reading, *, wide: bool) -> bool:
    if not wide:  # as it is for a rule that permits
        match = replace(match, paths=match.paths or ("/**",))
    return Matcher.of(match).holds_at_host(call, wide=wide)


def has_doubt(match: Match, call: Reading) -> bool:
    """Whether something that the match looks at has no one reading."""
    for condition in Matcher.of(match).conditions:
        for wide in (True, False):
            try:
                condition.holds(call, wide=wide)
            except Unreadable:
                return True
    return False


def falls(policy: Policy, rule: Rule, call: Reading) -> bool:
    book = Rulebook(replace(policy, rules=(rule,)))
    decision = book.decide(call.subject, call.request)
    return bool(decision.rules) and decision.code != "request_ambiguous"


@st.composite
def calls_near(draw: st.DrawFn, match: Match) -> Reading:
    subject = draw(st.sampled_from(SUBJECTS))
    return Reading(draw(near(match, subject)), subject)


@THOROUGH
@given(st.data())
def test_what_is_within_matches_whatever_the_inner_one_matches(data: st.DataObject) -> None:
    inner = data.draw(MATCHES)
    outer = data.draw(st.one_of(_alike(inner), MATCHES))
    call = data.draw(calls_near(inner))
    if match_within(inner, outer, "narrow") and holds(inner, call, wide=False):
        event("narrow")
        assert holds(outer, call, wide=False)
        assert holds(outer, call, wide=True)
    if match_within(inner, outer, "wide") and holds(inner, call, wide=True):
        event("wide")
        assert holds(outer, call, wide=True)
    if match_within(inner, outer, "exact") and holds(inner, call, wide=True):
        event("exact")
        assert holds(outer, call, wide=False)


@THOROUGH
@given(st.data())
def test_what_is_impossible_does_not_match(data: st.DataObject) -> None:
    match = data.draw(MATCHES)
    call = data.draw(calls_near(match))
    if impossible(match, wide=False):
        event("impossible, narrow")
        assert not holds(match, call, wide=False)
    if impossible(match, wide=True):
        event("impossible, wide")
        assert not holds(match, call, wide=True) or has_doubt(match, call)


def told(decision: Decision) -> tuple[object, ...]:
    return decision.effect, decision.credentials, decision.tiers, decision.risk


@THOROUGH
@given(st.data())
def test_findings_hold_for_every_call(data: st.DataObject) -> None:
    policy = data.draw(policies())
    findings = lint_policy(policy)
    some = data.draw(st.sampled_from(policy.rules))
    about = [f.rule for f in findings if f.code.startswith(("covered", "never", "match"))]
    by_id = {rule.id: rule for rule in policy.rules}
    rule = by_id[data.draw(st.sampled_from(about))] if about else some
    call = data.draw(calls_near(data.draw(st.sampled_from(rule.matches))))
    for finding in findings:
        if finding.rule == rule.id:
            _holds(policy, rule, finding.code, call)


def _holds(policy: Policy, rule: Rule, code: str, call: Reading) -> None:
    request: Request = call.request
    if code == "never-matches":
        event(code)
        assert not falls(policy, rule, call) or (
            rule.effect != "allow" and any(has_doubt(m, call) for m in rule.matches)
        )
    elif code == "match-never-holds":
        event(code)
        wide = rule.effect != "allow"
        dead = tuple(m for m in rule.matches if why_never(rule, m, wide=wide))
        assert not falls(policy, replace(rule, matches=dead), call) or (
            wide and any(has_doubt(m, call) for m in dead)
        )
    elif code == "matches-no-plain-call":
        event(code)
        assert not falls(policy, replace(rule, effect="allow", risk=None, use=()), call)
    elif code.startswith("covered"):
        event(code)
        left = tuple(other for other in policy.rules if other.id != rule.id)
        one = Rulebook(policy).decide(call.subject, request)
        other = Rulebook(replace(policy, rules=left)).decide(call.subject, request)
        assert told(one) == told(other)
        if code == "covered":
            assert one.rules == other.rules


@settings(THOROUGH, max_examples=40)
@given(policies())
def test_every_example_shows_its_finding(policy: Policy) -> None:
    for finding in lint_policy(policy):
        event(finding.code)
        assert SHOWS[finding.code](Case(policy, finding)), finding


VIAS: tuple[Via, ...] = ("proxy", "gateway")
SOURCES = [
    SourceTest(via=via, run=run, runs=runs, tags=tags)
    for via in (None, *VIAS[:1])
    for run, runs in ((None, ()), (True, ()), (False, ()), (None, ("r",)), (None, ("r", "s")))
    for tags in ((), ("t",))
]


def test_what_comes_from_one_place_comes_from_a_wider_one() -> None:
    """Every pair of sources, on every call that tells them apart: a yes is right, and so, without
    tags, is a no."""
    found = [
        Reading(
            Request("GET", "https", "a", 443, "/", None, (), b"", via=via, run=run),
            Subject("x", frozenset(tags)),
        )
        for via, run, tags in product(VIAS, (None, "r", "s", "z"), ((), ("t",)))
    ]
    for inner, outer in product(SOURCES, SOURCES):
        falls_in = [call for call in found if Source(inner).holds(call, wide=False)]
        always = all(Source(outer).holds(call, wide=False) for call in falls_in)
        assert match_within(Match(source=inner), Match(source=outer), "exact") is always
        both = meet(Match(source=inner), Match(source=outer))
        assert both is not None
        shared = [call for call in falls_in if Source(outer).holds(call, wide=False)]
        example = next(calls(both))
        tagged = Subject("x", frozenset(both.source.tags if both.source else ()))
        if shared:
            call = Reading(example, tagged)
            assert Source(inner).holds(call, wide=False) and Source(outer).holds(call, wide=False)
