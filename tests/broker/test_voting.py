"""Votes: recorded with who and why, by people who may, and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import Conflict, NotEntitled, NotFound, Unconfirmed
from tests.support.holding import approved, hold, is_stored, state_of
from tests.support.services import World, payout, raw


def test_an_approving_vote_is_recorded_with_who_and_why(world: World) -> None:
    held = hold(world)
    world.vote(held.id, reason="checked the ticket")
    now = world.services.holds.get(held.id)
    assert now.state == "approved"
    assert now.execute_by is not None
    assert (now.execute_by - now.votes[0].at).total_seconds() == 300
    [voted] = world.records("approval.voted")
    assert (voted["user"], voted["role"], voted["decision"]) == ("bob", "approver", "approve")
    assert (voted["reason"], voted["via"]) == ("checked the ticket", "api")
    assert voted["request"] == held.card["request_commitment"]
    [resolved] = world.records("approval.resolved")
    assert (resolved["state"], resolved["by"]) == ("approved", ["bob"])
    assert is_stored(world, held)


def test_a_denial_ends_it_and_deletes_the_request(world: World) -> None:
    held = hold(world)
    world.vote(held.id, decision="deny", reason="no")
    assert state_of(world, held) == "denied"
    assert not is_stored(world, held)
    [(kept,)] = world.rows("SELECT confirm_value FROM approvals")
    assert kept is None


def test_two_people_are_two_people(world: World) -> None:
    held = hold(world, payout())
    world.vote(held.id, "bob", reason="ok", confirm="900")
    with pytest.raises(Conflict, match="bob has voted on this call already"):
        world.vote(held.id, "bob", reason="ok", confirm="900")
    assert state_of(world, held) == "pending"
    world.vote(held.id, "carol", reason="ok", confirm=" 900 ")
    assert state_of(world, held) == "approved"
    assert [r["confirmed"] for r in world.records("approval.voted")] == [True, True]


def test_denials_are_counted_where_the_tier_asks_for_several(world: World) -> None:
    held = hold(world, raw("POST", "/v1/both", body=b"a=b"))
    world.vote(held.id, "bob", "deny")
    assert state_of(world, held) == "pending"
    world.vote(held.id, "dave", "deny")
    assert state_of(world, held) == "denied"
    assert world.records("approval.resolved")[0]["by"] == ["bob", "dave"]


@pytest.mark.parametrize(
    ("reason", "confirm", "why"),
    [
        (None, "900", "this tier asks for a reason"),
        ("  ", "900", "this tier asks for a reason"),
        ("ok", None, "retype the amount .* exactly"),
        ("ok", "90", "retype the amount .* exactly"),
    ],
)
def test_an_approval_lacks_what_the_tier_asks_for(
    world: World, reason: str | None, confirm: str | None, why: str
) -> None:
    held = hold(world, payout())
    with pytest.raises(Unconfirmed, match=why):
        world.vote(held.id, reason=reason, confirm=confirm)
    assert world.services.holds.get(held.id).votes == ()
    assert world.records("approval.voted") == []


def test_a_denial_needs_neither(world: World) -> None:
    held = hold(world, payout())
    world.vote(held.id, decision="deny")
    assert state_of(world, held) == "denied"


def test_what_is_to_be_retyped_must_be_there(world: World) -> None:
    held = hold(world, payout())
    world.services.store.write(
        lambda tx: tx.db.execute("UPDATE approvals SET confirm_value = NULL")
    )
    with pytest.raises(NotEntitled, match="the value to retype is missing"):
        world.vote(held.id, reason="ok", confirm="")


@pytest.mark.parametrize(
    ("user", "why"),
    [("alice", "its tier excludes them"), ("victor", "has the role viewer")],
)
def test_who_may_not_vote_changes_nothing(world: World, user: str, why: str) -> None:
    held = hold(world)
    with pytest.raises(NotEntitled, match=why):
        world.vote(held.id, user)
    assert state_of(world, held) == "pending"
    assert world.records("approval.voted") == []


def test_who_was_disabled_a_moment_ago_has_no_vote(world: World) -> None:
    """The page looked the person up before; the transaction looks again."""
    held = hold(world)
    world.open().people.disable("bob", "cli:test")
    with pytest.raises(NotEntitled, match="the account bob is disabled"):
        world.vote(held.id)
    stranger = replace(world.people["carol"], name="zoe")
    with pytest.raises(NotEntitled, match="there is no account zoe"):
        world.services.desk.vote(held.id, stranger, "approve", reason=None, confirm=None, via="api")
    assert world.records("approval.voted") == []


def test_the_approval_of_a_person_disabled_since_counts_no_more(world: World) -> None:
    """Two people are asked; who was one of them and is none now must not be half of the quorum."""
    held = hold(world, payout())

    def approve(name: str) -> str:
        card = world.vote(held.id, name, reason="due", confirm=held.confirm_value)
        return str(card["state"])

    assert approve("carol") == "pending"
    world.open().people.set_role("dave", "admin", "cli:test")
    world.open().people.disable("carol", "cli:test")
    assert approve("bob") == "pending"
    assert world.services.desk.card(held.id, None)["needs"] == "Still needed: one person."
    assert approve("dave") == "approved"
    # What was decided stays decided.
    world.open().people.disable("bob", "cli:test")
    assert all(vote.counts for vote in world.services.holds.get(held.id).votes)


@pytest.mark.parametrize("way", ["disabled", "demoted"])
def test_who_may_vote_again_has_not_approved_before(world: World, way: str) -> None:
    """An approval that was void for a while must not come to life by itself."""
    people = world.services.people
    people.set_role("dave", "admin", "cli:test")
    held = hold(world, payout())
    world.vote(held.id, "carol", reason="due", confirm=held.confirm_value)

    def counted() -> list[bool]:
        return [vote.counts for vote in world.services.holds.get(held.id).votes]

    assert counted() == [True]
    if way == "disabled":
        people.disable("carol", "cli:test")
        assert counted() == [False]
        people.enable("carol", "cli:test")
    else:
        people.set_role("carol", "viewer", "cli:test")
        assert counted() == [False]
        people.set_role("carol", "admin", "cli:test")
    assert counted() == [False]
    card = world.vote(held.id, "bob", reason="due", confirm=held.confirm_value)
    assert card["state"] == "pending"


def test_a_vote_on_what_is_not_pending_is_a_conflict(world: World) -> None:
    held = approved(world)
    with pytest.raises(Conflict, match="this call is approved already"):
        world.vote(held.id, "carol")
    with pytest.raises(NotFound, match="there is no approval a-none"):
        world.vote("a-none")


def test_a_vote_on_a_revoked_agents_call_supersedes_it(world: World) -> None:
    held = hold(world)
    world.services.agents.revoke("bot", "cli:test")
    with pytest.raises(Conflict, match="the agent was revoked meanwhile"):
        world.vote(held.id)
    assert state_of(world, held) == "superseded"
    assert not is_stored(world, held)
