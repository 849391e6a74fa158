"""The nouns of the middle: agents, people, approvals as values. Frozen; no behaviour beyond
shape."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rules.model import Subject

Role = Literal["viewer", "approver", "admin"]
Choice = Literal["approve", "deny"]


@dataclass(frozen=True, slots=True)
class Agent:
    """A program that makes calls. All times are UTC."""

    name: str
    owner: str | None
    tags: frozenset[str]
    hold_wait: float | None
    """Seconds; None: the proxy's setting."""
    pending_status: int
    """503, 429 or 202."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def subject(self) -> Subject:
        """The agent as the rules see it."""
        return Subject(self.name, self.tags, self.owner)


@dataclass(frozen=True, slots=True)
class Client:
    """Who authenticated on a connection: the agent's name and which of its tokens it showed."""

    agent: str
    token_id: str


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account."""

    name: str
    role: Role
    has_password: bool
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Session:
    """A page session. `token` is what the cookie carries; only its hash is stored."""

    token: str
    csrf: str
    user: User
    expires_at: datetime
    """At the latest."""
    id: str = ""
    last_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A page session as it is listed: `id` names it and opens nothing."""

    id: str
    user: str
    client: str
    """The browser in a few words, as it names itself."""
    created_at: datetime
    last_seen_at: datetime
    """To the minute."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token as it is listed: never its value."""

    id: str
    user: str
    name: str
    created_at: datetime
    last_used_at: datetime | None
    """To the minute."""
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Vote:
    user: str
    role: Role
    groups: tuple[str, ...]
    """The approver groups the voter stood in when voting."""
    decision: Choice
    reason: str | None
    at: datetime
    counts: bool = True
    """False for an approval whose voter lost the right to vote before the decision was made."""


@dataclass(frozen=True, slots=True)
class TierNeed:
    """What one tier asks: `quorum` as [{group, count, members}], members None for `any`."""

    tier: str
    quorum: tuple[tuple[str, int, tuple[str, ...] | None], ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must be met before a call may go, resolved when the approval was opened."""

    tiers: tuple[TierNeed, ...]
    excluded: tuple[str, ...]
    """Names of people who may not vote."""
    denials: int
    reason_required: bool
    retype: bool
    decide_within: int
    execute_within: int

    def to_json(self) -> dict[str, Any]:
        """As the ledger and the API show it."""
        return {
            "tiers": [
                {
                    "tier": need.tier,
                    "quorum": [
                        {"group": g, "count": c, "members": None if m is None else list(m)}
                        for g, c, m in need.quorum
                    ],
                }
                for need in self.tiers
            ],
            "excluded": list(self.excluded),
            "denials": self.denials,
            "reason": "required" if self.reason_required else "optional",
            "confirm": "retype" if self.retype else "none",
            "decide_within": self.decide_within,
            "execute_within": self.execute_within,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Requirement:
        """The inverse of `to_json`."""
        return cls(
            tiers=tuple(
                TierNeed(
                    need["tier"],
                    tuple(
                        (
                            q["group"],
                            q["count"],
                            None if q["members"] is None else tuple(q["members"]),
                        )
                        for q in need["quorum"]
                    ),
                )
                for need in fields["tiers"]
            ),
            excluded=tuple(fields["excluded"]),
            denials=fields["denials"],
            reason_required=fields["reason"] == "required",
            retype=fields["confirm"] == "retype",
            decide_within=fields["decide_within"],
            execute_within=fields["execute_within"],
        )


ApprovalState = Literal[
    "pending", "approved", "denied", "expired", "superseded", "executing", "used", "unknown"
]


@dataclass(frozen=True, slots=True)
class Approval:
    """A held call's request for a decision, as the store has it. All times are UTC."""

    id: str
    state: ApprovalState
    agent: str
    call: str
    """The call that opened it."""
    join_key: bytes
    digest: bytes
    basis: str
    policy_version: int
    requirement: Requirement
    card: dict[str, Any]
    """What the reviewer is shown besides the sealed request (texts, rules, credentials)."""
    confirm_value: str | None
    opened_at: datetime
    decide_by: datetime
    decided_at: datetime | None
    execute_by: datetime | None
    ended_at: datetime | None
    ended_reason: str | None
    executor: str | None
    """The worker that claimed it."""
    executor_call: str | None
    """The call that it was claimed for."""
    votes: tuple[Vote, ...]
