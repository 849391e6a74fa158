"""Calls that go out: sent before they leave, one result each, unknown after a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from audit.commitment import commit
from audit.journal import Transaction
from audit.record import Draft
from broker.digest import request_digest
from broker.errors import Conflict, Refusal
from broker.injectors import place
from broker.model import Approval
from broker.secret import Secret, SecretVersion
from broker.sending import Dispatch, Outcome
from rules.canonical import canonicalise
from rules.model import Subject
from rules.request import RawRequest
from tests.support.holding import approved, claim, hold, state_of
from tests.support.services import ADDRESS, CANARY, World, raw, refund

OUTCOME = Outcome(200, "aa", "bb", 10, 9, 1, 30, 20)


def dispatch(
    world: World,
    call: str,
    *,
    wire: RawRequest | None = None,
    approval: Approval | None = None,
    worker: str = "w1",
    agent: str = "bot",
) -> Dispatch:
    request = canonicalise(wire or (raw() if approval is None else refund()))
    published = world.services.policies.refresh()
    assert published is not None
    decision = published.rulebook.decide(Subject("bot", frozenset(), "alice"), request)
    policy = published.rulebook.policy
    credentials = [policy.credentials[name] for name in decision.credentials]
    outgoing = place(request, credentials)
    return Dispatch(
        call=call,
        agent=agent,
        request=outgoing,
        digest=request_digest(world.services.keys.digest, outgoing, credentials),
        decision=decision,
        policy_version=published.version,
        approval=approval,
        secrets=[(c, SecretVersion(c.secret, 3, Secret(CANARY))) for c in credentials],
        address=ADDRESS,
        worker=worker,
    )


def send(world: World, call: str, **options: Any) -> bytes:
    return world.services.sending.sent(dispatch(world, call, **options)).result(5)


def claimed(world: World, call: str, **options: Any) -> Approval:
    return claim(world, approved(world, **options), call)


def outcome_of(world: World, call: str) -> list[str]:
    types = ("call.sent", "call.completed", "call.failed", "call.unknown")
    return [r["type"] for r in world.records(*types) if r["call"] == call]


def test_sent_says_everything_but_the_value(world: World) -> None:
    salt = send(world, "c-1")
    [read] = world.records("secret.read")
    [sent] = world.records("call.sent")
    assert read["seq"] + 1 == sent["seq"], "one commit"
    secrets = [{"name": "stripe", "ref": "kv/stripe#api_key", "version": 3}]
    assert read["secrets"] == sent["secrets"] == secrets
    assert sent["what"] == {
        "method": "GET",
        "scheme": "https",
        "host": "api.stripe.com",
        "port": 443,
        "path": "/v1/charges",
    }
    assert (sent["rules"], sent["policy"], sent["address"]) == (["read"], 1, ADDRESS)
    assert sent["request"] == commit(salt, "request", dispatch(world, "c-1").digest)
    assert sent["body"] == commit(salt, "body", b"")
    assert world.rows("SELECT salt FROM ledger_salts WHERE subject = 'c-1'") == [(salt,)]
    assert world.rows("SELECT call, worker FROM inflight") == [("c-1", "w1")]


def test_a_call_without_a_credential_reads_no_secret(world: World) -> None:
    send(world, "c-1", wire=raw(host="open.example"))
    assert world.records("secret.read") == []
    assert world.records("call.sent")[0]["secrets"] == []


def test_an_approved_call_keeps_the_commitment_that_was_voted_on(world: World) -> None:
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)
    [opened], [sent] = world.records("approval.opened"), world.records("call.sent")
    assert (sent["request"], sent["body"]) == (opened["request"], opened["body"])
    assert (sent["approval"], sent["votes"]) == (held.id, ["bob"])


@pytest.mark.parametrize("how", ["never claimed", "claimed by another", "given back"])
def test_who_has_not_claimed_the_approval_does_not_send(world: World, how: str) -> None:
    held = approved(world)
    if how != "never claimed":
        claim(world, held, "c-2" if how == "claimed by another" else "c-1")
    if how == "given back":
        world.services.holds.release(held.id, "c-1").result(5)
    with pytest.raises(Conflict, match="is not claimed by this call any more"):
        send(world, "c-1", approval=held)
    assert outcome_of(world, "c-1") == []
    assert world.rows("SELECT * FROM inflight") == []


def test_an_agent_that_was_revoked_meanwhile_does_not_send(world: World) -> None:
    """While the secret was read, say: the ledger would have a call of nobody's."""
    world.services.agents.revoke("bot", "cli:test")
    for agent in ("bot", "nobody"):
        with pytest.raises(Refusal, match="The agent was revoked; nothing was sent") as refused:
            send(world, "c-1", agent=agent)
        assert refused.value.code == "agent_unauthenticated"
    assert outcome_of(world, "c-1") == []


def test_a_completed_call_uses_its_approval_up(world: World) -> None:
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)
    world.services.sending.completed("c-1", "bot", OUTCOME).result(5)
    assert state_of(world, held) == "used"
    [completed] = world.records("call.completed")
    assert (completed["status"], completed["received"], completed["delivered"]) == (200, "aa", "bb")
    assert (completed["masked"], completed["duration_ms"], completed["first_byte_ms"]) == (
        1,
        30,
        20,
    )
    assert world.rows("SELECT * FROM inflight") == []
    assert world.rows("SELECT * FROM requests") == []


@pytest.mark.parametrize(("sent", "state"), [(True, "unknown"), (False, "approved")])
def test_a_failed_call_gives_its_approval_back_only_if_nothing_left(
    world: World, sent: bool, state: str
) -> None:
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)
    world.services.sending.failed(
        "c-1",
        "bot",
        code="upstream_unreachable",
        sentence="refused",
        sent=sent,
        duration_ms=5,
    ).result(5)
    assert state_of(world, held) == state
    [failed] = world.records("call.failed")
    assert (failed["sent"], failed["code"]) == (sent, "upstream_unreachable")
    if not sent:
        again = claim(world, held, "c-2")
        send(world, "c-2", approval=again)
        world.services.sending.completed("c-2", "bot", OUTCOME).result(5)
        assert state_of(world, held) == "used"


def test_a_call_gets_one_result(world: World) -> None:
    send(world, "c-1")
    sending = world.services.sending
    sending.completed("c-1", "bot", OUTCOME).result(5)
    sending.completed("c-1", "bot", OUTCOME).result(5)
    sending.failed("c-1", "bot", code="x", sentence="y", sent=True, duration_ms=1).result(5)
    sending.recover(None)
    assert outcome_of(world, "c-1") == ["call.sent", "call.completed"]


def test_a_call_that_was_never_sent_gets_no_result(world: World) -> None:
    world.services.sending.completed("c-1", "bot", OUTCOME).result(5)
    assert outcome_of(world, "c-1") == []


def test_a_late_result_leaves_another_calls_claim_alone(world: World) -> None:
    """The claim was given back and taken by another call before the first one's failure came."""
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)

    def steal(tx: Transaction) -> None:
        tx.db.execute("UPDATE approvals SET executor_call = 'c-2'")

    world.services.store.write(steal)
    world.services.sending.failed(
        "c-1", "bot", code="x", sentence="y", sent=False, duration_ms=1
    ).result(5)
    now = world.services.holds.get(held.id)
    assert (now.state, now.executor_call) == ("executing", "c-2")
    assert outcome_of(world, "c-1") == ["call.sent", "call.failed"]


def test_a_claim_whose_call_was_sent_is_not_given_back(world: World) -> None:
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)
    world.services.holds.release(held.id, "c-1").result(5)
    assert state_of(world, held) == "executing"


def test_after_a_crash_sent_calls_are_unknown_and_claims_are_given_back(world: World) -> None:
    sent = claimed(world, "c-1")
    send(world, "c-1", approval=sent)
    only_claimed = claim(world, approved(world, refund(6)), "c-2")
    send(world, "c-3")
    assert world.services.recover("w1") == 2
    assert state_of(world, sent) == "unknown"
    assert state_of(world, only_claimed) == "approved"
    unknown = world.records("call.unknown")
    assert [record["call"] for record in unknown] == ["c-1", "c-3"]
    assert "is not sent again" in unknown[0]["sentence"]
    assert world.services.recover("w1") == 0
    with pytest.raises(Conflict, match="the approval is unknown"):
        claim(world, sent, "c-4")
    again = hold(world)
    assert (again.state, again.card["earlier"]["state"]) == ("pending", "unknown")


def test_recovery_of_one_worker_leaves_the_others(world: World) -> None:
    send(world, "c-1", worker="w1")
    send(world, "c-2", worker="w2")
    held = approved(world)
    world.services.holds.claim(held.id, basis=held.basis, worker="w2", call="c-3").result(5)
    assert world.services.recover("w1") == 1
    assert outcome_of(world, "c-1") == ["call.sent", "call.unknown"]
    assert outcome_of(world, "c-2") == ["call.sent"]
    assert state_of(world, held) == "executing"
    assert world.services.recover(None) == 1
    assert outcome_of(world, "c-2") == ["call.sent", "call.unknown"]
    assert state_of(world, held) == "approved"


def test_a_refusal_is_recorded_with_its_reason(world: World) -> None:
    refusal = Refusal(
        "policy_denied", "no rule", extra={"rule": "r", "approval": {"id": "a-1", "state": "x"}}
    )
    world.services.sending.denied("c-1", "bot", {"host": "h"}, refusal).result(5)
    world.services.sending.denied("c-2", "bot", None, Refusal("not_found", "nothing")).result(5)
    first, second = world.records("call.denied")
    assert (first["code"], first["sentence"]) == ("policy_denied", "no rule")
    assert (first["rules"], first["approval"], first["what"]) == (["r"], "a-1", {"host": "h"})
    assert (second["rules"], second["approval"], second["what"]) == ([], None, None)


@pytest.mark.parametrize("failing", [0, 1])
def test_sent_is_recorded_whole_or_not_at_all(
    world: World, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    held = claimed(world, "c-1")
    append, count = Transaction.append, 0

    def breaks(tx: Transaction, draft: Draft) -> None:
        nonlocal count
        count += 1
        if count > failing:
            raise OSError("the disk is full")
        append(tx, draft)

    records = len(world.records())
    monkeypatch.setattr(Transaction, "append", breaks)
    with pytest.raises(OSError, match="the disk is full"):
        send(world, "c-1", approval=held)
    monkeypatch.undo()
    assert len(world.records()) == records
    assert world.rows("SELECT * FROM inflight") == []
    assert world.rows("SELECT * FROM ledger_salts WHERE subject = 'c-1'") == []
    assert state_of(world, held) == "executing"


def test_a_result_that_is_not_recorded_leaves_the_call_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = claimed(world, "c-1")
    send(world, "c-1", approval=held)

    def breaks(tx: Transaction, draft: Draft) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Transaction, "append", breaks)
    with pytest.raises(OSError, match="the disk is full"):
        world.services.sending.completed("c-1", "bot", OUTCOME).result(5)
    monkeypatch.undo()
    assert state_of(world, held) == "executing"
    assert world.services.recover("w1") == 1
    assert state_of(world, held) == "unknown"


def test_a_dispatch_does_not_show_the_secret(world: World) -> None:
    assert CANARY not in repr(dispatch(world, "c-1"))
    assert CANARY not in repr(replace(dispatch(world, "c-1"), worker="w2"))
