"""What an agent is told when its call does not go out: a code, and a sentence to act on."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from broker.errors import CODES
from broker.model import Approval, ApprovalState
from broker.refusals import (
    as_origin,
    denied_policy,
    held_answer,
    ledger_unavailable,
    pending,
    unknown_agent,
)
from rules.model import Decision
from tests.support.holding import hold
from tests.support.services import World


@pytest.fixture
def held(world: World) -> Approval:
    return hold(world)


def test_a_policys_refusal_names_the_rule() -> None:
    refusal = denied_policy(Decision("deny", "Rule says no.", rules=("a", "b")), 7)
    assert (refusal.code, refusal.status, refusal.detail) == ("policy_denied", 403, "Rule says no.")
    assert refusal.extra == {"policy": 7, "rule": "a"}
    assert denied_policy(Decision("deny", "Nothing matches."), 7).extra == {"policy": 7}


@pytest.mark.parametrize(
    ("status", "respond_async", "expected", "located"),
    [
        (503, False, 503, False),
        (429, False, 429, False),
        (202, False, 202, True),
        (503, True, 202, True),
    ],
)
def test_a_pending_call_is_told_how_to_come_back(
    world: World,
    held: Approval,
    status: int,
    respond_async: bool,
    expected: int,
    located: bool,
) -> None:
    agent = replace(world.services.agents.get("bot"), pending_status=status)
    refusal = pending(held, agent, respond_async=respond_async)
    where = f"http://keybroker.internal/v1/approvals/{held.id}"
    assert (refusal.status, refusal.code, refusal.retry_after) == (expected, "approval_pending", 5)
    assert f"POST {where}/execute" in refusal.detail
    assert refusal.headers == ((("location", where),) if located else ())
    assert refusal.extra["approval"]["id"] == held.id
    assert refusal.extra["approval"]["state"] == "pending"
    assert refusal.extra["approval"]["expires_at"].endswith("Z")


def test_who_came_by_the_gateway_is_sent_back_there(world: World, held: Approval) -> None:
    agent = replace(world.services.agents.get("bot"), pending_status=202)
    refusal = pending(held, agent, respond_async=False, via="gateway")
    where = f"/agents/bot/keybroker.internal/v1/approvals/{held.id}"
    assert refusal.headers == (("location", where),)
    assert f"POST {where}/execute" in refusal.detail


def test_an_origin_says_401_where_a_proxy_says_407() -> None:
    assert as_origin(unknown_agent("who?")).status == 401
    assert as_origin(ledger_unavailable()).status == 503


STATES: tuple[ApprovalState, ...] = get_args(ApprovalState)


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_an_answer(held: Approval, state: ApprovalState) -> None:
    refusal = held_answer(replace(held, state=state, ended_reason="its reason"))
    assert refusal.code in CODES
    assert refusal.extra["approval"]["state"] == state
    expected = {"denied": "approval_denied", "expired": "approval_expired"}
    expected["superseded"] = "approval_expired"
    assert refusal.code == expected.get(state, "approval_used")


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("denied", "too much", "A reviewer denied this call: too much."),
        ("denied", None, "denied this call, without giving a reason."),
        ("expired", "decide_within is over", "This approval is expired: decide_within is over."),
        ("used", None, "an identical call was sent."),
        ("executing", None, "an identical call is being sent right now."),
        ("unknown", None, "an identical call was sent, and its result is unknown."),
    ],
)
def test_the_sentence_says_what_happened(
    held: Approval, state: ApprovalState, reason: str | None, words: str
) -> None:
    assert words in held_answer(replace(held, state=state, ended_reason=reason)).detail
