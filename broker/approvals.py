"""The life of an approval: a table of moves, and when votes suffice. Pure; the store keeps it.

What is not in the table is illegal: `move` raises and nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from broker.errors import Conflict, NotEntitled
from broker.model import ApprovalState, Requirement, Role, TierNeed, User, Vote
from rules.model import ANYONE, OWNER, Policy, Subject

Event = Literal["approve", "deny", "expire", "supersede", "claim", "complete", "release", "lose"]

MOVES: Mapping[tuple[ApprovalState, Event], ApprovalState] = {
    ("pending", "approve"): "approved",  # the votes meet every tier's quorum
    ("pending", "deny"): "denied",
    ("pending", "expire"): "expired",  # decide_within is over
    ("pending", "supersede"): "superseded",  # rule, tier, credential or agent changed
    ("approved", "claim"): "executing",  # one call takes it; all others come too late
    ("approved", "expire"): "expired",  # execute_within is over
    ("approved", "supersede"): "superseded",
    ("executing", "complete"): "used",
    ("executing", "release"): "approved",  # certainly no byte left: not used up
    ("executing", "lose"): "unknown",  # sent, and the result was lost in a crash
}

ENDED: frozenset[ApprovalState] = frozenset({"denied", "expired", "superseded", "used", "unknown"})
"""From here no move leads on; the sealed request is deleted."""

VOTING_ROLES: frozenset[Role] = frozenset({"approver", "admin"})


def move(state: ApprovalState, event: Event) -> ApprovalState:
    """The state after `event`; raises Conflict if the table does not have it."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise Conflict(f"an approval that is {state} cannot {event}") from None


def resolve(policy: Policy, tiers: Iterable[str], subject: Subject) -> Requirement:
    """What the named tiers ask together, for this agent: the strictest of each."""
    chosen = [policy.tiers[name] for name in tiers]
    excluded: dict[str, None] = {}
    for tier in chosen:
        for name in tier.exclude:
            if name != OWNER:
                excluded[name] = None
            elif subject.owner is not None:
                excluded[subject.owner] = None
    return Requirement(
        tiers=tuple(
            TierNeed(
                tier.name,
                tuple(
                    (q.group, q.count, None if q.group == ANYONE else policy.approvers[q.group])
                    for q in tier.quorum
                ),
            )
            for tier in chosen
        ),
        excluded=tuple(excluded),
        denials=min(tier.denials for tier in chosen),
        reason_required=any(tier.reason == "required" for tier in chosen),
        retype=any(tier.confirm == "retype" for tier in chosen),
        decide_within=min(tier.decide_within for tier in chosen),
        execute_within=min(tier.execute_within for tier in chosen),
    )


def entitled(requirement: Requirement, user: User) -> None:
    """Returns if `user` may vote; raises NotEntitled with the reason if not."""
    if user.disabled_at is not None:
        raise NotEntitled(f"the account {user.name} is disabled")
    if user.role not in VOTING_ROLES:
        raise NotEntitled(f"{user.name} has the role {user.role}, which may look but not vote")
    if user.name in requirement.excluded:
        raise NotEntitled(
            f"{user.name} may not vote on this call: its tier excludes them, by name or as the"
            " agent's owner"
        )
    groups = {q[0] for need in requirement.tiers for q in need.quorum}
    if ANYONE not in groups and not groups_of(requirement, user.name):
        raise NotEntitled(
            f"{user.name} is in none of the groups asked: {', '.join(sorted(groups))}"
        )


def groups_of(requirement: Requirement, name: str) -> tuple[str, ...]:
    """The named groups of the requirement in which `name` stands."""
    return tuple(
        sorted(
            {
                group
                for need in requirement.tiers
                for group, _, members in need.quorum
                if members is not None and name in members
            }
        )
    )


def missing(need: TierNeed, approvers: Sequence[str]) -> dict[str, int]:
    """How many people each group of the tier still lacks; empty when the quorum is met.

    One person fills one place: {finance: 1, security: 1} takes two people even if one of them is
    in both groups. That is a bipartite matching, found by augmenting paths (Kuhn, 1955).
    """
    places = [(group, members) for group, count, members in need.quorum for _ in range(count)]
    filled: dict[int, str] = {}

    def place(person: str, seen: set[int]) -> bool:
        for index, (_, members) in enumerate(places):
            if index in seen or (members is not None and person not in members):
                continue
            seen.add(index)
            if index not in filled or place(filled[index], seen):
                filled[index] = person
                return True
        return False

    for person in dict.fromkeys(approvers):
        place(person, set())
    lacking: dict[str, int] = {}
    for index, (group, _) in enumerate(places):
        if index not in filled:
            lacking[group] = lacking.get(group, 0) + 1
    return lacking


def judge(requirement: Requirement, votes: Sequence[Vote]) -> Event | None:
    """What the votes amount to: enough denials deny, a full quorum in every tier approves."""
    denials = {v.user for v in votes if v.decision == "deny"}
    if len(denials) >= requirement.denials:
        return "deny"
    approvers = [
        v.user
        for v in votes
        if v.decision == "approve" and v.counts and v.user not in requirement.excluded
    ]
    if all(not missing(need, approvers) for need in requirement.tiers):
        return "approve"
    return None


def needs(requirement: Requirement, votes: Sequence[Vote]) -> str:
    """One sentence: who is still missing."""
    approvers = [v.user for v in votes if v.decision == "approve" and v.counts]
    lacking: dict[str, int] = {}
    for need in requirement.tiers:
        for group, count in missing(need, approvers).items():
            lacking[group] = max(lacking.get(group, 0), count)
    if not lacking:
        return "Nobody is missing."
    parts = []
    for group, count in lacking.items():
        people = "one person" if count == 1 else f"{count} people"
        parts.append(people if group == ANYONE else f"{people} of {group}")
    return f"Still needed: {' and '.join(parts)}."
