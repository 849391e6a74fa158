"""The path of a call: every code of the contract, and nothing leaves that should not."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.answers import Answer
from broker.errors import Refusal
from broker.holds import Limits
from broker.passage import Passage
from broker.pipeline import MOST_REDECISIONS, Pipeline
from broker.services import Services, new_id
from rules.request import RawRequest
from tests.support.services import (
    ADDRESS,
    CA_PEM,
    CANARY,
    POLICY,
    Ids,
    Template,
    World,
    complete,
    internal,
    payout,
    problem_of,
    raw,
    refund,
    until,
)

TIGHTER = POLICY.replace("Money leaves", "Much money leaves")
REFUSING = POLICY.replace("match: {method: DELETE, host", "match: {method: [DELETE, POST], host")


def basic(name: str, token: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()


async def call(
    world: World, wire: RawRequest, pipeline: Pipeline | None = None, **limits: Any
) -> Answer | Passage:
    used = pipeline or world.pipeline(**limits)
    async with asyncio.timeout(10):
        return await used.handle(world.client(), wire, asyncio.Event())


class Held:
    """A call whose agent waits for people."""

    def __init__(
        self, world: World, wire: RawRequest | None = None, pipeline: Pipeline | None = None
    ) -> None:
        self.world = world
        self.gone = asyncio.Event()
        self.task = asyncio.create_task(
            (pipeline or world.pipeline()).handle(world.client(), wire or refund(), self.gone)
        )

    async def approval(self, after: str = "") -> str:
        """The pending approval, another one than `after`."""

        def found() -> list[str]:
            return [id for id in self.world.pending() if id != after]

        [id] = await until(found)
        return str(id)

    async def outcome(self) -> Answer | Passage:
        async with asyncio.timeout(10):
            return await self.task


def nothing_was_sent(world: World) -> bool:
    return world.records("call.sent", "secret.read") == []


def last_denied(world: World) -> dict[str, Any]:
    return world.records("call.denied")[-1]


async def refused(world: World, wire: RawRequest, code: str, **limits: Any) -> dict[str, Any]:
    """The problem document of a call that is refused, recorded so, and not sent."""
    outcome = await call(world, wire, **limits)
    document = problem_of(outcome)
    assert document["code"] == code, document
    assert nothing_was_sent(world)
    record = last_denied(world)
    assert (record["code"], record["call"]) == (code, document["request_id"])
    assert record["sentence"] == document["detail"]
    return document


# 1. arrive


def test_an_agent_is_known_by_its_name_and_token(world: World) -> None:
    client = world.pipeline().authenticate([basic("bot", world.token)])
    assert client == world.client()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "Set the proxy URL to http://AGENT:TOKEN@HOST:PORT"),
        ([""], "Set the proxy URL"),
        (["Bearer abc"], "Set the proxy URL"),
        (["Basic"], "Set the proxy URL"),
        (["Basic !!!"], "Set the proxy URL"),
        (["Basic é"], "Set the proxy URL"),
        (["Basic " + base64.b64encode(b"\xff:\xff").decode()], "Set the proxy URL"),
        ([basic("bot", "")], "Set the proxy URL"),
        ([basic("", "x")], "Set the proxy URL"),
        (["Basic " + base64.b64encode(b"bot").decode()], "Set the proxy URL"),
        ([basic("bot", "wrong")], "name or token is wrong, expired or revoked"),
        ([basic("nobody", "wrong")], "name or token is wrong, expired or revoked"),
        ([basic("bot", "x"), basic("bot", "x")], "more than one Proxy-Authorization"),
    ],
)
def test_nobody_else_gets_in(world: World, values: list[str], why: str) -> None:
    with pytest.raises(Refusal, match=why) as refusal:
        world.pipeline().authenticate(values)
    assert refusal.value.code == "agent_unauthenticated"
    assert world.pipeline().refusal_answer(refusal.value).status == 407


def test_nobody_gets_in_without_the_store(world: World) -> None:
    pipeline = world.pipeline()
    world.services.store.close()
    with pytest.raises(Refusal) as refusal:
        pipeline.authenticate([basic("bot", world.token)])
    assert refusal.value.code == "ledger_unavailable"


async def test_a_revocation_holds_on_an_open_connection(world: World) -> None:
    pipeline, client = world.pipeline(), world.client()
    world.services.agents.revoke("bot", "cli:test")
    document = problem_of(await pipeline.handle(client, raw(), asyncio.Event()))
    assert document["code"] == "agent_unauthenticated"
    assert "has expired or was revoked" in document["detail"]
    assert nothing_was_sent(world)
    assert last_denied(world)["agent"] == "bot"


# 2. canonicalise


async def test_what_has_no_canonical_form_is_refused(world: World) -> None:
    document = await refused(world, raw(path="/v1/../x"), "request_ambiguous")
    assert document["status"] == 400
    assert last_denied(world)["what"] is None


async def test_a_body_over_the_limit_is_refused(world: World) -> None:
    wire = raw("POST", "/v1/refunds", body=b"a=" + b"x" * 99)
    document = await refused(world, wire, "body_too_large", body=100)
    assert (document["status"], "101 bytes; 100 are allowed" in document["detail"]) == (413, True)
    assert last_denied(world)["what"]["path"] == "/v1/refunds"


# 3. decide


async def test_an_allowed_call_goes_out_with_its_credential(world: World) -> None:
    wire = raw(headers=(("Authorization", "Bearer mine"), ("Keybroker-Reason", "why"), ("X", "y")))
    passage = await call(world, wire)
    assert isinstance(passage, Passage)
    request = passage.request
    assert request.values("authorization") == (f"Bearer {CANARY}",)
    assert [name for name, _ in request.headers] == ["x", "accept-encoding", "authorization"]
    assert await complete(passage, f"you sent {CANARY}".encode()) == b"you sent [keybroker:masked]"
    kinds = [r["type"] for r in world.records() if r["call"] == passage.call]
    assert kinds == ["secret.read", "call.sent", "call.completed"]
    assert world.egress.asked == [("api.stripe.com", 443)]
    assert world.records("call.sent")[0]["address"] == ADDRESS


@pytest.mark.parametrize(
    ("wire", "rule", "why"),
    [
        (raw("DELETE"), "no-delete", "nothing is deleted here"),
        (raw("PUT"), None, "No rule lets agent"),
        (raw(host="other.example"), None, "No rule lets agent"),
        (raw(host="pass.example"), None, "passes this host on undecrypted only"),
    ],
)
async def test_what_no_rule_lets_through_is_denied(
    world: World, wire: RawRequest, rule: str | None, why: str
) -> None:
    document = await refused(world, wire, "policy_denied")
    assert (document["status"], document.get("rule")) == (403, rule)
    assert why in document["detail"]
    assert world.secrets.reads == []


async def test_a_policy_that_changes_while_the_secret_is_read_is_asked_again(world: World) -> None:
    """The call was allowed, but by the time it could go the policy denies everything."""
    world.secrets.before = lambda: void(world.publish("version: 1\nrules: []\n"))
    await refused(world, raw(), "policy_denied")
    assert len(world.secrets.reads) == 1
    assert world.records("call.sent") == []


async def test_a_policy_that_changes_elsewhere_meanwhile_holds_nothing_up(world: World) -> None:
    world.secrets.before = lambda: void(world.publish(POLICY + "# a remark\n"))
    passage = await call(world, raw())
    assert isinstance(passage, Passage)
    await complete(passage)


def void(_: object) -> None:
    """For a hook that returns nothing."""


async def test_without_a_policy_every_call_is_denied(world: World) -> None:
    services = world.open()
    pipeline = world.pipeline()
    object.__setattr__(pipeline._parts, "policies", services.policies)
    services.policies._current = None
    document = problem_of(await call(world, raw(), pipeline))
    assert (document["code"], document["detail"]) == (
        "policy_denied",
        "No policy is loaded, so every call is denied.",
    )


def upgrade(key: str = "dGhlIHNhbXBsZSBub25jZQ==") -> tuple[tuple[str, str], ...]:
    return (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    )


@pytest.mark.parametrize("host", ["api.stripe.com", "open.example"])
async def test_a_websocket_is_allowed_like_any_call(world: World, host: str) -> None:
    passage = await call(world, raw(host=host, headers=upgrade()))
    assert isinstance(passage, Passage)
    assert passage.request.upgrade == "websocket"
    key = passage.request.header("authorization")
    assert key == (f"Bearer {CANARY}" if host == "api.stripe.com" else None)
    await complete(passage)


async def test_a_websocket_is_held_and_joined_whatever_its_key(world: World) -> None:
    world.publish(
        POLICY.replace(
            "method: POST, host: api.stripe.com, path: /v1/payouts",
            "method: GET, host: api.stripe.com, path: /v1/live",
        )
        .replace("path: /v1/**}", "path: /v1/charges}")
        .replace("confirm: retype, reason: required", "confirm: none")
    )
    first = raw(path="/v1/live", headers=upgrade())
    problem_of(await call(world, first, hold_wait=0.05))
    [approval] = world.pending()
    shown = world.services.desk.card(approval, None)
    assert "This opens a WebSocket" in shown["notes"][0]
    executing = await call(world, internal("POST", f"/v1/approvals/{approval}/execute"))
    assert problem_of(executing)["code"] == "approval_pending"
    world.vote(approval, "bob")
    world.vote(approval, "carol")
    executing = await call(world, internal("POST", f"/v1/approvals/{approval}/execute"))
    assert problem_of(executing)["code"] == "request_ambiguous"
    again = raw(path="/v1/live", headers=upgrade("AAAAAAAAAAAAAAAAAAAAAA=="))
    passage = await call(world, again)
    assert isinstance(passage, Passage)
    # What was stored is what is sent.
    assert passage.request.header("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
    await complete(passage)


# Egress and secrets


@pytest.mark.parametrize("code", ["egress_refused", "upstream_unreachable"])
@pytest.mark.parametrize("wire", [raw(), refund()], ids=["allowed", "held"])
async def test_a_place_that_may_not_be_dialled_is_refused_before_people_are_asked(
    world: World, code: str, wire: RawRequest
) -> None:
    world.egress.error = Refusal(code, "10.0.0.1 is not allowed")
    await refused(world, wire, code)
    assert world.pending() == []
    assert world.secrets.reads == []


async def test_a_secret_that_cannot_be_read_is_said_without_its_place(world: World) -> None:
    world.secrets.fail()
    document = await refused(world, raw(), "secret_unavailable")
    assert document["status"] == 502
    assert "The credential stripe could not be had; nothing was sent." in document["detail"]
    assert "kv/" not in document["detail"]


@pytest.mark.parametrize("value", ["", "two\nlines", "ümlaut"])
async def test_a_secret_that_cannot_stand_in_a_header_is_not_sent(world: World, value: str) -> None:
    world.secrets.value = value
    document = problem_of(await call(world, raw()))
    assert document["code"] == "secret_unavailable"
    assert nothing_was_sent(world)


async def test_slow_secrets_and_names_are_given_up(world: World) -> None:
    world.secrets.delay = 30
    await refused(world, raw(), "secret_unavailable", stage=0.5)

    async def slow(host: str, port: int) -> Any:
        await asyncio.sleep(30)

    world.egress.check = slow  # type: ignore[method-assign]
    document = await refused(world, raw(), "upstream_unreachable", stage=0.5)
    assert "was not found in time" in document["detail"]


async def test_an_agent_that_is_revoked_while_the_secret_is_read_sends_nothing(
    world: World,
) -> None:
    world.secrets.before = lambda: world.services.agents.revoke("bot", "cli:test")
    document = await refused(world, raw(), "agent_unauthenticated")
    assert document["detail"] == "The agent was revoked; nothing was sent."


# 4. hold


async def test_an_approved_call_is_sent_once_as_it_was_stored(world: World) -> None:
    held = Held(world, refund(headers=(("Keybroker-Reason", "asked for"),)))
    approval = await held.approval()
    assert nothing_was_sent(world)
    world.vote(approval)
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    assert world.notifier.told == [(approval, "Refund 5", "bot", "medium")]
    assert passage.request.body == b"amount=5"
    assert passage.request.header("authorization") == f"Bearer {CANARY}"
    [sent] = world.records("call.sent")
    assert (sent["approval"], sent["votes"]) == (approval, ["bob"])
    await complete(passage)
    assert world.services.holds.get(approval).state == "used"


async def test_a_denied_call_is_told_the_reason_and_remembered(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval, decision="deny", reason="not this customer")
    document = problem_of(await held.outcome())
    assert (document["code"], document["status"]) == ("approval_denied", 403)
    assert "denied this call: not this customer." in document["detail"]
    assert document["approval"]["state"] == "denied"
    again = problem_of(await call(world, refund()))
    assert again["approval"]["id"] == approval
    assert [r["approval"] for r in world.records("call.denied")] == [approval] * 2
    assert nothing_was_sent(world)
    assert len(world.notifier.told) == 1


async def test_a_call_that_nobody_decides_on_expires_while_it_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.waiting.RECHECK", 0.05)
    held = Held(world)
    await held.approval()
    world.clock.forward(900)
    document = problem_of(await held.outcome())
    assert (document["code"], document["status"]) == ("approval_expired", 403)
    assert "decide_within is over" in document["detail"]
    assert nothing_was_sent(world)


async def test_an_approval_that_was_not_used_in_time_is_over(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval)
    world.clock.forward(300)
    document = problem_of(await call(world, internal("POST", f"/v1/approvals/{approval}/execute")))
    assert document["code"] == "approval_expired"
    assert "execute_within is over" in document["detail"]
    assert world.services.holds.get(approval).state == "expired"
    assert nothing_was_sent(world)


@pytest.mark.parametrize(
    ("settings", "headers", "status", "located"),
    [
        ({"hold_wait": 0}, (), 503, False),
        ({"hold_wait": 0, "pending_status": 429}, (), 429, False),
        ({"hold_wait": 0, "pending_status": 202}, (), 202, True),
        ({}, (("Prefer", "respond-async"),), 202, True),
    ],
)
async def test_a_call_that_still_waits_is_pending_and_no_denial(
    world: World,
    settings: dict[str, Any],
    headers: tuple[tuple[str, str], ...],
    status: int,
    located: bool,
) -> None:
    _, token = world.services.agents.add("second", by="cli:test", **settings)
    async with asyncio.timeout(2):
        outcome = await world.pipeline(hold_wait=60).handle(
            world.client("second", token), refund(headers=headers), asyncio.Event()
        )
    document = problem_of(outcome)
    assert isinstance(outcome, Answer)
    assert (outcome.status, document["code"]) == (status, "approval_pending")
    answered = dict(outcome.headers)
    assert answered["retry-after"] == "5"
    [approval] = world.pending()
    where = f"http://keybroker.internal/v1/approvals/{approval}"
    assert answered.get("location") == (where if located else None)
    assert document["approval"]["id"] == approval
    assert document["approval"]["state"] == "pending"
    assert world.records("call.denied") == []


async def test_a_repeated_call_joins_and_asks_nobody_again(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    held = Held(world)
    await until(lambda: world.records("approval.joined"))
    assert world.pending() == [approval]
    world.vote(approval)
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    assert len(world.notifier.told) == 1
    await complete(passage)


async def test_of_identical_calls_one_goes_and_the_others_are_told(world: World) -> None:
    one, other = world.pipeline(), world.pipeline(world.open(), worker="w2")
    held = [Held(world, pipeline=pipeline) for pipeline in (one, other) * 3]
    approval = await held[0].approval()
    await until(lambda: len(world.records("approval.joined")) == 5)
    world.vote(approval)
    outcomes = [await call.outcome() for call in held]
    [passage] = [outcome for outcome in outcomes if isinstance(outcome, Passage)]
    for answer in (outcome for outcome in outcomes if isinstance(outcome, Answer)):
        document = problem_of(answer)
        assert (document["code"], document["status"]) == ("approval_used", 409)
        assert "Check its effect before you make the call again." in document["detail"]
    assert len(world.records("call.sent")) == 1
    await complete(passage)


async def test_a_notifier_that_fails_changes_nothing(world: World) -> None:
    world.notifier.error = OSError("no terminal")
    held = Held(world)
    world.vote(await held.approval())
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    await complete(passage)


async def test_an_agent_may_not_hold_too_many_calls(tmp_path: Path, template: Template) -> None:
    world = World(tmp_path / "keybroker.db", template, limits=Limits(held_calls=1))
    await call(world, refund(1), hold_wait=0)
    document = await refused(world, refund(2), "too_many_pending")
    assert (document["status"], "You have 1 calls waiting" in document["detail"]) == (429, True)
    world.close()
    world.check()


async def test_an_agent_may_not_wait_with_too_many_calls(world: World) -> None:
    pipeline = world.pipeline(waiting=1)
    first = Held(world, pipeline=pipeline)
    await first.approval()
    document = problem_of(await call(world, refund(), pipeline))
    assert (document["code"], document["status"]) == ("too_many_pending", 429)
    first.gone.set()
    assert problem_of(await first.outcome())["code"] == "approval_pending"
    assert pipeline.waiting_room.waiting == {}


async def test_two_people_in_two_processes_approve(world: World) -> None:
    held = Held(world, payout())
    approval = await held.approval()
    world.vote(approval, "bob", reason="ok", confirm="900")
    world.vote(approval, "carol", reason="ok", confirm="900", services=world.open())
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    assert world.records("call.sent")[0]["votes"] == ["bob", "carol"]
    await complete(passage)


# The agent leaves


async def test_an_agent_that_hangs_up_sends_nothing_and_keeps_its_approval(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    held.gone.set()
    assert problem_of(await held.outcome())["code"] == "approval_pending"
    world.vote(approval)
    assert world.services.holds.get(approval).state == "approved"
    assert nothing_was_sent(world)
    passage = await call(world, refund())
    assert isinstance(passage, Passage)
    assert world.records("call.sent")[0]["approval"] == approval
    await complete(passage)


async def test_a_vote_for_an_agent_that_has_just_left_sends_nothing(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    held.gone.set()
    world.vote(approval)
    assert problem_of(await held.outcome())["code"] == "approval_pending"
    assert nothing_was_sent(world)


async def test_an_agent_that_is_revoked_while_it_waits_sends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.waiting.RECHECK", 0.05)
    held = Held(world)
    approval = await held.approval()
    world.open().agents.revoke("bot", "cli:test")
    assert problem_of(await held.outcome())["code"] == "agent_unauthenticated"
    world.services.holds.expire_due()
    assert world.services.holds.get(approval).state == "superseded"
    assert nothing_was_sent(world)


async def test_a_revocation_right_after_the_vote_wins(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    world.services.agents.revoke("bot", "cli:test")
    assert problem_of(await held.outcome())["code"] == "agent_unauthenticated"
    assert nothing_was_sent(world)


# The policy changes


async def test_a_change_between_the_vote_and_the_sending_holds_anew(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    world.publish(TIGHTER)
    second = await held.approval(after=approval)
    assert world.services.holds.get(approval).state == "superseded"
    assert nothing_was_sent(world)
    world.vote(second)
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    assert world.records("call.sent")[0]["approval"] == second
    await complete(passage)


async def test_a_rule_that_now_denies_wins_over_the_vote(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    world.publish(REFUSING)
    document = problem_of(await held.outcome())
    assert (document["code"], document["rule"]) == ("policy_denied", "no-delete")
    assert world.services.holds.get(approval).state == "superseded"
    assert nothing_was_sent(world)


async def test_a_rule_that_now_allows_lets_the_held_call_through(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    world.publish(
        POLICY.replace("effect: hold\n    risk: medium\n    summary", "effect: allow\n    summary")
    )
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    assert world.records("call.sent")[0]["approval"] is None
    await complete(passage)


async def test_a_policy_that_keeps_changing_denies(world: World) -> None:
    held = Held(world)
    approval = ""
    for turn in range(MOST_REDECISIONS):
        approval = await held.approval(after=approval)
        world.vote(approval)
        world.publish(POLICY.replace("Money leaves", f"Money {turn} leaves"))
    document = problem_of(await held.outcome())
    assert (document["code"], "kept changing" in document["detail"]) == ("policy_denied", True)
    assert nothing_was_sent(world)


# The world fails after the vote


async def test_an_approval_is_not_used_up_by_a_secret_that_cannot_be_read(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.secrets.fail()
    world.vote(approval)
    assert problem_of(await held.outcome())["code"] == "secret_unavailable"
    assert world.services.holds.get(approval).state == "approved"
    world.secrets.error = None
    passage = await call(world, refund())
    assert isinstance(passage, Passage)
    await complete(passage)
    assert world.services.holds.get(approval).state == "used"


async def test_an_approval_is_not_used_up_by_an_upstream_that_was_not_reached(
    world: World,
) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    passage = await held.outcome()
    assert isinstance(passage, Passage)
    await passage.failed("connection refused", sent=False)
    again = await call(world, refund())
    assert isinstance(again, Passage)
    await again.failed("reset", sent=True)
    assert world.services.holds.get(approval).state == "unknown"
    document = problem_of(await call(world, refund(), hold_wait=0))
    assert document["approval"]["id"] != approval
    [new] = world.pending()
    [note] = world.services.desk.card(new, None)["notes"]
    assert "it may have taken effect" in note


async def test_what_was_tampered_with_in_the_store_is_not_sent(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.vote(approval)
    world.services.store.write(
        lambda tx: tx.db.execute("UPDATE approvals SET digest = ?", (b"x" * 32,))
    )
    assert problem_of(await held.outcome())["code"] == "ledger_unavailable"
    assert nothing_was_sent(world)
    assert world.services.holds.get(approval).state == "approved"


# The ledger cannot be written


async def test_without_the_ledger_nothing_is_sent(world: World) -> None:
    other = world.open()
    pipeline = world.pipeline(other)
    other.store._journal.close()
    for wire in (raw(), refund(), raw("DELETE")):
        outcome = await call(world, wire, pipeline)
        document = problem_of(outcome)
        assert isinstance(outcome, Answer)
        assert (document["code"], outcome.status) == ("ledger_unavailable", 503)
        assert "so nothing was sent" in document["detail"]
        assert dict(outcome.headers)["retry-after"] == "5"
    assert nothing_was_sent(world)
    assert world.pending() == []


def settled(world: World, kind: str) -> Callable[[], list[dict[str, Any]]]:
    return lambda: world.records(kind)


async def test_a_record_that_comes_too_late_is_withdrawn(world: World) -> None:
    pipeline = world.pipeline(stage=0.15)
    with world.locked():
        document = problem_of(await call(world, raw(), pipeline))
        assert document["code"] == "ledger_unavailable"
        assert nothing_was_sent(world)
    [failed] = await until(settled(world, "call.failed"))
    assert (failed["sent"], failed["call"]) == (False, document["request_id"])
    assert world.rows("SELECT * FROM inflight") == []


async def test_a_late_record_gives_the_approval_back_once(world: World) -> None:
    """Given up between the claim and "sent": whoever comes next gets the approval, alone."""
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval)
    lock = world.locked()
    world.secrets.before = lock.__enter__
    pipeline = world.pipeline(stage=0.15)
    first = problem_of(await call(world, refund(), pipeline))
    assert first["code"] == "ledger_unavailable"
    world.secrets.before = lambda: None
    lock.__exit__(None, None, None)
    await until(lambda: world.services.holds.get(approval).state == "approved")
    await until(settled(world, "call.failed"))
    passage = await call(world, refund())
    assert isinstance(passage, Passage)
    document = problem_of(await call(world, refund()))
    assert document["code"] == "approval_used"
    await complete(passage)
    sent = [r["call"] for r in world.records("call.sent")]
    assert sent == [first["request_id"], passage.call]


async def test_a_claim_that_comes_too_late_is_given_back(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval)
    pipeline = world.pipeline(stage=0.15)
    execute = internal("POST", f"/v1/approvals/{approval}/execute")
    with world.locked():
        assert problem_of(await call(world, execute, pipeline))["code"] == "ledger_unavailable"
    await until(lambda: world.services.holds.get(approval).executor_call is None)
    passage = await call(world, refund())
    assert isinstance(passage, Passage)
    await complete(passage)


async def test_a_claim_that_cannot_be_given_back_at_once_is_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.waiting.RECHECK", 0.05)
    held = Held(world)
    approval = await held.approval()
    other = world.open()
    journal = world.services.store._journal

    def no_ledger() -> None:
        world.services.store._journal = other.store._journal
        other.store._journal.close()

    world.secrets.fail()
    world.secrets.before = no_ledger
    world.vote(approval)
    assert problem_of(await held.outcome())["code"] == "ledger_unavailable"
    assert world.services.holds.get(approval).state == "executing"
    world.services.store._journal = journal
    await until(lambda: world.services.holds.get(approval).state == "approved")


async def test_a_cancelled_call_sends_nothing_and_gives_everything_back(world: World) -> None:
    held = Held(world)
    approval = await held.approval()
    world.secrets.delay = 30
    world.vote(approval)
    await until(lambda: world.secrets.reads)
    held.task.cancel()
    await asyncio.gather(held.task, return_exceptions=True)
    assert held.task.cancelled()
    await until(lambda: world.services.holds.get(approval).state == "approved")
    assert nothing_was_sent(world)


# keybroker.internal


async def test_an_agent_asks_about_itself(world: World) -> None:
    whoami = await call(world, internal("GET", "/v1/whoami"))
    assert isinstance(whoami, Answer)
    assert json.loads(whoami.body)["agent"] == "bot"
    certificate = await call(world, internal("GET", "/ca.pem"))
    assert isinstance(certificate, Answer)
    assert certificate.body == CA_PEM
    assert problem_of(await call(world, internal("GET", "/x")))["code"] == "not_found"
    assert world.egress.asked == []


async def test_an_approved_call_can_be_executed_by_its_id_once(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    execute = internal("POST", f"/v1/approvals/{approval}/execute")
    assert problem_of(await call(world, execute))["code"] == "approval_pending"
    world.vote(approval)
    passage = await call(world, execute)
    assert isinstance(passage, Passage)
    assert (passage.request.url, passage.request.body) == (
        "https://api.stripe.com/v1/refunds",
        b"amount=5",
    )
    assert problem_of(await call(world, execute))["code"] == "approval_used"
    await complete(passage)
    assert problem_of(await call(world, execute))["code"] == "approval_used"
    assert len(world.records("call.sent")) == 1


async def test_a_denied_call_cannot_be_executed(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval, decision="deny")
    execute = internal("POST", f"/v1/approvals/{approval}/execute")
    assert problem_of(await call(world, execute))["code"] == "approval_denied"
    assert nothing_was_sent(world)


async def test_an_execution_under_another_policy_is_refused(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval)
    world.publish(TIGHTER)
    document = problem_of(await call(world, internal("POST", f"/v1/approvals/{approval}/execute")))
    assert document["code"] == "approval_expired"
    assert "make the call again" in document["detail"]
    assert document["approval"]["state"] == "superseded"
    assert nothing_was_sent(world)


async def test_another_agents_approval_is_not_found(world: World) -> None:
    await call(world, refund(), hold_wait=0)
    [approval] = world.pending()
    world.vote(approval)
    _, token = world.services.agents.add("second", by="cli:test")
    client = world.client("second", token)
    for method, path in (("GET", ""), ("POST", "/execute")):
        outcome = await world.pipeline().handle(
            client, internal(method, f"/v1/approvals/{approval}{path}"), asyncio.Event()
        )
        assert problem_of(outcome)["code"] == "not_found"
    assert nothing_was_sent(world)


# Tunnels


async def test_a_tunnel_opens_where_a_rule_says_so(world: World) -> None:
    tunnel = await world.pipeline().tunnel(world.client(), "pass.example", 443, "pass.example")
    assert tunnel is not None
    [opened] = world.records("tunnel.opened")
    assert (opened["rules"], opened["address"]) == (["pass"], ADDRESS)
    await tunnel.closed(1, 2)
    assert world.records("tunnel.closed")[0]["call"] == opened["call"]


def no_egress(world: World, services: Services) -> None:
    world.egress.error = Refusal("egress_refused", "no")


def no_agent(world: World, services: Services) -> None:
    services.agents.revoke("bot", "cli:test")


def no_ledger(world: World, services: Services) -> None:
    services.store._journal.close()


@pytest.mark.parametrize(
    ("host", "sni", "trouble"),
    [
        ("api.stripe.com", "api.stripe.com", None),
        ("open.example", "open.example", None),
        ("pass.example", "other.example", None),
        ("pass.example", "pass.example", no_egress),
        ("pass.example", "pass.example", no_agent),
        ("pass.example", "pass.example", no_ledger),
    ],
)
async def test_nothing_else_is_tunnelled(
    world: World, host: str, sni: str, trouble: Callable[[World, Services], None] | None
) -> None:
    services = world.open()
    pipeline, client = world.pipeline(services), world.client()
    if trouble is not None:
        trouble(world, services)
    assert await pipeline.tunnel(client, host, 443, sni) is None
    assert world.records("tunnel.opened") == []


# Law 2


async def test_the_secret_is_nowhere_but_in_the_forwarded_request(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What is on disk is searched when the test ends."""
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []
    held = Held(world, payout())
    approval = await held.approval()
    shown += [world.vote(approval, name, reason="ok", confirm="900") for name in ("bob", "carol")]
    passages = [await call(world, raw()), await held.outcome()]
    for passage in passages:
        assert isinstance(passage, Passage)
        assert CANARY in str(passage.request.headers)
        shown += [passage, passage.request, passage.__reduce_ex__(2)[0]]
        shown.append(passage.head(200, f"OK {CANARY}", [("x-echo", CANARY)]))
        shown += [passage.feed(CANARY.encode()), passage.finish()]
        await passage.completed()
        shown.append(await passage.failed(f"broke at {CANARY}", sent=True))
    world.secrets.error = RuntimeError("vault said nothing")
    shown.append(await call(world, raw()))
    shown += [world.records(), world.services.desk.list(), caplog.text]
    shown += [await call(world, internal("GET", f"/v1/approvals/{approval}"))]
    shown += [world.services, world.parts(), world.services.keys]
    for value in shown:
        text = f"{value!r} {value}"
        for spelling in (CANARY, base64.b64encode(CANARY.encode()).decode(), CANARY.encode().hex()):
            assert spelling not in text, type(value)


class RealIds(Ids):
    """As the program makes them."""

    def __call__(self, prefix: str) -> str:
        return new_id(prefix)


async def test_one_run_is_stopped_and_the_agent_goes_on(world: World) -> None:
    """By the id that the records show."""
    world.ids = RealIds()
    services = world.open()
    runs = [services.agents.run_token("bot", ttl=60, by="cli:test") for _ in range(2)]
    stopped, other = (record["run"] for record in world.records("agent.token"))
    match = f"{{source: {{run: {stopped}}}}}"
    world.publish(f"{POLICY}  - {{id: runaway, agents: [bot], match: {match}, effect: deny}}\n")
    pipeline = world.pipeline(services)
    wire, gone = raw("GET", "/v1/charges"), asyncio.Event()
    said = await pipeline.handle(world.client(token=runs[0]), wire, gone)
    assert 'Rule "runaway" denies' in problem_of(said)["detail"]
    assert nothing_was_sent(world)
    assert last_denied(world)["what"]["run"] == stopped
    for token in (runs[1], world.token):
        assert isinstance(await pipeline.handle(world.client(token=token), wire, gone), Passage)
    assert [sent["what"].get("run") for sent in world.records("call.sent")] == [other, None]
