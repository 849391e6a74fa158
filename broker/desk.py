"""The reviewer's desk: held calls as cards, and votes. The same for the page, the API and the
command line."""

from __future__ import annotations

from typing import Any

from broker.agents import Agents
from broker.cards import show
from broker.errors import InvalidInput, NotFound
from broker.holds import Holds
from broker.model import Approval, Choice, User
from broker.policies import Policies
from broker.ports import Clock
from broker.voting import Votes
from rules.request import Request

LONGEST_REASON = 2000


class Desk:
    """Lists, shows and decides. Everything here blocks for milliseconds at most."""

    def __init__(
        self, clock: Clock, holds: Holds, votes: Votes, agents: Agents, policies: Policies
    ) -> None:
        self._clock = clock
        self._holds = holds
        self._votes = votes
        self._agents = agents
        self._policies = policies

    def list(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Cards without their requests, newest first; `state` None means all."""
        now = self._clock()
        return [show(held, None, None, now) for held in self._holds.listing(state, limit)]

    def card(self, id: str, viewer: User | None) -> dict[str, Any]:
        """One card with the request to the letter, and what `viewer` may do. Raises NotFound."""
        approval = self._holds.get(id)
        return show(approval, self._request(approval), viewer, self._clock())

    def vote(
        self,
        id: str,
        user: User,
        decision: Choice,
        *,
        reason: str | None,
        confirm: str | None,
        via: str,
    ) -> dict[str, Any]:
        """Votes, and returns the card as it then is.

        `via` is "page", "api" or "cli". Raises NotFound, NotEntitled, Conflict, Unconfirmed,
        InvalidInput, StoreUnavailable; then no vote was recorded.
        """
        if decision not in ("approve", "deny"):
            raise InvalidInput("a decision is approve or deny")
        words = (reason or "").strip() or None
        if words is not None and len(words) > LONGEST_REASON:
            raise InvalidInput(f"the reason is too long: {LONGEST_REASON} characters at most")
        if words is not None and any("\ud800" <= character <= "\udfff" for character in words):
            raise InvalidInput("the reason holds half a character, which cannot be written down")
        approval = self._holds.get(id)
        approval = self._votes.cast(
            id,
            user,
            decision,
            reason=words,
            confirm=confirm,
            basis=self._basis(approval),
            via=via,
        )
        return show(approval, self._request(approval), user, self._clock())

    def _request(self, approval: Approval) -> Request | None:
        stored = self._holds.stored(approval.id)
        return None if stored is None else stored.outgoing

    def _basis(self, approval: Approval) -> str | None:
        """What the policy of this moment makes of the stored request."""
        try:
            agent = self._agents.get(approval.agent)
        except NotFound:
            return None
        if agent.revoked_at is not None:
            return None
        stored, published = self._holds.stored(approval.id), self._policies.refresh()
        if stored is None or published is None:
            return approval.basis  # ended meanwhile; the vote itself says so
        subject = agent.subject
        decision = published.rulebook.decide(subject, stored.matched)
        return decision.basis
