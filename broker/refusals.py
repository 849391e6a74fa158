"""What the agent is told when its call does not go out. Pure: from a decision or approval to a
Refusal."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil
from typing import Any

from broker.errors import NOT_AGAIN, Refusal
from broker.internal import base, brief, reason_of
from broker.model import Agent, Approval
from rules.limits import Over
from rules.model import Decision, Shadow
from rules.request import Via
from rules.words import text_of_moment

RETRY_AFTER = 5
"""Seconds after which a held call is worth repeating."""


def denied_policy(decision: Decision, version: int) -> Refusal:
    """The policy denies, or cannot tell; `rule` names the first deciding rule, where there is
    one."""
    extra: dict[str, Any] = {"policy": version}
    if decision.rules:
        extra["rule"] = decision.rules[0]
    refusal = Refusal(decision.code, decision.sentence, extra=extra)
    refusal.shadow = decision.shadow
    return refusal


def over_limit(
    decision: Decision, over: Sequence[Over], version: int, shadow: Shadow | None
) -> Refusal:
    """The call goes beyond a limit that denies; `limit` says which, and when there is room."""
    first = next((each for each in over if each.demand.limit.over == "deny"), over[0])
    demand, limit, frees_at = first.demand, first.demand.limit, first.frees_at
    retry = None
    if first.fits:
        left = RETRY_AFTER if frees_at is None else ceil((frees_at - first.at).total_seconds())
        retry = max(1, left)
    refusal = Refusal(
        "policy_denied",
        decision.sentence,
        retry_after=retry,
        extra={
            "policy": version,
            "rule": demand.rule,
            "limit": {
                "rule": demand.rule,
                **({} if limit.place is None else {"sum": limit.place}),
                "max": _number(limit.most),
                "per": limit.per,
                "used": _number(first.used),
                "frees_at": None if frees_at is None else text_of_moment(frees_at),
            },
        },
    )
    refusal.shadow = shadow
    return refusal


def _number(number: Decimal) -> int | str:
    """Exactly, for every reader of JSON: whole numbers as such, others as text."""
    whole = int(number)
    return whole if whole == number and whole < 2**53 else format(number, "f")


def pending(
    approval: Approval, agent: Agent, *, respond_async: bool, via: Via = "proxy"
) -> Refusal:
    """Nobody has decided yet. With `Prefer: respond-async` (RFC 7240) it is 202 and a Location."""
    state = f"{base(agent, via)}/v1/approvals/{approval.id}"
    return Refusal(
        "approval_pending",
        f"{approval.card['sentence']} This call waits for a person's approval ({approval.id})."
        " Repeat the same request later:"
        f" it joins this approval. Or look at {state} and, once it says approved,"
        f" POST {state}/execute to send it.",
        status=202 if respond_async else agent.pending_status,
        retry_after=RETRY_AFTER,
        headers=(("location", state),) if respond_async or agent.pending_status == 202 else (),
        extra={"approval": brief(approval)},
    )


def held_answer(approval: Approval) -> Refusal:
    """How a held call ended; if it has not, another call is just being sent under its approval."""
    extra = {"approval": brief(approval)}
    if approval.state == "denied":
        reason = reason_of(approval)
        said = f": {reason}" if reason else ", without giving a reason"
        return Refusal(
            "approval_denied",
            f"A reviewer denied this call{said}."
            " Do not repeat it; ask your user what to do instead.",
            extra=extra,
        )
    if approval.state in ("expired", "superseded"):
        return Refusal(
            "approval_expired",
            f"This approval is {approval.state}: {approval.ended_reason}."
            " The call was not sent. Making it again asks people again.",
            extra=extra,
        )
    ended = {
        "used": "was sent",
        "unknown": "was sent, and its result is unknown",
    }.get(approval.state, "is being sent right now")
    return Refusal(
        "approval_used",
        f"The approval {approval.id} was for one execution, and an identical call {ended}."
        " Check its effect before you make the call again.",
        headers=NOT_AGAIN,
        extra=extra,
    )


def unknown_agent(detail: str) -> Refusal:
    """The proxy does not know who calls."""
    return Refusal("agent_unauthenticated", detail)


def as_origin(refusal: Refusal) -> Refusal:
    """The refusal as an origin server says it: 407 is a proxy's, 401 its own (RFC 9110 15.5.2)."""
    if refusal.status == 407:
        refusal.status = 401
    return refusal


def ledger_unavailable() -> Refusal:
    """Nothing is sent that the ledger cannot take."""
    return Refusal(
        "ledger_unavailable",
        "The audit log cannot be written at the moment, so nothing was sent. Try again later.",
        retry_after=5,
    )
