"""Limits on the path of a call: what is counted, what is refused or held, what is given back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from broker.answers import Answer
from broker.errors import Refusal
from broker.passage import Passage
from broker.pipeline import Pipeline
from rules.request import RawRequest
from tests.support.services import (
    POLICY,
    World,
    complete,
    internal,
    problem_of,
    raw,
    until,
)

LIMITED = (
    POLICY
    + """\
  - id: twice
    agents: [bot, second]
    match: {method: GET, host: api.stripe.com, path: /twice}
    effect: allow
    use: [stripe]
    limit: {calls: 2, per: 1m}
  - id: budget
    agents: [bot]
    match: {method: POST, host: free.example, path: /budget}
    effect: allow
    limit: [{sum: form:amount, max: 100, per: 1h}, {calls: 50, per: 1d}]
  - id: ask
    agents: [bot]
    match: {method: POST, host: free.example, path: /ask}
    effect: allow
    risk: high
    summary: "Pay {form:amount}"
    confirm: form:amount
    limit: {sum: form:amount, max: 100, per: 1h, over: hold}
  - id: held
    agents: [bot]
    match: {method: POST, host: free.example, path: /held}
    effect: hold
    limit: {calls: 2, per: 1m}
  - id: held-sum
    agents: [bot]
    match: {method: POST, host: free.example, path: /held-sum}
    effect: hold
    limit: {sum: form:amount, max: 100, per: 1h, over: hold}
  - id: upload
    agents: [bot]
    match: {method: PUT, host: free.example, path: "/upload/**"}
    effect: allow
    body: stream
    limit: [{calls: 2, per: 1m}, {sum: query:cost, max: 10, per: 1h, over: hold}]
"""
)


@pytest.fixture
def pipeline(world: World) -> Pipeline:
    world.publish(LIMITED)
    return world.pipeline(hold_wait=0)


def twice() -> RawRequest:
    return raw("GET", "/twice")


def pay(amount: object, path: str = "/budget") -> RawRequest:
    return raw("POST", path, host="free.example", body=f"amount={amount}".encode())


async def call(world: World, pipeline: Pipeline, wire: RawRequest) -> Answer | Passage:
    async with asyncio.timeout(10):
        return await pipeline.handle(world.client(), wire, asyncio.Event())


async def passes(world: World, pipeline: Pipeline, wire: RawRequest) -> Passage:
    passage = await call(world, pipeline, wire)
    assert isinstance(passage, Passage), passage
    return passage


async def refused(world: World, pipeline: Pipeline, wire: RawRequest) -> dict[str, Any]:
    document = problem_of(await call(world, pipeline, wire))
    assert (document["code"], document["status"]) == ("policy_denied", 403), document
    return document


def used(world: World, rule: str) -> str:
    """What stands in the counters of the rule, the first of them."""
    world.settle()
    rows = world.rows("SELECT used FROM limit_counters WHERE rule = ? ORDER BY id", rule)
    return str(rows[0][0]) if rows else "0"


async def test_so_many_calls_pass_and_no_more(world: World, pipeline: Pipeline) -> None:
    for _ in range(2):
        await complete(await passes(world, pipeline, twice()))
    outcome = await call(world, pipeline, twice())
    document = problem_of(outcome)
    assert isinstance(outcome, Answer)
    assert document["code"] == "policy_denied" and outcome.status == 403
    assert document["rule"] == "twice"
    frees_at = document["limit"].pop("frees_at")
    assert document["limit"] == {"rule": "twice", "max": 2, "per": 60, "used": 2}
    assert re.fullmatch(r"2026-11-22T09:01:0\dZ", frees_at)
    assert dict(outcome.headers)["retry-after"] == "60"
    assert document["detail"] == (
        'Rule "twice" takes at most 2 calls in 1 minute, and 2 are used.'
        f" There is room from {frees_at} on, in 1 minute."
    )
    record = world.records("call.denied")[-1]
    assert (record["code"], record["rules"]) == ("policy_denied", ["twice"])
    assert record["limit"] == {**document["limit"], "frees_at": frees_at}
    assert len(world.secrets.reads) == 2, "nothing is fetched for a call that is refused"
    world.clock.forward(59)
    await refused(world, pipeline, twice())
    world.clock.forward(1)
    await complete(await passes(world, pipeline, twice()))


async def test_a_sum_is_counted_and_the_other_limit_with_it(
    world: World, pipeline: Pipeline
) -> None:
    for amount in ("60", "39.99"):
        await complete(await passes(world, pipeline, pay(amount)))
    document = await refused(world, pipeline, pay("0.02"))
    assert document["limit"]["sum"] == "form:amount"
    assert (document["limit"]["max"], document["limit"]["used"]) == (100, "99.99")
    assert "asks for 0.02, which is 0.01 too much" in document["detail"]
    await complete(await passes(world, pipeline, pay("0.01")))
    assert world.rows("SELECT used FROM limit_counters WHERE rule = 'budget' AND place = ''") == [
        ("3",)
    ]


async def test_what_is_over_the_limit_by_itself_is_not_told_to_wait(
    world: World, pipeline: Pipeline
) -> None:
    outcome = await call(world, pipeline, pay("101"))
    document = problem_of(outcome)
    assert isinstance(outcome, Answer) and "retry-after" not in dict(outcome.headers)
    assert document["limit"]["frees_at"] is None
    assert "waiting does not help" in document["detail"]


@pytest.mark.parametrize("body", ["", "amount=", "amount=-5", "amount=1e1"])
async def test_an_amount_in_doubt_does_not_match_an_allow(
    world: World, pipeline: Pipeline, body: str
) -> None:
    wire = raw("POST", "/budget", host="free.example", body=body.encode())
    document = await refused(world, pipeline, wire)
    assert "limit" not in document and document["rule"] == "budget"
    assert "must stand there once, as a plain decimal" in document["detail"]
    assert world.rows("SELECT * FROM limit_uses") == []


@pytest.mark.parametrize("body", ["amount=5&amount=5", "amount=5&AMOUNT=5"])
async def test_an_amount_given_twice_is_ambiguous(
    world: World, pipeline: Pipeline, body: str
) -> None:
    wire = raw("POST", "/budget", host="free.example", body=body.encode())
    document = problem_of(await call(world, pipeline, wire))
    assert (document["code"], document["status"]) == ("request_ambiguous", 400)
    assert "stands there more than once, or spelled otherwise" in document["detail"]
    assert world.rows("SELECT * FROM limit_uses") == []


async def test_workers_count_together(world: World, pipeline: Pipeline) -> None:
    other = world.pipeline(world.open(), worker="w2")
    outcomes = await asyncio.gather(
        *[call(world, each, twice()) for each in (pipeline, other) for _ in range(10)]
    )
    assert sum(isinstance(each, Passage) for each in outcomes) == 2


async def test_calls_without_limits_count_nothing(world: World, pipeline: Pipeline) -> None:
    await complete(await passes(world, pipeline, raw()))
    assert world.rows("SELECT * FROM limit_uses, limit_counters") == []


# Given back


def no_secret(world: World) -> None:
    world.secrets.fail()


def no_address(world: World) -> None:
    world.egress.error = Refusal("egress_refused", "no")


def broken(world: World) -> None:
    world.egress.error = ValueError("odd")


@pytest.mark.parametrize("why", [no_secret, no_address, broken])
async def test_what_is_not_sent_is_given_back(
    world: World, pipeline: Pipeline, why: Callable[[World], None]
) -> None:
    why(world)
    for _ in range(5):
        assert problem_of(await call(world, pipeline, twice()))["code"] != "policy_denied"
    world.secrets.error = world.egress.error = None
    assert used(world, "twice") == "0"
    await passes(world, pipeline, twice())


async def test_what_certainly_did_not_arrive_is_given_back(
    world: World, pipeline: Pipeline
) -> None:
    for _ in range(5):
        passage = await passes(world, pipeline, twice())
        await passage.failed("no connection", sent=False)
    assert used(world, "twice") == "0"


async def test_what_may_have_arrived_is_not(world: World, pipeline: Pipeline) -> None:
    for _ in range(2):
        await (await passes(world, pipeline, twice())).failed("it broke off", sent=True)
    await refused(world, pipeline, twice())


async def test_a_call_under_way_counts_until_it_is_known_what_became_of_it(
    world: World, pipeline: Pipeline
) -> None:
    passages = [await passes(world, pipeline, twice()) for _ in range(2)]
    await refused(world, pipeline, twice())
    await passages[0].failed("no connection", sent=False)
    await passes(world, pipeline, twice())


async def test_an_agent_that_hangs_up_gives_back(world: World, pipeline: Pipeline) -> None:
    world.secrets.delay = 5
    task = asyncio.create_task(call(world, pipeline, twice()))
    await until(lambda: world.secrets.reads)
    assert used(world, "twice") == "1"
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await until(lambda: used(world, "twice") == "0")


async def test_an_agent_that_is_revoked_meanwhile_gives_back(
    world: World, pipeline: Pipeline
) -> None:
    world.secrets.before = lambda: world.services.agents.revoke("bot", "cli:test")
    document = problem_of(await call(world, pipeline, twice()))
    assert document["code"] == "agent_unauthenticated"
    assert used(world, "twice") == "0"


async def test_a_store_that_is_locked_lets_nothing_through_and_keeps_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.limiting.RETRY", 0.05)
    world.publish(LIMITED)
    pipeline = world.pipeline(stage=0.2)
    with world.locked():
        document = problem_of(await call(world, pipeline, twice()))
        assert document["code"] == "ledger_unavailable"
    await until(lambda: used(world, "twice") == "0")
    await passes(world, pipeline, twice())


async def test_a_store_that_fails_is_asked_again_to_take_back(
    world: World, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.limiting.RETRY", 0.05)
    failing = world.open()
    pipeline = world.pipeline(failing)
    world.secrets.fail()

    class Flaky:
        def __init__(self) -> None:
            self.failures = 3

        def __call__(self, call: str) -> Any:
            if self.failures:
                self.failures -= 1
                from concurrent.futures import Future

                from audit.errors import LedgerUnavailable

                future: Future[None] = Future()
                future.set_exception(LedgerUnavailable("no room"))
                return future
            return give_back(call)

    give_back = failing.usage.give_back
    monkeypatch.setattr(failing.usage, "give_back", Flaky())
    await call(world, pipeline, twice())
    assert used(world, "twice") == "1"
    await until(lambda: used(world, "twice") == "0")


async def test_a_policy_that_changes_meanwhile_moves_what_is_counted(
    world: World, pipeline: Pipeline
) -> None:
    changed = LIMITED.replace("id: twice", "id: renamed")

    def change() -> None:
        world.secrets.before = lambda: None
        world.publish(changed)

    world.secrets.before = change
    await passes(world, pipeline, twice())
    assert (used(world, "twice"), used(world, "renamed")) == ("0", "1")


async def test_a_changed_limit_is_decided_anew(world: World, pipeline: Pipeline) -> None:
    await passes(world, pipeline, twice())

    def change() -> None:
        world.publish(LIMITED.replace("limit: {calls: 2,", "limit: {calls: 1,"))

    world.secrets.before = change
    await refused(world, pipeline, twice())
    assert used(world, "twice") == "1"


async def test_a_restart_keeps_what_is_used(world: World, pipeline: Pipeline) -> None:
    for _ in range(2):
        await complete(await passes(world, pipeline, twice()))
    await refused(world, world.pipeline(world.open(), worker="w2"), twice())


async def test_after_a_crash_what_was_sent_counts(world: World, pipeline: Pipeline) -> None:
    """Of a worker's calls one was on its way, and one was just being decided."""
    await passes(world, pipeline, twice())
    world.secrets.delay = 5
    task = asyncio.create_task(call(world, pipeline, twice()))
    await until(lambda: used(world, "twice") == "2")
    world.services.recover("w1")
    assert used(world, "twice") == "1"
    task.cancel()


# Held calls


async def hold(world: World, pipeline: Pipeline, wire: RawRequest) -> str:
    document = problem_of(await call(world, pipeline, wire))
    assert document["code"] == "approval_pending", document
    return str(document["approval"]["id"])


def card(world: World, approval: str) -> dict[str, Any]:
    return world.services.desk.card(approval, None)


async def test_held_calls_count_when_they_are_held(world: World, pipeline: Pipeline) -> None:
    first = await hold(world, pipeline, pay(1, "/held"))
    await hold(world, pipeline, pay(2, "/held"))
    document = await refused(world, pipeline, pay(3, "/held"))
    assert document["limit"] == {
        "rule": "held", "max": 2, "per": 60, "used": 2, "frees_at": None,
    }  # fmt: skip
    assert "once calls that wait for people have been decided" in document["detail"]
    # However long people take: what they let out in one minute is two calls.
    world.clock.forward(600)
    await refused(world, pipeline, pay(3, "/held"))
    world.vote(first)
    await complete(await passes(world, pipeline, pay(1, "/held")))
    document = await refused(world, pipeline, pay(3, "/held"))
    assert document["limit"]["frees_at"] is not None
    world.clock.forward(60)
    await hold(world, pipeline, pay(3, "/held"))


async def test_joining_counts_once(world: World, pipeline: Pipeline) -> None:
    approvals = {await hold(world, pipeline, pay(1, "/held")) for _ in range(5)}
    assert len(approvals) == 1 and used(world, "held") == "1"
    world.vote(approvals.pop())
    await complete(await passes(world, pipeline, pay(1, "/held")))
    assert used(world, "held") == "1"


async def test_an_executed_approval_counts_once(world: World, pipeline: Pipeline) -> None:
    id = await hold(world, pipeline, pay(1, "/held"))
    world.vote(id)
    for _ in range(3):
        passage = await passes(world, pipeline, internal("POST", f"/v1/approvals/{id}/execute"))
        await passage.failed("no connection", sent=False)
        assert used(world, "held") == "1"
    passage = await passes(world, pipeline, internal("POST", f"/v1/approvals/{id}/execute"))
    await complete(passage)
    assert used(world, "held") == "1"
    world.clock.forward(61)
    world.services.usage.prune()
    assert world.rows("SELECT * FROM limit_uses") == []


def deny(world: World, id: str) -> None:
    world.vote(id, decision="deny")


def let_expire(world: World, _: str) -> None:
    world.clock.forward(901)
    world.services.holds.expire_due()


def change_policy(world: World, id: str) -> None:
    world.publish(
        LIMITED.replace(
            "limit: {calls: 2, per: 1m}\n  - id: held-sum",
            "limit: {calls: 3, per: 1m}\n  - id: held-sum",
        )
    )
    with suppress(Exception):
        world.vote(id)


def revoke(world: World, _: str) -> None:
    world.services.agents.revoke("bot", "cli:test")
    world.services.holds.expire_due()


def restore(world: World, _: str) -> None:
    world.services.holds.end_open("restored")


@pytest.mark.parametrize("end", [deny, let_expire, change_policy, revoke, restore])
async def test_an_approval_that_ends_without_a_send_gives_back(
    world: World, pipeline: Pipeline, end: Callable[[World, str], None]
) -> None:
    id = await hold(world, pipeline, pay(1, "/held"))
    assert used(world, "held") == "1"
    end(world, id)
    assert used(world, "held") == "0"


async def test_a_lost_result_stays_counted(world: World, pipeline: Pipeline) -> None:
    id = await hold(world, pipeline, pay(1, "/held"))
    world.vote(id)
    await passes(world, pipeline, pay(1, "/held"))
    world.services.recover("w1")
    assert world.services.holds.get(id).state == "unknown"
    assert used(world, "held") == "1"


async def test_a_worker_that_died_with_a_claim_leaves_the_approval_counted(
    world: World, pipeline: Pipeline
) -> None:
    id = await hold(world, pipeline, pay(1, "/held"))
    world.vote(id)
    approval = world.services.holds.get(id)
    world.services.holds.claim(id, basis=approval.basis, worker="w1", call="c-x").result(5)
    world.services.recover("w1")
    assert world.services.holds.get(id).state == "approved"
    assert used(world, "held") == "1"


# Held because they are over


async def test_an_allowed_call_that_goes_beyond_is_held(world: World, pipeline: Pipeline) -> None:
    await complete(await passes(world, pipeline, pay(80, "/ask")))
    id = await hold(world, pipeline, pay(50, "/ask"))
    shown = card(world, id)
    assert (shown["risk"], shown["tiers"], shown["deciding"]) == ("high", ["high"], "form:amount")
    assert shown["summaries"] == ["Pay 50"]
    [note] = shown["notes"]
    assert "80 are used; this call asks for 50, which is 30 too much" in note
    assert (
        'Rule "ask" holds POST https://free.example/ask until people approve it'
        in (shown["sentence"])
    )
    [opened] = world.records("approval.opened")
    assert len(opened["over"]) == 1 and opened["rules"] == ["ask"]
    for user in ("bob", "carol"):
        world.vote(id, user, reason="fine", confirm="50")
    passage = await passes(world, pipeline, internal("POST", f"/v1/approvals/{id}/execute"))
    await complete(passage)
    assert used(world, "ask") == "130"
    await hold(world, pipeline, pay(1, "/ask"))


async def test_the_same_call_again_joins(world: World, pipeline: Pipeline) -> None:
    assert await hold(world, pipeline, pay(500, "/ask")) == await hold(
        world, pipeline, pay(500, "/ask")
    )
    assert used(world, "ask") == "500"


async def test_a_denied_one_frees_the_budget_for_others(world: World, pipeline: Pipeline) -> None:
    id = await hold(world, pipeline, pay(500, "/ask"))
    await hold(world, pipeline, pay(1, "/ask"))
    world.vote(id, decision="deny")
    await complete(await passes(world, pipeline, pay(90, "/ask")))


async def test_a_hold_that_goes_beyond_says_so(world: World, pipeline: Pipeline) -> None:
    id = await hold(world, pipeline, pay(60, "/held-sum"))
    assert card(world, id)["notes"] == []
    id = await hold(world, pipeline, pay(61, "/held-sum"))
    assert "which is 21 too much" in card(world, id)["notes"][0]
    assert card(world, id)["risk"] == "medium"


async def test_a_hold_whose_amount_cannot_be_read_is_over(world: World, pipeline: Pipeline) -> None:
    id = await hold(world, pipeline, pay("lots", "/held-sum"))
    assert "cannot be read as one plain number" in card(world, id)["notes"][0]
    assert used(world, "held-sum") == "100"


async def test_a_hold_that_denies_beyond_its_limit_denies_what_it_cannot_read(
    world: World, pipeline: Pipeline
) -> None:
    world.publish(
        LIMITED.replace(
            "max: 100, per: 1h, over: hold}\n  - id: upload", "max: 100, per: 1h}\n  - id: upload"
        )
    )
    document = await refused(world, pipeline, pay("lots", "/held-sum"))
    assert "cannot be read" in document["detail"]
    assert used(world, "held-sum") == "0"


# Streamed bodies


def head(query: str) -> RawRequest:
    wire = raw("PUT", f"/upload/a?{query}", host="free.example", headers=(("Content-Length", "5"),))
    return replace(wire, unread=True)


async def test_a_streamed_call_is_counted_at_its_head(world: World, pipeline: Pipeline) -> None:
    for _ in range(2):
        passage = await pipeline.begin(world.client(), head("cost=4"))
        assert isinstance(passage, Passage)
    document = problem_of(await pipeline.begin(world.client(), head("cost=1")))
    assert document["limit"]["rule"] == "upload"


async def test_a_streamed_call_that_is_held_for_its_limit_is_read_first(
    world: World, pipeline: Pipeline
) -> None:
    assert await pipeline.begin(world.client(), head("cost=11")) is None
    wire = raw("PUT", "/upload/a?cost=11", host="free.example", body=b"hello")
    id = await hold(world, pipeline, wire)
    assert card(world, id)["request"]["body_text"] == "hello"


async def test_an_agent_learns_of_its_limits(world: World, pipeline: Pipeline) -> None:
    answer = await call(world, pipeline, internal("GET", "/v1/whoami"))
    assert isinstance(answer, Answer)
    assert b"allowed, at most 2 calls in 1 minute" in answer.body
