"""http://keybroker.internal/: what an agent can ask of Keybroker itself. It sees itself, nobody
else."""

from __future__ import annotations

import re
from typing import Any

from broker.answers import Answer, document, pem
from broker.errors import NotFound, Refusal
from broker.holds import Holds
from broker.model import Agent, Approval
from broker.placeholders import Placeholders
from broker.policies import Policies
from broker.stores.sqlite import to_text
from rules.request import Request, Via
from rules.words import instruct

HOST = "keybroker.internal"

_APPROVAL = re.compile(r"/v1/approvals/([A-Za-z0-9-]{1,64})")
_EXECUTE = re.compile(r"/v1/approvals/([A-Za-z0-9-]{1,64})/execute")


def base(agent: Agent, via: Via) -> str:
    """Where the agent finds this: a URL for its proxy, or a path at the gateway it came by."""
    return f"http://{HOST}" if via == "proxy" else f"/agents/{agent.name}/{HOST}"


def execution_of(request: Request) -> str | None:
    """The approval whose stored request is to be sent, if that is what the request asks for."""
    found = _EXECUTE.fullmatch(request.path)
    return found[1] if found is not None and request.method == "POST" else None


class Internal:
    """Answers everything under HOST but the execution of approvals, which is the pipeline's."""

    def __init__(
        self, holds: Holds, policies: Policies, placeholders: Placeholders, ca_pem: bytes
    ) -> None:
        self._holds = holds
        self._policies = policies
        self._placeholders = placeholders
        self._ca_pem = ca_pem

    def answer(self, call: str, agent: Agent, request: Request) -> Answer:
        """Raises Refusal for what is not there."""
        if request.method not in ("GET", "HEAD"):
            raise _nothing(request)
        if request.path == "/ca.pem":
            return pem(self._ca_pem, call)
        if request.path in ("/", "/v1/whoami"):
            return document(self._whoami(agent), call)
        found = _APPROVAL.fullmatch(request.path)
        if found is not None:
            return document(self._approval(agent, found[1]), call)
        raise _nothing(request)

    def _whoami(self, agent: Agent) -> dict[str, Any]:
        published = self._policies.current()
        rules, variables = [], {}
        if published is not None:
            subject = agent.subject
            book = published.rulebook
            rules = [
                {"id": rule.id, "effect": rule.effect, "sentence": instruct(rule, book.policy)}
                for rule in book.rules_for(subject)
            ]
            variables = {
                each.variable: {"stands_for": each.credentials, "placeholder": each.value}
                for each in self._placeholders.of(subject, book)
            }
        return {
            "agent": agent.name,
            "owner": agent.owner,
            "tags": sorted(agent.tags),
            "expires_at": None if agent.expires_at is None else to_text(agent.expires_at),
            "policy_version": None if published is None else published.version,
            "rules": rules,
            "variables": variables,
            "otherwise": "Every call that no rule allows or holds is denied.",
        }

    def _approval(self, agent: Agent, id: str) -> dict[str, Any]:
        approval = own(self._holds, agent, id)
        return {
            **brief(approval),
            "summary": approval.card["summaries"],
            "what": approval.card["what"],
            "reason": reason_of(approval),
        }


def own(holds: Holds, agent: Agent, id: str) -> Approval:
    """The agent's approval; another agent's is as unknown as one that never was."""
    try:
        approval = holds.get(id)
    except NotFound:
        approval = None
    if approval is None or approval.agent != agent.name:
        raise Refusal("not_found", f"You have no approval {id}.")
    return approval


def brief(approval: Approval) -> dict[str, Any]:
    """What a problem document says of an approval; `expires_at` is the clock that runs now."""
    limit = approval.execute_by if approval.state == "approved" else approval.decide_by
    return {
        "id": approval.id,
        "state": approval.state,
        "expires_at": None if limit is None else to_text(limit),
    }


def reason_of(approval: Approval) -> str | None:
    """What the reviewer said, or why it ended."""
    if approval.ended_reason is not None:
        return approval.ended_reason
    return next((vote.reason for vote in approval.votes if vote.reason), None)


def _nothing(request: Request) -> Refusal:
    return Refusal(
        "not_found",
        f"Keybroker has nothing at {request.method} {request.path}. There are /ca.pem,"
        " /v1/whoami, GET /v1/approvals/ID and POST /v1/approvals/ID/execute.",
    )
