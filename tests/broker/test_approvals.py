"""The approval's table of moves, and when votes suffice."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approvals import (
    ENDED,
    MOVES,
    Event,
    entitled,
    groups_of,
    judge,
    missing,
    move,
    needs,
    resolve,
)
from broker.errors import Conflict, NotEntitled
from broker.model import ApprovalState, Choice, Requirement, Role, TierNeed, User, Vote
from rules.load import load_policy
from rules.model import Subject

NOW = datetime(2026, 11, 22, tzinfo=UTC)
STATES: tuple[ApprovalState, ...] = get_args(ApprovalState)
EVENTS: tuple[Event, ...] = get_args(Event)
POLICY = """\
version: 1
approvers: {finance: [alice, bob], security: [dave]}
tiers:
  medium:
    {quorum: [{group: any, count: 1}], exclude: [owner], decide_within: 10m, execute_within: 9m}
  high:
    {quorum: [{group: finance, count: 1}, {group: security, count: 1}], exclude: [carol],
     decide_within: 20m, execute_within: 1m, denials: 2, confirm: retype, reason: required}
"""


def vote(user: str, decision: Choice = "approve") -> Vote:
    return Vote(user, "approver", (), decision, None, NOW)


def person(name: str, role: Role = "approver", *, disabled: bool = False) -> User:
    return User(name, role, True, NOW, NOW if disabled else None)


def requirement(*tiers: TierNeed, excluded: tuple[str, ...] = (), denials: int = 1) -> Requirement:
    return Requirement(tiers, excluded, denials, False, False, 900, 300)


ANY_ONE = TierNeed("medium", (("any", 1, None),))
ANY_TWO = TierNeed("high", (("any", 2, None),))
MIXED = TierNeed("mixed", (("finance", 1, ("alice", "bob")), ("security", 1, ("alice",))))


# The table


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_a_move_is_in_the_table_or_illegal(state: ApprovalState, event: Event) -> None:
    if (state, event) in MOVES:
        assert move(state, event) == MOVES[state, event]
    else:
        with pytest.raises(Conflict, match=f"an approval that is {state} cannot {event}"):
            move(state, event)


def test_nothing_leads_on_from_an_ended_state_and_every_other_leads_on() -> None:
    assert {state for state, _ in MOVES} == set(STATES) - ENDED


def test_only_an_approved_call_can_be_claimed_and_only_a_claimed_one_used() -> None:
    into: dict[str, set[str]] = {}
    for (state, _), after in MOVES.items():
        into.setdefault(after, set()).add(state)
    assert into["executing"] == {"approved"}
    assert into["used"] == into["unknown"] == {"executing"}
    assert into["approved"] == {"pending", "executing"}
    assert "pending" not in into


# What tiers ask together


def test_the_strictest_of_each_tier_counts() -> None:
    policy, _ = load_policy(POLICY)
    asked = resolve(policy, ("high", "medium"), Subject("bot", owner="alice"))
    assert [need.tier for need in asked.tiers] == ["high", "medium"]
    assert asked.tiers[0].quorum == (
        ("finance", 1, ("alice", "bob")),
        ("security", 1, ("dave",)),
    )
    assert asked.tiers[1].quorum == (("any", 1, None),)
    assert asked.excluded == ("carol", "alice")
    assert (asked.decide_within, asked.execute_within) == (600, 60)
    assert asked.denials == 1
    assert asked.reason_required
    assert asked.retype
    assert Requirement.from_json(asked.to_json()) == asked


def test_an_agent_without_an_owner_excludes_nobody_as_owner() -> None:
    policy, _ = load_policy(POLICY)
    assert resolve(policy, ("medium",), Subject("bot")).excluded == ()


# Who may vote


@pytest.mark.parametrize(
    ("user", "asked", "why"),
    [
        (person("bob", disabled=True), requirement(ANY_ONE), "the account bob is disabled"),
        (person("bob", "viewer"), requirement(ANY_ONE), "role viewer, which may look but not vote"),
        (
            person("bob"),
            requirement(ANY_ONE, excluded=("bob",)),
            "its tier excludes them, by name or as the agent's owner",
        ),
        (person("carol", "admin"), requirement(MIXED), "in none of the groups asked: finance, sec"),
    ],
)
def test_who_may_not_vote_is_told_why(user: User, asked: Requirement, why: str) -> None:
    with pytest.raises(NotEntitled, match=why):
        entitled(asked, user)


@pytest.mark.parametrize(
    ("user", "asked"),
    [
        (person("bob"), requirement(ANY_ONE)),
        (person("carol", "admin"), requirement(ANY_TWO)),
        (person("bob"), requirement(MIXED)),
        (person("zoe"), requirement(MIXED, ANY_ONE)),
    ],
)
def test_who_may_vote(user: User, asked: Requirement) -> None:
    entitled(asked, user)


def test_a_voter_stands_in_the_groups_that_name_them() -> None:
    assert groups_of(requirement(MIXED), "alice") == ("finance", "security")
    assert groups_of(requirement(MIXED), "bob") == ("finance",)
    assert groups_of(requirement(ANY_ONE), "alice") == ()


# Quorum


def test_one_person_fills_one_place_of_a_tier() -> None:
    assert missing(MIXED, ["alice"]) != {}
    assert missing(MIXED, ["alice", "alice"]) != {}
    assert missing(MIXED, ["alice", "bob"]) == {}
    assert missing(MIXED, ["bob", "alice"]) == {}
    assert missing(MIXED, ["bob", "dave"]) == {"security": 1}


def test_two_tiers_may_share_people() -> None:
    assert judge(requirement(ANY_TWO, MIXED), [vote("alice"), vote("bob")]) == "approve"


def test_every_tier_must_be_met() -> None:
    assert judge(requirement(ANY_ONE, MIXED), [vote("bob")]) is None


def test_an_excluded_person_counts_for_nothing() -> None:
    assert judge(requirement(ANY_ONE, excluded=("bob",)), [vote("bob")]) is None


def test_as_many_denials_as_the_tier_asks_for_deny() -> None:
    two = requirement(ANY_TWO, denials=2)
    assert judge(two, [vote("alice", "deny")]) is None
    assert judge(two, [vote("alice", "deny"), vote("bob", "deny")]) == "deny"


def test_denials_weigh_more_than_a_full_quorum() -> None:
    assert judge(requirement(ANY_ONE), [vote("alice"), vote("bob", "deny")]) == "deny"


def test_no_votes_decide_nothing() -> None:
    assert judge(requirement(ANY_ONE), []) is None


@pytest.mark.parametrize(
    ("asked", "votes", "sentence"),
    [
        (requirement(ANY_ONE), [], "Still needed: one person."),
        (requirement(ANY_TWO), [], "Still needed: 2 people."),
        (requirement(ANY_TWO), [vote("bob")], "Still needed: one person."),
        (
            requirement(MIXED),
            [],
            "Still needed: one person of finance and one person of security.",
        ),
        (requirement(MIXED), [vote("bob")], "Still needed: one person of security."),
        (requirement(ANY_ONE), [vote("bob")], "Nobody is missing."),
    ],
)
def test_what_is_still_needed_is_said(asked: Requirement, votes: list[Vote], sentence: str) -> None:
    assert needs(asked, votes) == sentence


PEOPLE = ("a", "b", "c", "d")
GROUPS = st.none() | st.lists(st.sampled_from(PEOPLE), unique=True, max_size=4).map(tuple)
QUORUM = st.lists(st.tuples(st.just("g"), st.integers(1, 2), GROUPS), min_size=1, max_size=3)


@given(quorum=QUORUM, approvers=st.lists(st.sampled_from(PEOPLE), max_size=5))
def test_a_quorum_is_met_if_and_only_if_people_can_be_seated(
    quorum: list[tuple[str, int, tuple[str, ...] | None]], approvers: list[str]
) -> None:
    need = TierNeed("t", tuple(quorum))
    places = [members for _, count, members in quorum for _ in range(count)]
    seatable = any(
        all(members is None or who in members for who, members in zip(order, places, strict=True))
        for order in permutations(set(approvers), len(places))
    )
    assert (missing(need, approvers) == {}) == seatable


@given(quorum=QUORUM, approvers=st.lists(st.sampled_from(PEOPLE), max_size=4, unique=True))
def test_one_more_approver_never_takes_a_quorum_away(
    quorum: list[tuple[str, int, tuple[str, ...] | None]], approvers: list[str]
) -> None:
    need = TierNeed("t", tuple(quorum))
    before = sum(missing(need, approvers).values())
    for more in PEOPLE:
        assert sum(missing(need, [*approvers, more]).values()) <= before
