"""Who had to agree: one person fills one place of a tier; what is odd is impossible to meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.quorum import MOST_PLACES, OddRequirement, Tier, read_requirement
from audit.record import JSON
from tests.audit.ledgers import requirement

FINANCE = ["alice", "bob"]
SECURITY = ["bob", "dave"]


@pytest.mark.parametrize(
    ("quorum", "people", "lacks"),
    [
        ([("any", 1, None)], {"zoe"}, []),
        ([("any", 1, None)], set(), ["tier high lacks 1 of 1 (any)"]),
        ([("any", 2, None)], {"alice"}, ["tier high lacks 1 of 2 (any)"]),
        ([("finance", 1, FINANCE)], {"zoe"}, ["tier high lacks 1 of 1 (finance)"]),
        # Bob is in both groups and fills one place only.
        (
            [("finance", 1, FINANCE), ("security", 1, SECURITY)],
            {"bob"},
            ["tier high lacks 1 of 2 (security)"],
        ),
        # Whoever comes first, alice must sit in finance and bob in security.
        ([("finance", 1, FINANCE), ("security", 1, SECURITY)], {"alice", "bob"}, []),
        ([("any", 1, None), ("finance", 1, FINANCE)], {"alice", "zoe"}, []),
        ([("any", 1, None), ("finance", 2, FINANCE)], {"alice", "bob"}, ["lacks 1 of 3"]),
    ],
)
def test_a_quorum_is_met_by_distinct_people(
    quorum: list[tuple[str, int, list[str] | None]], people: set[str], lacks: list[str]
) -> None:
    found = read_requirement(requirement(*quorum)).lacks(people)
    assert len(found) == len(lacks)
    assert all(part in phrase for part, phrase in zip(lacks, found, strict=True))


def test_every_tier_must_be_met_and_one_person_counts_in_each() -> None:
    value = json.loads(json.dumps(requirement(("finance", 1, FINANCE))))
    value["tiers"].append(
        {"tier": "medium", "quorum": [{"group": "security", "count": 1, "members": SECURITY}]}
    )
    both = read_requirement(value)
    assert both.lacks({"bob"}) == []
    assert both.lacks({"alice"}) == ["tier medium lacks 1 of 1 (security)"]


GROUPS = st.none() | st.frozensets(st.sampled_from("abcd"), max_size=3)


@given(st.lists(GROUPS, min_size=1, max_size=4), st.frozensets(st.sampled_from("abcd")))
def test_places_are_filled_as_well_as_they_can_be(
    groups: list[frozenset[str] | None], people: frozenset[str]
) -> None:
    """Against trying every seating."""
    tier = Tier("t", tuple(("g", members) for members in groups))
    seats = [*people, *[None] * len(groups)]
    best = min(
        sum(
            person is None or (members is not None and person not in members)
            for person, members in zip(seating, groups, strict=True)
        )
        for seating in permutations(seats, len(groups))
    )
    assert len(tier.lacks(people)) == best


GOOD: Mapping[str, JSON] = requirement(("any", 2, None))
QUORUM = {"group": "any", "count": 1, "members": None}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "any",
        {},
        {**GOOD, "tiers": []},
        {**GOOD, "tiers": "high"},
        {**GOOD, "tiers": [{"tier": "high", "quorum": []}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": 0}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": -1}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": True}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": "1"}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": 10**15}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "count": MOST_PLACES + 1}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{**QUORUM, "members": "alice"}]}]},
        {**GOOD, "tiers": [{"tier": "high", "quorum": [{"group": "any", "count": 1}]}]},
        {**GOOD, "tiers": [{"tier": None, "quorum": [QUORUM]}]},
        {**GOOD, "excluded": None},
        {**GOOD, "excluded": [1]},
        {**GOOD, "denials": 0},
        {k: v for k, v in GOOD.items() if k != "confirm"},
    ],
)
def test_an_odd_requirement_is_none_that_could_be_met(value: JSON) -> None:
    with pytest.raises(OddRequirement):
        read_requirement(value)


def test_the_largest_quorum_is_still_counted() -> None:
    largest = read_requirement(requirement(("any", MOST_PLACES, None)))
    people = {f"u{i}" for i in range(MOST_PLACES)}
    assert largest.lacks(people) == []
    assert largest.lacks(people - {"u7"}) == [f"tier high lacks 1 of {MOST_PLACES} (any)"]
