"""The desk: cards and votes, the same for the page, the API and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from tests.support.holding import approved, hold, state_of
from tests.support.services import CANARY, POLICY, World, payout, refund


def test_the_list_is_newest_first_and_has_no_requests(world: World) -> None:
    first, second = hold(world, refund(1)), hold(world, refund(2))
    world.vote(first.id)
    desk = world.services.desk
    assert [card["id"] for card in desk.list()] == [second.id, first.id]
    assert [card["id"] for card in desk.list("pending")] == [second.id]
    assert [card["id"] for card in desk.list(limit=1)] == [second.id]
    assert all(card["request"] is None for card in desk.list())


def test_a_card_has_the_request_until_it_ends(world: World) -> None:
    held = hold(world)
    desk = world.services.desk
    assert desk.card(held.id, None)["request"]["body_text"] == "amount=5"
    world.vote(held.id, decision="deny")
    assert desk.card(held.id, None)["request"] is None
    with pytest.raises(NotFound, match="there is no approval a-none"):
        desk.card("a-none", None)


def test_a_vote_returns_the_card_as_it_then_is(world: World) -> None:
    shown = world.vote(hold(world).id, reason="  fine  ")
    assert (shown["state"], shown["you"]["why"]) == ("approved", "This call is approved.")
    assert shown["votes"][0]["reason"] == "fine"
    assert CANARY not in json.dumps(shown)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"decision": "maybe"}, "a decision is approve or deny"),
        ({"reason": "x" * 2001}, "the reason is too long: 2000"),
        ({"reason": "\ud800"}, "the reason holds half a character"),
    ],
)
def test_a_vote_that_cannot_be_written_down_is_refused(
    world: World, values: dict[str, Any], why: str
) -> None:
    held = hold(world)
    with pytest.raises(InvalidInput, match=why):
        world.vote(held.id, **values)
    assert state_of(world, held) == "pending"


STALE: dict[str, Callable[[World], object]] = {
    "rule": lambda w: w.publish(POLICY.replace("Money leaves", "Much money leaves")),
    "tier": lambda w: w.publish(POLICY.replace("{group: any, count: 1}", "{group: any, count: 2}")),
    "credential": lambda w: w.publish(POLICY.replace("stripe#api_key", "stripe#other")),
    "denied now": lambda w: w.publish(
        POLICY.replace("match: {method: DELETE, host", "match: {method: [DELETE, POST], host")
    ),
    "gone": lambda w: w.publish(POLICY.replace("[bot, second]", "[second]")),
    "revoked": lambda w: w.services.agents.revoke("bot", "cli:test"),
}


@pytest.mark.parametrize("change", STALE)
def test_a_vote_on_what_has_changed_is_a_conflict_and_supersedes(world: World, change: str) -> None:
    held = hold(world)
    STALE[change](world)
    with pytest.raises(Conflict, match=r"changed since this was opened|revoked meanwhile"):
        world.vote(held.id)
    assert state_of(world, held) == "superseded"
    assert world.records("approval.voted") == []
    assert world.services.desk.card(held.id, None)["request"] is None


def test_a_change_elsewhere_in_the_policy_does_not_matter(world: World) -> None:
    held = hold(world)
    world.publish(POLICY.replace("open.example", "opener.example"))
    assert world.vote(held.id)["state"] == "approved"


def test_a_process_that_has_not_followed_the_policy_yet_does_so_for_the_vote(world: World) -> None:
    held = hold(world)
    other = world.open()
    other.policies.refresh()
    world.services.policies.publish(POLICY.replace("Money leaves", "Much money leaves"), "x")
    with pytest.raises(Conflict, match="changed since this was opened"):
        world.vote(held.id, services=other)


def test_two_processes_votes_meet(world: World) -> None:
    held = hold(world, payout())
    other = world.open()
    world.vote(held.id, "bob", reason="ok", confirm="900")
    assert (
        world.vote(held.id, "carol", reason="ok", confirm="900", services=other)["state"]
        == "approved"
    )


def test_a_vote_after_the_decision_is_a_conflict(world: World) -> None:
    held = approved(world)
    with pytest.raises(Conflict, match="this call is approved already"):
        world.vote(held.id, "carol")
    world.vote(hold(world, refund(2)).id, decision="deny")
    with pytest.raises(Conflict, match="this call is denied already"):
        world.vote(hold(world, refund(2)).id, "carol")


def test_a_stored_request_that_was_changed_cannot_be_approved(world: World) -> None:
    """Somebody with the file, but without the key, put another request in its place."""
    one, other = hold(world, refund(1)), hold(world, refund(1000))
    world.services.store.write(
        lambda tx: tx.db.execute(
            "UPDATE requests SET sealed = (SELECT sealed FROM requests WHERE approval = ?)"
            " WHERE approval = ?",
            (other.id, one.id),
        )
    )
    with pytest.raises(StoreUnavailable, match="was changed or sealed under another key"):
        world.vote(one.id)
    assert state_of(world, one) == "pending"


def test_without_the_store_there_is_no_vote(world: World) -> None:
    held = hold(world)
    other = world.open()
    other.policies.refresh()
    other.store._journal.close()
    with pytest.raises(StoreUnavailable, match="the ledger's writer was closed"):
        world.vote(held.id, services=other)
    assert state_of(world, held) == "pending"
