"""3. decide: what the policy of this moment says of a call, and how it would then go out.

The agent is looked up anew each time: a revocation takes effect on open connections too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.digest import request_digest
from broker.errors import Refusal
from broker.injectors import place
from broker.model import Agent, Client
from broker.parts import Parts
from broker.refusals import denied_policy, over_limit, unknown_agent
from rules.decide import Rulebook
from rules.limits import Over
from rules.model import Credential, Decision, Policy, Subject
from rules.reading.call import Reading
from rules.request import Request

EFFECTS = frozenset({"allow", "hold", "deny", "tunnel"})


class PolicyChanged(Exception):
    """The policy says something else by now; the call is to be decided anew."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy of one moment says of a request, and the request as it would go out."""

    decision: Decision
    version: int
    rulebook: Rulebook
    subject: Subject
    credentials: tuple[Credential, ...]
    matched: Request
    """As the agent sent it."""
    outgoing: Request
    """The credentials' slots are empty."""
    digest: bytes

    @property
    def policy(self) -> Policy:
        return self.rulebook.policy


class Judge:
    """Asks the register of agents and the policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def agent(self, client: Client) -> Agent:
        """The agent as it is now; raises Refusal if it or its token ended."""
        agent = self._parts.agents.current(client)
        if agent is None:
            raise unknown_agent("The agent or its token has expired or was revoked.")
        if not isinstance(agent, Agent) or agent.name != client.agent:
            raise TypeError("the register of agents returned another agent")
        return agent

    def streams(self) -> bool:
        """Whether the policy may let any body pass unread."""
        published = self._parts.policies.current()
        return published is not None and published.rulebook.streams

    def rule(self, agent: Agent, request: Request) -> Ruling:
        """The ruling for `request`; raises Refusal unless it allows or holds."""
        published = self._parts.policies.current()
        if published is None:
            raise Refusal("policy_denied", "No policy is loaded, so every call is denied.")
        subject = agent.subject
        policy = published.rulebook.policy
        call = Reading(request, subject)
        decision = published.rulebook.decide_on(call)
        if not isinstance(decision, Decision) or decision.effect not in EFFECTS:
            raise TypeError("the rules returned no decision")
        if published.shadow is not None:
            decision = decision._replace(shadow=published.shadow.cast(call, decision))
        if decision.effect not in ("allow", "hold"):
            raise denied_policy(decision, published.version)
        credentials = tuple([policy.credentials[name] for name in decision.credentials])
        outgoing = place(request, credentials)
        if not isinstance(outgoing, Request):
            raise TypeError("the injectors returned no request")
        self._parts.placeholders.check(subject, published, outgoing)
        digest = request_digest(self._parts.digest_key, outgoing, credentials)
        return Ruling(
            decision,
            published.version,
            published.rulebook,
            subject,
            credentials,
            request,
            outgoing,
            digest,
        )

    def beyond(self, ruling: Ruling, over: Sequence[Over]) -> Ruling:
        """The ruling for a call that goes beyond these limits; raises Refusal unless it holds."""
        decision = ruling.rulebook.over(ruling.decision, over, ruling.matched)
        if decision.effect != "hold":
            raise over_limit(decision, over, ruling.version, ruling.decision.shadow)
        return replace(ruling, decision=decision)

    def confirm(self, ruling: Ruling) -> None:
        """Raises PolicyChanged if a newer version of the policy would rule otherwise."""
        published = self._parts.policies.current()
        if published is None or published.version == ruling.version:
            return
        decision = published.rulebook.decide(ruling.subject, ruling.matched)
        if decision.basis != ruling.decision.basis:
            raise PolicyChanged
