"""Held calls: opened, joined, claimed, ended; voted on in `broker.voting`. Each operation is one
durable transaction that changes the store and tells the ledger, or neither.

Whoever calls these acts on what they return; nobody is told of an approval before it is durable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from audit.commitment import SALT_BYTES, commit
from audit.journal import Transaction
from audit.record import JSON, Draft, canonical_json
from broker.ends import end, is_due, settle
from broker.errors import Conflict, OverLimit, Refusal
from broker.model import Approval, Requirement
from broker.ports import NewId, RandomBytes
from broker.sealing import Sealer, StoredRequest
from broker.stores import approvals as rows
from broker.stores import limits
from broker.stores.sqlite import Store, to_text
from rules.model import Decision, Shadow
from rules.request import Request
from rules.words import describe_over


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent may have held at a time."""

    held_calls: int = 200
    held_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Proposal:
    """A call that the policy holds, ready to be stored."""

    call: str
    agent: str
    stored: StoredRequest
    digest: bytes
    join_key: bytes
    decision: Decision
    policy_version: int
    requirement: Requirement
    card: Mapping[str, Any]
    """What reviewers are shown besides the request (see broker.desk)."""
    credentials: Sequence[tuple[str, str]]
    """(name, secret reference) of each credential."""


def what(request: Request) -> dict[str, JSON]:
    """What the ledger says openly of a request: never its query's values, headers or body."""
    about: dict[str, JSON] = {
        "method": request.method,
        "scheme": request.scheme,
        "host": request.host,
        "port": request.port,
        "path": request.path,
    }
    if request.via != "proxy":
        about["via"] = request.via
    if request.run is not None:
        about["run"] = request.run
    return about


def tried(shadow: Shadow | None) -> dict[str, JSON]:
    """What the ledger says of rules in shadow: nothing where none is about the call."""
    if shadow is None:
        return {}
    told: dict[str, JSON] = {
        "effect": shadow.effect,
        "rules": [{"rule": rule, "effect": effect} for rule, effect in shadow.rules],
    }
    if shadow.version is not None:
        told["policy"] = shadow.version
    return {"shadow": told}


class Holds:
    """The transactions on approvals."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        *,
        new_id: NewId,
        random: RandomBytes,
        limits: Limits,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._new_id = new_id
        self._random = random
        self._limits = limits

    # The agent's side

    def open_or_join(self, proposal: Proposal) -> Future[Approval]:
        """The approval that this call waits for: an open one of the same request, or a new one.

        A denial is returned again for as long as a decision would have been waited for, so that a
        retry loop asks nobody. A new one counts towards the limits of its rules, for as long as it
        may be executed. The future may carry Refusal("too_many_pending"), or OverLimit for a limit
        that denies.
        """

        def work(tx: Transaction) -> Approval:
            found = rows.latest(tx.db, proposal.agent, proposal.join_key)
            if found is not None:
                found = settle(tx, found, proposal.decision.basis, self._store.clock())
                if found.state in ("pending", "approved"):
                    tx.append(
                        Draft(
                            "approval.joined",
                            {"approval": found.id},
                            call=proposal.call,
                            agent=proposal.agent,
                        )
                    )
                    return found
                if found.state == "executing" or self._remembered(found, proposal):
                    return found
            return self._open(tx, proposal, after=found)

        return self._store.submit(work)

    def get(self, approval: str) -> Approval:
        """As it is now. Raises NotFound, StoreUnavailable."""
        return rows.get(self._store.read(), approval)

    def stored(self, approval: str) -> StoredRequest | None:
        """The request as stored; None once the approval has ended. Raises StoreUnavailable."""
        sealed = rows.sealed_request(self._store.read(), approval)
        return None if sealed is None else self._sealer.open(sealed, approval)

    def listing(self, state: str | None, limit: int) -> list[Approval]:
        """Newest first; `state` None means all."""
        return rows.listing(self._store.read(), state, limit)

    def claim(self, approval: str, *, basis: str, worker: str, call: str) -> Future[Approval]:
        """Takes an approved call for sending: of all that ask, one gets it.

        `basis` is what the policy says now; if it differs from what was approved, the approval is
        superseded and returned as such, and as expired if its time is over. The future carries
        Conflict when there is nothing to take.
        """

        def work(tx: Transaction) -> Approval:
            found = settle(tx, rows.get(tx.db, approval), basis, self._store.clock())
            if found.state == "approved":
                rows.advance(tx, found, "claim", executor=(worker, call))
                return rows.get(tx.db, approval)
            if found.state in ("superseded", "expired"):
                return found  # and kept: an error would undo what was settled
            raise Conflict(f"the approval is {found.state}")

        return self._store.submit(work)

    def release(self, approval: str, call: str) -> Future[None]:
        """Gives a claimed approval back: certainly nothing was sent. Harmless if `call` has not
        claimed it, or is in the ledger as sent: then its result decides."""

        def work(tx: Transaction) -> None:
            found = rows.get(tx.db, approval)
            claimed = found.state == "executing" and found.executor_call == call
            if claimed and not rows.is_sent(tx.db, call):
                rows.advance(tx, found, "release")

        return self._store.submit(work)

    def is_due(self, approval: Approval) -> bool:
        """Whether its clock ran out, though nobody has ended it yet."""
        return is_due(approval, self._store.clock())

    def expire(self, approval: str) -> Future[Approval]:
        """Ends the approval if its clock ran out; the future gives it as it then is."""

        def work(tx: Transaction) -> Approval:
            found = rows.get(tx.db, approval)
            return settle(tx, found, found.basis, self._store.clock())

        return self._store.submit(work)

    def end_open(self, reason: str) -> int:
        """Ends every approval that is still open, as expired; returns how many.

        Raises StoreUnavailable.
        """

        def work(tx: Transaction) -> int:
            found = [*rows.listing(tx.db, "pending", -1), *rows.listing(tx.db, "approved", -1)]
            for approval in found:
                end(tx, approval, "expired", self._store.clock(), reason=reason)
            return len(found)

        return self._store.write(work)

    def expire_due(self) -> int:
        """Ends every approval whose clock ran out or whose agent was revoked; returns how many.

        Raises StoreUnavailable.
        """
        now = self._store.clock()
        db = self._store.read()
        orphaned = {row[0] for row in db.execute(_OF_REVOKED_AGENTS)}
        ids = orphaned | set(rows.due(db, now))

        def work(tx: Transaction) -> None:
            for approval in sorted(ids):
                found = rows.get(tx.db, approval)
                if approval in orphaned and found.state in ("pending", "approved"):
                    end(tx, found, "superseded", now, reason="the agent was revoked")
                else:
                    settle(tx, found, found.basis, now)

        if ids:
            self._store.write(work)
        return len(ids)

    # Inside a transaction

    def _remembered(self, found: Approval, proposal: Proposal) -> bool:
        if found.state != "denied" or found.ended_at is None:
            return False
        if found.basis != proposal.decision.basis:
            return False
        memory = timedelta(seconds=found.requirement.decide_within)
        return self._store.clock() < found.ended_at + memory

    def _open(self, tx: Transaction, proposal: Proposal, after: Approval | None) -> Approval:
        held, stored = rows.burden(tx.db, proposal.agent)
        size = proposal.stored.size
        # Before it is sealed: that takes time, and everybody's records wait behind this one.
        if held >= self._limits.held_calls or stored + size > self._limits.held_bytes:
            raise Refusal(
                "too_many_pending",
                f"You have {held} calls waiting for a decision ({stored} bytes stored), which is"
                " the limit. Wait until some of them are decided.",
                retry_after=30,
            )
        approval = self._new_id("a")
        now = self._store.clock()
        caller = limits.Caller(proposal.call, proposal.agent, None)
        over = limits.reserve(tx.db, caller, proposal.decision.limits, now, held=True)
        if any(each.demand.limit.over == "deny" for each in over):
            raise OverLimit(over)
        sealed = self._sealer.seal(proposal.stored, approval)
        salt = self._random(SALT_BYTES)
        decision, requirement = proposal.decision, proposal.requirement
        outgoing = proposal.stored.outgoing
        request = commit(salt, "request", proposal.digest)
        body = commit(salt, "body", outgoing.body)
        card = {
            **proposal.card,
            "request_commitment": request,
            "body_commitment": body,
            "earlier": None if after is None else _earlier(after),
            "over": [describe_over(each) for each in over],
        }
        opened = Approval(
            id=approval,
            state="pending",
            agent=proposal.agent,
            call=proposal.call,
            join_key=proposal.join_key,
            digest=proposal.digest,
            basis=decision.basis,
            policy_version=proposal.policy_version,
            requirement=requirement,
            card=card,
            confirm_value=decision.confirm_value if requirement.retype else None,
            opened_at=now,
            decide_by=now + timedelta(seconds=requirement.decide_within),
            decided_at=None,
            execute_by=None,
            ended_at=None,
            ended_reason=None,
            executor=None,
            executor_call=None,
            votes=(),
        )
        rows.insert(tx, opened, sealed)
        tx.keep_salt(approval, salt)
        tx.append(
            Draft(
                "approval.opened",
                {
                    "approval": approval,
                    "what": what(outgoing),
                    "request": request,
                    "body": body,
                    "body_size": len(outgoing.body),
                    "requirement": requirement.to_json(),
                    "tiers": list(decision.tiers),
                    "risk": decision.risk,
                    "rules": list(decision.rules),
                    "allowed_by": list(decision.allowed_by),
                    "policy": proposal.policy_version,
                    "credentials": [{"name": n, "secret": s} for n, s in proposal.credentials],
                    "summaries": list(decision.summaries),
                    "impacts": list(decision.impacts),
                    "undos": list(decision.undos),
                    "claim_given": outgoing.claim is not None,
                    "decide_by": to_text(opened.decide_by),
                    "basis": decision.basis,
                    "after": None if after is None else after.id,
                    **({"over": card["over"]} if over else {}),
                    **tried(decision.shadow),
                    "shown": commit(salt, "card", canonical_json(card)),
                },
                call=proposal.call,
                agent=proposal.agent,
            )
        )
        return opened


_OF_REVOKED_AGENTS = (
    "SELECT a.id FROM approvals a JOIN agents g ON g.name = a.agent"
    " WHERE a.state IN ('pending', 'approved') AND g.revoked_at IS NOT NULL"
)


def _earlier(after: Approval) -> dict[str, str | None]:
    """What the card says of the approval that this one comes after."""
    ended = after.ended_at or after.opened_at
    return {
        "approval": after.id,
        "state": after.state,
        "at": to_text(ended),
        "reason": after.ended_reason,
    }
