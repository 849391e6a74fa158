"""The card: what a reviewer is shown of a held call, in the order in which it matters. Pure.

A part of it is fixed when the approval is opened (`make_card`, committed to in the ledger); the
rest is its present state (`show`). It has names of credentials and where they go, never a value.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from audit.record import JSON
from broker.approvals import VOTING_ROLES, entitled, needs
from broker.errors import NotEntitled
from broker.holds import what
from broker.injectors import preview
from broker.model import Agent, Approval, User
from broker.stores.sqlite import to_text
from rules.describe import describe_host
from rules.model import Credential, Decision, Policy
from rules.request import Request
from rules.visible import visible
from rules.words import body_view, describe_place, describe_rule, files_view

MOST_CLAIM = 500
"""Characters of the agent's claim that are kept."""


def make_card(
    agent: Agent,
    request: Request,
    decision: Decision,
    policy: Policy,
    credentials: Sequence[Credential],
    operator_note: str | None,
) -> dict[str, JSON]:
    """The fixed part, from what the policy says of the call."""
    rules = {rule.id: rule for rule in policy.rules}
    return {
        "agent": agent.name,
        "owner": agent.owner,
        "tags": sorted(agent.tags),
        "risk": decision.risk,
        "tiers": list(decision.tiers),
        "sentence": decision.sentence,
        "summaries": list(decision.summaries)
        or [f"{request.method} {visible(request.authority + request.path)}"],
        "impacts": list(decision.impacts),
        "undos": list(decision.undos),
        "rules": [
            {"id": id, "sentence": describe_rule(rules[id], policy)}
            for id in (*decision.rules, *decision.allowed_by)
        ],
        "what": what(request),
        "upgrade": request.upgrade,
        "credentials": [
            {
                "name": credential.name,
                "secret": str(credential.secret),
                "header": preview(credential)[0],
                "preview": preview(credential)[1],
                "hosts": [describe_host(pattern) for pattern in credential.hosts],
            }
            for credential in credentials
        ],
        "claim": None if request.claim is None else request.claim[:MOST_CLAIM],
        "operator_note": operator_note,
        "confirm_place": decision.confirm_place or "path",
    }


def show(
    approval: Approval, request: Request | None, viewer: User | None, now: datetime
) -> dict[str, Any]:
    """The whole card as JSON-ready values; `request` is None once the approval has ended."""
    card, requirement = approval.card, approval.requirement
    return {
        "id": approval.id,
        "state": approval.state,
        "call": approval.call,
        **{
            name: card[name]
            for name in (
                "agent",
                "owner",
                "tags",
                "risk",
                "tiers",
                "sentence",
                "summaries",
                "impacts",
                "rules",
                "what",
                "credentials",
                "claim",
                "operator_note",
                "request_commitment",
            )
        },
        "undos": card.get("undos", []),
        "policy_version": approval.policy_version,
        "opened_at": to_text(approval.opened_at),
        "decide_by": to_text(approval.decide_by),
        "execute_by": None if approval.execute_by is None else to_text(approval.execute_by),
        "now": to_text(now),
        "request": None if request is None else _request(request),
        "requirement": requirement.to_json(),
        "deciding": card["confirm_place"],
        "confirm": {"place": card["confirm_place"], "hint": _hint(card["confirm_place"])}
        if requirement.retype
        else None,
        "votes": [
            {
                "user": vote.user,
                "decision": vote.decision,
                "reason": vote.reason,
                "at": to_text(vote.at),
            }
            for vote in approval.votes
        ],
        "needs": needs(requirement, approval.votes) if approval.state == "pending" else "",
        "notes": _notes(card),
        "you": _you(approval, viewer),
        "resolution": _resolution(approval),
    }


def _request(request: Request) -> dict[str, Any]:
    try:
        text: str | None = request.body.decode()
    except UnicodeDecodeError:
        text = None
    return {
        "method": request.method,
        "url": request.url,
        "scheme": request.scheme,
        "host": request.host,
        "port": request.port,
        "path": request.path,
        "query": request.query,
        "headers": [list(pair) for pair in request.headers],
        "body_base64": base64.b64encode(request.body).decode(),
        "body_size": len(request.body),
        "body_text": text,
        "fields": [list(pair) for pair in body_view(request)],
        "files": files_view(request),
    }


def _hint(place: str) -> str:
    return f"Retype {describe_place(place)} to approve."


def _notes(card: dict[str, Any]) -> list[str]:
    notes = []
    if card.get("upgrade"):
        notes.append("This opens a WebSocket: what is said over it afterwards asks nobody.")
    notes += [f"It goes beyond a limit. {sentence}" for sentence in card.get("over", ())]
    earlier = card.get("earlier")
    if earlier is None:
        return notes
    told = {
        "expired": "expired without a decision",
        "unknown": "was sent, and its result is unknown: it may have taken effect",
        "superseded": "was set aside because the policy or the agent changed",
        "used": "was approved and sent",
        "denied": "was denied",
    }[earlier["state"]]
    return [*notes, f"An identical call {told} ({earlier['at']}, {earlier['approval']})."]


def _you(approval: Approval, viewer: User | None) -> dict[str, Any]:
    if viewer is None:
        return {"may_vote": False, "why": "Log in to vote."}
    if approval.state != "pending":
        return {"may_vote": False, "why": f"This call is {approval.state}."}
    if any(vote.user == viewer.name for vote in approval.votes):
        return {"may_vote": False, "why": "You have voted."}
    try:
        entitled(approval.requirement, viewer)
    except NotEntitled as refusal:
        return {"may_vote": False, "why": str(refusal)}
    return {"may_vote": True, "why": f"You may vote as {' or '.join(sorted(VOTING_ROLES))}."}


def _resolution(approval: Approval) -> dict[str, Any] | None:
    moment = approval.ended_at or approval.decided_at
    if approval.state == "pending" or moment is None:
        return None
    decision = "deny" if approval.state == "denied" else "approve"
    voters = [vote for vote in approval.votes if vote.decision == decision]
    reason = approval.ended_reason or next((v.reason for v in voters if v.reason), None)
    return {
        "state": approval.state,
        "by": [vote.user for vote in voters],
        "reason": reason,
        "at": to_text(moment),
    }
