"""Held calls: one durable transaction each, in store and ledger alike or in neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes
from typing import Any, get_args

import pytest

from audit.errors import LedgerUnavailable
from audit.journal import Transaction
from audit.record import Draft
from broker.approvals import MOVES, Event
from broker.errors import Conflict, Refusal
from broker.holds import Holds, Limits
from broker.model import Approval, ApprovalState
from broker.sealing import Sealer, StoredRequest
from broker.stores import approvals as rows
from rules.request import RawRequest
from tests.support.holding import approved, claim, hold, is_stored, propose, state_of
from tests.support.services import POLICY, Template, World, raw, refund

# Opening and joining


def test_an_opened_approval_is_stored_sealed_and_in_the_ledger(world: World) -> None:
    held = hold(world)
    assert world.services.holds.get(held.id) == held
    assert held.state == "pending"
    stored = world.services.holds.stored(held.id)
    assert stored is not None
    assert stored.outgoing.body == b"amount=5"
    [opened] = world.records("approval.opened")
    assert opened["approval"] == held.id
    assert opened["request"] == held.card["request_commitment"]
    assert opened["requirement"] == held.requirement.to_json()
    assert opened["credentials"] == [{"name": "stripe", "secret": "kv/stripe#api_key"}]
    assert opened["after"] is None
    [(sealed,)] = world.rows("SELECT sealed FROM requests")
    assert b"amount" not in sealed


@pytest.mark.parametrize(
    "headers",
    [
        (("Idempotency-Key", "2"), ("Traceparent", "00-1")),
        (("Keybroker-Reason", "another reason"),),
        (("Prefer", "respond-async"),),
    ],
    ids=str,
)
def test_the_same_request_joins_whatever_is_volatile(
    world: World, headers: tuple[tuple[str, str], ...]
) -> None:
    held = hold(world)
    proposal = propose(world, refund(headers=headers))
    assert world.services.holds.open_or_join(proposal).result(5) == held
    [joined] = world.records("approval.joined")
    assert (joined["approval"], joined["call"]) == (held.id, proposal.call)


@pytest.mark.parametrize(
    "other",
    [
        refund(6),
        refund(headers=(("X-Note", "1"),)),
        refund(headers=(("Accept", "text/plain"),)),
        raw("POST", "/v1/refunds?x=1", body=b"amount=5"),
        raw("POST", "/v1/refunds", body=b"amount=5&x=1"),
    ],
    ids=["body", "header", "accept", "query", "field"],
)
def test_any_other_difference_is_a_new_call(world: World, other: RawRequest) -> None:
    assert hold(world).id != hold(world, other).id


def test_another_agents_same_request_is_its_own(world: World) -> None:
    world.services.agents.add("second", by="cli:test")
    assert hold(world).id != hold(world, agent="second").id


def test_an_approved_call_is_joined_too(world: World) -> None:
    held = approved(world)
    assert hold(world).id == held.id


def test_a_call_that_is_being_sent_is_not_asked_about_again(world: World) -> None:
    held = approved(world)
    claim(world, held)
    found = hold(world)
    assert (found.id, found.state) == (held.id, "executing")


def test_a_denial_is_remembered_for_decide_within_and_then_forgotten(world: World) -> None:
    held = hold(world)
    world.vote(held.id, decision="deny", reason="not today")
    world.clock.forward(held.requirement.decide_within - 2)
    again = hold(world)
    assert (again.id, again.state, again.ended_reason) == (held.id, "denied", "not today")
    world.clock.forward(3)
    new = hold(world)
    assert (new.state, new.id != held.id) == ("pending", True)
    assert new.card["earlier"]["approval"] == held.id
    assert new.card["earlier"]["state"] == "denied"


def test_a_denial_is_forgotten_when_the_policy_asks_otherwise(world: World) -> None:
    held = hold(world)
    world.vote(held.id, decision="deny")
    world.publish(POLICY.replace("Money leaves", "Much money leaves"))
    assert hold(world).state == "pending"


def test_after_an_expiry_the_next_one_says_so(world: World) -> None:
    held = hold(world)
    world.clock.forward(held.requirement.decide_within)
    new = hold(world)
    assert new.id != held.id
    assert new.card["earlier"]["state"] == "expired"
    [_, opened] = world.records("approval.opened")
    assert opened["after"] == held.id
    assert state_of(world, held) == "expired"


def test_a_changed_basis_supersedes_and_opens_anew(world: World) -> None:
    held = hold(world)
    world.publish(POLICY.replace("{group: any, count: 1}", "{group: any, count: 2}"))
    new = hold(world)
    assert new.id != held.id
    old = world.services.holds.get(held.id)
    assert (old.state, old.ended_reason) == (
        "superseded",
        "a rule, tier, credential or the agent changed",
    )
    assert new.requirement.tiers[0].quorum == (("any", 2, None),)
    assert not is_stored(world, held)


def test_a_clock_that_is_set_back_does_not_bring_up_an_older_approval(world: World) -> None:
    first = hold(world)
    world.vote(first.id, decision="deny")
    world.clock.forward(first.requirement.decide_within + 1)
    second = hold(world)
    world.clock.forward(-3600)
    assert hold(world).id == second.id


# Caps


@pytest.fixture
def capped(tmp_path: Path, template: Template) -> Any:
    world = World(tmp_path / "keybroker.db", template, limits=Limits(held_calls=2, held_bytes=3000))
    yield world
    world.close()
    world.check()


def test_an_agent_may_hold_so_many_calls(capped: World) -> None:
    first, _ = hold(capped, refund(1)), hold(capped, refund(2))
    with pytest.raises(Refusal, match="You have 2 calls waiting for a decision") as refused:
        hold(capped, refund(3))
    assert (refused.value.code, refused.value.retry_after) == ("too_many_pending", 30)
    assert hold(capped, refund(1)).id == first.id, "joining costs nothing"
    capped.services.agents.add("second", by="cli:test")
    hold(capped, refund(3), agent="second")
    capped.vote(first.id, decision="deny")
    hold(capped, refund(3))


def test_an_agent_may_have_so_many_bytes_stored(capped: World) -> None:
    big = raw("POST", "/v1/refunds", body=b"amount=5&x=" + b"x" * 2300)
    with pytest.raises(Refusal, match=r"You have 0 calls .* \(0 bytes stored\)"):
        hold(capped, big)
    assert capped.rows("SELECT count(*) FROM requests") == [(0,)]


def test_what_is_over_the_limit_is_not_even_sealed(world: World) -> None:
    """To seal ten megabytes takes long, and every agent's records would wait behind it."""

    class Untouched(Sealer):
        def seal(self, stored: StoredRequest, approval: str) -> bytes:
            raise AssertionError

    for limits in (Limits(held_calls=0), Limits(held_bytes=9)):
        holds = Holds(
            world.services.store,
            Untouched(b"s" * 32, token_bytes),
            new_id=world.ids,
            random=token_bytes,
            limits=limits,
        )
        with pytest.raises(Refusal, match="the limit"):
            holds.open_or_join(propose(world)).result(5)


# Claims


def test_of_many_that_claim_one_gets_it(world: World) -> None:
    held = approved(world)
    stores = [world.services, world.open()]

    def ask(number: int) -> str:
        try:
            return claim(world, held, f"c-{number}", holds=stores[number % 2].holds).state
        except Conflict as conflict:
            return str(conflict)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert sorted(answers) == ["executing"] + ["the approval is executing"] * 19


def test_a_claim_under_another_basis_supersedes(world: World) -> None:
    held = approved(world)
    assert claim(world, held, basis="other").state == "superseded"
    assert state_of(world, held) == "superseded"


@pytest.mark.parametrize("end", ["pending", "denied"])
def test_there_is_nothing_to_claim_before_or_after(world: World, end: str) -> None:
    held = hold(world)
    if end == "denied":
        world.vote(held.id, decision="deny")
    with pytest.raises(Conflict, match=f"the approval is {end}"):
        claim(world, held)


def test_a_claim_is_given_back_by_whoever_has_it_only(world: World) -> None:
    held = approved(world)
    claim(world, held, "c-1")
    holds = world.services.holds
    holds.release(held.id, "c-2").result(5)
    assert state_of(world, held) == "executing"
    holds.release(held.id, "c-1").result(5)
    holds.release(held.id, "c-1").result(5)
    now = holds.get(held.id)
    assert (now.state, now.executor, now.executor_call) == ("approved", None, None)
    assert claim(world, held, "c-3").executor_call == "c-3"


# The table, in the store


EVENTS: tuple[Event, ...] = get_args(Event)
STATES: tuple[ApprovalState, ...] = get_args(ApprovalState)


def test_a_move_that_the_table_does_not_have_changes_nothing(world: World) -> None:
    held = hold(world)
    everything = "SELECT * FROM approvals UNION ALL SELECT * FROM approvals"
    for state in STATES:
        for event in EVENTS:
            if (state, event) in MOVES:
                continue
            world.services.store.write(
                lambda tx, s=state: tx.db.execute("UPDATE approvals SET state = ?", (s,))
            )
            before = world.rows(everything), world.rows("SELECT * FROM requests")
            counter = world.services.changes.now()
            found = world.services.holds.get(held.id)
            with pytest.raises(Conflict, match=f"is {state} cannot {event}"):
                world.services.store.write(lambda tx, f=found, e=event: rows.advance(tx, f, e))
            assert (world.rows(everything), world.rows("SELECT * FROM requests")) == before
            assert world.services.changes.now() == counter
    world.services.store.write(lambda tx: tx.db.execute("UPDATE approvals SET state = 'pending'"))


# Store and ledger never disagree

ACTS: dict[str, Callable[[World, Approval], object]] = {
    "open": lambda world, _: hold(world, refund(77)),
    "join": lambda world, _: hold(world),
    "vote": lambda world, held: world.vote(held.id),
    "deny": lambda world, held: world.vote(held.id, decision="deny"),
    "expire": lambda world, _: (world.clock.forward(900), world.services.holds.expire_due()),
    "revoke": lambda world, _: world.services.agents.revoke("bot", "cli:test"),
}


@pytest.mark.parametrize("act", ACTS)
def test_what_the_ledger_does_not_take_the_store_does_not_keep(
    world: World, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Whichever record of the act is the one that fails."""
    held = hold(world)
    tables = ("approvals", "requests", "votes", "agents", "agent_tokens", "counters")

    def everything() -> list[object]:
        return [world.rows(f"SELECT * FROM {table}") for table in tables]

    before, records = everything(), len(world.records())
    append = Transaction.append
    for failing in range(3):
        count = 0

        def breaks(tx: Transaction, draft: Draft, failing: int = failing) -> None:
            nonlocal count
            if count == failing:
                raise OSError("the disk is full")
            count += 1
            append(tx, draft)

        monkeypatch.setattr(Transaction, "append", breaks)
        try:
            ACTS[act](world, held)
        except OSError:
            assert everything() == before
            assert len(world.records()) == records
        else:
            assert failing > 0, "nothing was recorded"
            break
        finally:
            monkeypatch.setattr(Transaction, "append", append)
    else:
        pytest.fail("the act never succeeded")


def test_nothing_is_kept_when_the_commit_fails(world: World) -> None:
    proposal = propose(world)
    world.services.store.close()
    future: Future[Approval] = world.services.holds.open_or_join(proposal)
    with pytest.raises(LedgerUnavailable):
        future.result(5)
    assert world.rows("SELECT count(*) FROM approvals") == [(0,)]


async def test_a_hold_can_be_awaited(world: World) -> None:
    held = await asyncio.wrap_future(world.services.holds.open_or_join(propose(world)))
    assert held.state == "pending"
