"""An approval ends by its clocks, and with what it was opened for; and then for good."""

from __future__ import annotations

import pytest

from broker.errors import Conflict
from tests.support.holding import approved, claim, hold, is_stored, state_of
from tests.support.services import World, refund


def test_nobody_can_vote_once_the_time_to_decide_is_over(world: World) -> None:
    held = hold(world)
    world.clock.forward(held.requirement.decide_within)
    with pytest.raises(Conflict, match="the time to decide is over"):
        world.vote(held.id)
    assert state_of(world, held) == "expired"
    assert world.records("approval.voted") == []
    assert [r["state"] for r in world.records("approval.resolved")] == ["expired"]
    assert not is_stored(world, held)


def test_an_approval_that_was_not_used_in_time_is_over(world: World) -> None:
    held = approved(world)
    world.clock.forward(held.requirement.execute_within)
    late = claim(world, held)
    assert (late.state, late.ended_reason) == ("expired", "execute_within is over")
    assert state_of(world, held) == "expired", "the expiry is kept"
    assert not is_stored(world, held)


def test_the_sweep_ends_what_is_due_and_nothing_else(world: World) -> None:
    due, waiting = hold(world, refund(1)), approved(world, refund(2))
    world.clock.forward(waiting.requirement.execute_within)
    fresh = hold(world, refund(3))
    assert world.services.holds.expire_due() == 1
    assert state_of(world, waiting) == "expired"
    world.clock.forward(due.requirement.decide_within - waiting.requirement.execute_within)
    assert world.services.holds.expire_due() == 1
    assert [state_of(world, held) for held in (due, fresh)] == ["expired", "pending"]
    assert world.services.holds.expire_due() == 0


def test_one_that_is_due_can_be_ended_by_itself(world: World) -> None:
    holds = world.services.holds
    held = hold(world)
    assert not holds.is_due(held)
    assert holds.expire(held.id).result(5).state == "pending"
    world.clock.forward(held.requirement.decide_within)
    assert holds.is_due(held)
    assert holds.expire(held.id).result(5).state == "expired"
    assert not holds.is_due(holds.get(held.id))


def test_a_revoked_agents_approvals_are_superseded(world: World) -> None:
    waiting, granted = hold(world, refund(1)), approved(world, refund(2))
    world.services.agents.revoke("bot", "cli:test")
    assert world.services.holds.expire_due() == 2
    for held in (waiting, granted):
        assert world.services.holds.get(held.id).ended_reason == "the agent was revoked"
        assert state_of(world, held) == "superseded"
        assert not is_stored(world, held)
