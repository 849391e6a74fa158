"""Held calls: one durable transaction each, in store and ledger alike or in neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes
from typing import Any, get_args

import pytest

from audit.errors import LedgerUnavailable
from audit.journal import Transaction
from audit.record import Draft
from broker.approvals import MOVES, Event
from broker.errors import Conflict, NotEntitled, NotFound, Refusal, Unconfirmed
from broker.holds import Holds, Limits
from broker.model import Approval, ApprovalState
from broker.sealing import Sealer, StoredRequest
from broker.stores import approvals as rows
from rules.request import RawRequest
from tests.support.holding import approved, claim, hold, propose, state_of
from tests.support.services import POLICY, Template, World, payout, raw, refund


def is_stored(world: World, held: Approval) -> bool:
    return bool(world.rows("SELECT 1 FROM requests WHERE approval = ?", held.id))


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


# Clocks


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


# Votes


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
