"""Approvals as rows: what goes in comes out, and every change is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import NotFound
from broker.stores import approvals as rows
from tests.support.holding import approved, claim, hold
from tests.support.services import World, payout, refund


def test_an_approval_comes_out_as_it_went_in(world: World) -> None:
    held = hold(world, payout())
    db = world.services.store.read()
    assert rows.get(db, held.id) == held
    assert held.confirm_value == "900"
    assert rows.latest(db, "bot", held.join_key) == held
    assert rows.latest(db, "second", held.join_key) is None
    assert rows.sealed_request(db, held.id) is not None


def test_what_is_not_there_is_not_found(world: World) -> None:
    db = world.services.store.read()
    with pytest.raises(NotFound, match="there is no approval a-none"):
        rows.get(db, "a-none")
    assert rows.sealed_request(db, "a-none") is None
    assert not rows.is_sent(db, "c-none")


def test_votes_come_out_in_their_order(world: World) -> None:
    held = hold(world, payout())
    for name in ("carol", "bob"):
        world.vote(held.id, name, reason=f"by {name}", confirm="900")
    found = rows.get(world.services.store.read(), held.id)
    assert [(vote.user, vote.reason) for vote in found.votes] == [
        ("carol", "by carol"),
        ("bob", "by bob"),
    ]


def test_a_claim_says_whose_it_is_and_a_release_forgets_it(world: World) -> None:
    held = approved(world)
    taken = claim(world, held, "c-7")
    assert (taken.executor, taken.executor_call) == ("w1", "c-7")
    world.services.store.write(lambda tx: rows.advance(tx, taken, "release"))
    found = rows.get(world.services.store.read(), held.id)
    assert replace(found, executor=None) == replace(held, executor=None)


def test_what_weighs_on_an_agent_is_what_has_not_ended(world: World) -> None:
    first, second = hold(world, refund(1)), approved(world, refund(2))
    claim(world, second)
    db = world.services.store.read()
    count, size = rows.burden(db, "bot")
    assert (count, size > 0) == (2, True)
    world.vote(first.id, decision="deny")
    assert rows.burden(db, "bot")[0] == 1
    assert rows.burden(db, "second") == (0, 0)


def test_every_change_moves_the_counter_and_names_the_approval(world: World) -> None:
    changes = world.services.changes
    held = hold(world, payout())
    for act in (
        lambda: world.vote(held.id, "bob", reason="ok", confirm="900"),
        lambda: world.vote(held.id, "carol", reason="ok", confirm="900"),
        lambda: claim(world, held),
    ):
        seen = changes.now()
        act()
        assert changes.now() > seen
        assert rows.changed_since(world.services.store.read(), seen) == [held.id]
    assert rows.changed_since(world.services.store.read(), changes.now()) == []
