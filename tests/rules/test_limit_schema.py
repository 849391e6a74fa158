"""What may stand in `limit:`."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rules.errors import InvalidFile
from rules.limits import Limit
from rules.load import load_policy
from rules.model import Rule

CALLS = "{calls: 30, per: 1m}"
SUM = "{sum: form:amount, max: 5000, per: 1d}"


def rule(limit: str, more: str = "effect: allow") -> Rule:
    text = f"version: 1\nrules: [{{id: r, agents: [a], match: {{}}, {more}, limit: {limit}}}]"
    policy, warnings = load_policy(text, "p")
    assert warnings == ()
    return policy.rules[0]


def problems(limit: str, more: str = "effect: allow") -> str:
    with pytest.raises(InvalidFile) as caught:
        rule(limit, more)
    return "\n".join(problem.message for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (CALLS, [Limit(Decimal(30), 60)]),
        (SUM, [Limit(Decimal(5000), 86400, "form:amount")]),
        (f"[{CALLS}, {SUM}]", [Limit(Decimal(30), 60), Limit(Decimal(5000), 86400, "form:amount")]),
        (
            f"[{CALLS}, {{calls: 1, per: 31d}}]",
            [Limit(Decimal(30), 60), Limit(Decimal(1), 31 * 86400)],
        ),
        (
            "{sum: json:/a/b, max: 12.50, per: 1s, over: hold}",
            [Limit(Decimal("12.5"), 1, "json:/a/b", "hold")],
        ),
        (
            "{sum: 'header:X-Cost', max: '0.000000000000000001', per: 1h, over: deny}",
            [Limit(Decimal("0.000000000000000001"), 3600, "header:x-cost")],
        ),
        ("{sum: query:n, max: 100.10, per: 1h}", [Limit(Decimal("100.1"), 3600, "query:n")]),
    ],
)
def test_limits(text: str, limits: list[Limit]) -> None:
    assert list(rule(text).limits) == limits
    assert list(rule(text, "effect: hold").limits) == limits


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5", "limit must be a mapping"),
        ("[]", "limit takes 1 to 10 limits"),
        (f"[{', '.join([CALLS] * 11)}]", "limit takes 1 to 10 limits"),
        ("{}", "write {calls: 30, per: 1m}"),
        ("{per: 1m}", "write {calls: 30, per: 1m}"),
        ("{calls: 1, sum: query:n, max: 1, per: 1m}", "write {calls: 30, per: 1m}"),
        ("{calls: 1, max: 1, per: 1m}", "write {calls: 30, per: 1m}"),
        ("{sum: query:n, per: 1m}", "write {calls: 30, per: 1m}"),
        ("{calls: 30}", '"per" is missing'),
        ("{calls: 0, per: 1m}", "calls must be a whole number from 1 to"),
        ("{calls: 1.5, per: 1m}", "calls must be a whole number from 1 to"),
        ("{calls: true, per: 1m}", "calls must be a whole number from 1 to"),
        ("{calls: 1, per: 60}", "per must be text, not the number 60"),
        ("{calls: 1, per: 0s}", "per: it must be from 1s to 31d"),
        ("{calls: 1, per: 32d}", "per: it must be from 1s to 31d"),
        ("{calls: 1, per: week}", "per: 'week' is not a duration"),
        ("{calls: 1, per: 1m, over: ask}", "over must be deny or hold"),
        ("{cals: 1, per: 1m}", 'unknown field "cals" (did you mean "calls"?)'),
        ("{sum: amount, max: 1, per: 1m}", 'sum: "amount" is not a place in a request'),
        ("{sum: json:/items/*/n, max: 1, per: 1m}", "a limit sums up one number of each call"),
        ("{sum: query:n, max: 0, per: 1m}", "max must be more than 0"),
        ("{sum: query:n, max: -1, per: 1m}", 'max: "-1" is not a plain decimal'),
        ("{sum: query:n, max: 1e30, per: 1m}", "is not a plain decimal"),
        ("{sum: query:n, max: true, per: 1m}", "max must be text, not true"),
        ("{sum: query:n, max: lots, per: 1m}", 'max: "lots" is not a plain decimal'),
        (f"[{CALLS}, {{calls: 5, per: 60s}}]", "a limit of the same thing in the same time"),
    ],
)
def test_mistakes(text: str, why: str) -> None:
    assert why in problems(text)


@pytest.mark.parametrize(
    ("limit", "more", "why"),
    [
        (CALLS, "effect: deny", "effect: deny lets nothing be counted; limit an allow or a hold"),
        ("{sum: json:/a, max: 1, per: 1m}", "effect: allow, body: stream", "a streamed body"),
        ("{calls: 1, per: 1m, over: hold}", "effect: allow, risk: hihg", 'unknown tier "hihg"'),
        (CALLS, "effect: allow, risk: high", "an allow runs by itself"),
    ],
)
def test_what_does_not_go_together(limit: str, more: str, why: str) -> None:
    assert why in problems(limit, more)


def test_a_tunnel_has_no_limit() -> None:
    text = "version: 1\nrules: [{id: r, agents: [a], match: {host: h}, effect: tunnel, limit: %s}]"
    with pytest.raises(InvalidFile, match="effect: tunnel lets nothing be counted"):
        load_policy(text % CALLS)


@pytest.mark.parametrize(
    ("more", "tier"),
    [
        ("effect: allow", "medium"),
        ("effect: allow, risk: low", "medium"),
        ("effect: allow, risk: high, confirm: form:a", "high"),
        ("effect: hold, risk: high", "high"),
    ],
)
def test_the_tier_in_which_people_are_asked(more: str, tier: str) -> None:
    assert rule("{calls: 1, per: 1m, over: hold}", more).tier == tier


def test_an_allow_whose_limits_deny_asks_nobody() -> None:
    assert rule(CALLS).tier is None
    assert rule("{sum: query:n, max: 1, per: 1m}", "effect: allow, body: stream").limits
