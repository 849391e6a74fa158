"""What an override no longer asks: named whenever it is not plainly for the stricter."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from rules.limits import Limit
from rules.loosening import loosened
from rules.model import HostPattern, Match, Quorum, Rule, ValueTest
from rules.schema import BUILT_IN

HOST = (HostPattern("a.example", False, None),)
MATCH = Match(methods=frozenset({"GET", "POST"}), hosts=HOST, paths=("/a", "/b"))
ALLOW = Rule("r", ("bot",), (MATCH,), "allow")
HOLD = replace(ALLOW, effect="hold", risk="medium")
TIERS = {
    **BUILT_IN,
    "alone": replace(BUILT_IN["high"], name="alone", quorum=(Quorum("any", 1),)),
    "own": replace(BUILT_IN["medium"], name="own", exclude=()),
    "money": replace(BUILT_IN["high"], name="money", quorum=(Quorum("finance", 2),)),
    "both": replace(
        BUILT_IN["high"], name="both", quorum=(Quorum("finance", 2), Quorum("security", 1))
    ),
    "other": replace(
        BUILT_IN["high"], name="other", quorum=(Quorum("finance", 1), Quorum("security", 2))
    ),
}

NARROWER = (
    replace(MATCH, methods=frozenset({"GET"})),
    replace(MATCH, paths=("/a",)),
    replace(MATCH, query=(ValueTest("x", exists=True),)),
)
WIDER = (
    replace(MATCH, methods=frozenset()),
    replace(MATCH, paths=("/a", "/b", "/c")),
    replace(MATCH, paths=()),
    replace(MATCH, hosts=()),
    replace(MATCH, scheme="http"),
)


@pytest.mark.parametrize("match", NARROWER)
def test_an_allow_may_allow_less(match: Match) -> None:
    assert loosened(ALLOW, replace(ALLOW, matches=(match,)), TIERS) is None
    assert loosened(ALLOW, replace(ALLOW, excepts=(match,)), TIERS) is None
    assert loosened(replace(ALLOW, excepts=(match,)), ALLOW, TIERS) is not None


@pytest.mark.parametrize("match", WIDER)
def test_an_allow_that_allows_more_is_looser(match: Match) -> None:
    assert loosened(ALLOW, replace(ALLOW, matches=(match,)), TIERS) is not None


@pytest.mark.parametrize("match", NARROWER + WIDER)
def test_a_hold_of_other_calls_is_named(match: Match) -> None:
    """What it no longer holds may be allowed elsewhere; what it holds besides was denied."""
    assert loosened(HOLD, replace(HOLD, matches=(match,)), TIERS) is not None


def test_effects_have_an_order() -> None:
    deny = replace(HOLD, effect="deny", risk=None)
    assert loosened(HOLD, deny, TIERS) is None
    assert loosened(ALLOW, HOLD, TIERS) is None
    assert loosened(HOLD, ALLOW, TIERS) == "shipped as held (medium), now allowed"
    assert loosened(deny, HOLD, TIERS) is not None


@pytest.mark.parametrize(
    ("one", "other", "looser"),
    [
        ("high", "medium", True),
        ("medium", "high", False),
        ("high", "alone", True),
        ("medium", "own", True),
        ("high", "money", False),
        ("money", "high", True),
        ("both", "other", True),
        ("money", "both", False),
    ],
)
def test_tiers_are_compared_by_what_they_ask(one: str, other: str, looser: bool) -> None:
    found = loosened(replace(HOLD, risk=one), replace(HOLD, risk=other), TIERS)
    assert (found is not None) is looser


@pytest.mark.parametrize("match", WIDER)
def test_a_hold_of_calls_that_were_denied_is_named(match: Match) -> None:
    assert loosened(ALLOW, replace(HOLD, matches=(match,)), TIERS) == (
        "it holds other calls than shipped"
    )
    assert loosened(replace(ALLOW, excepts=(match,)), HOLD, TIERS) is not None
    assert loosened(ALLOW, replace(ALLOW, matches=(match,), effect="deny"), TIERS) is None


def test_a_guard_of_fewer_agents_is_named() -> None:
    """The others may be allowed elsewhere what it guards."""
    shipped = replace(HOLD, agents=("bot", "tag:ci"))
    for effect in ("hold", "deny"):
        fewer = replace(shipped, agents=("bot",), effect=effect)
        assert loosened(shipped, fewer, TIERS) is not None
    assert loosened(replace(shipped, effect="allow"), ALLOW, TIERS) is None
    assert loosened(HOLD, replace(shipped, effect="deny"), TIERS) is None


def test_another_value_to_retype_is_named() -> None:
    shipped = replace(HOLD, risk="high", confirm="form:amount")
    assert loosened(shipped, replace(shipped, confirm=None), TIERS) == (
        "shipped with form:amount to be retyped, now the path"
    )
    assert loosened(shipped, replace(shipped, effect="deny", confirm=None), TIERS) is None
    unasked = replace(shipped, risk="medium")
    assert loosened(unasked, replace(unasked, confirm=None), TIERS) is None


def test_what_was_held_beyond_a_limit_only_is_not_held_by_fewer_people() -> None:
    limited = replace(ALLOW, limits=(Limit(Decimal(5), 60, over="hold"),), risk="high")
    held = replace(limited, effect="hold")
    assert loosened(limited, held, TIERS) is None
    assert loosened(limited, replace(held, risk="medium"), TIERS) is not None


@pytest.mark.parametrize("match", NARROWER)
def test_an_allow_with_a_limit_guards(match: Match) -> None:
    """What it no longer counts may be allowed elsewhere, without a limit."""
    limited = replace(ALLOW, agents=("bot", "other"), limits=(Limit(Decimal(5), 60),))
    assert loosened(limited, replace(limited, matches=(match,)), TIERS) == (
        "it is about other calls than shipped, which this rule limits"
    )
    assert loosened(limited, replace(limited, excepts=(match,)), TIERS) is not None
    assert loosened(limited, replace(limited, agents=("bot",)), TIERS) is not None
    assert loosened(limited, replace(limited, shadow=True), TIERS) is not None
    assert loosened(ALLOW, replace(ALLOW, shadow=True), TIERS) is None


def test_agents_and_streaming() -> None:
    assert loosened(HOLD, replace(HOLD, agents=("bot", "other")), TIERS) is not None
    assert loosened(HOLD, replace(HOLD, agents=("other",)), TIERS) is not None
    assert loosened(ALLOW, replace(ALLOW, stream=True), TIERS) is not None
    assert (
        loosened(HOLD, replace(HOLD, summary="x", impact="y", undo="z", use=("k",)), TIERS) is None
    )


def test_limits_may_be_added_and_what_they_hold_may_be_asked_of_more_people() -> None:
    limit = Limit(Decimal(5), 60, over="hold")
    limited = replace(ALLOW, limits=(limit,), risk="high")
    assert loosened(ALLOW, limited, TIERS) is None
    assert loosened(HOLD, replace(HOLD, limits=(limit,)), TIERS) is None
    assert loosened(limited, ALLOW, TIERS) == "limits is not as shipped"
    assert loosened(limited, replace(limited, risk="medium"), TIERS) == (
        "shipped as allowed, and held beyond its limit (high),"
        " now allowed, and held beyond its limit (medium)"
    )
    assert loosened(replace(limited, risk="medium"), limited, TIERS) is None
