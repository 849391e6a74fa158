"""Votes on held calls: who may still vote, what was confirmed, and what follows from it, in one
durable transaction each."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta

from audit.journal import Transaction
from audit.record import Draft
from broker.approvals import entitled, groups_of, judge
from broker.ends import end, settle, tell_resolved
from broker.errors import Conflict, NotEntitled, Unconfirmed
from broker.model import Approval, ApprovalState, Choice, User, Vote
from broker.stores import approvals as rows
from broker.stores.sqlite import Store, optional_moment
from rules.words import describe_place


class Votes:
    """The reviewers' side of approvals; the agents' is `broker.holds.Holds`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def cast(
        self,
        approval: str,
        user: User,
        decision: Choice,
        *,
        reason: str | None,
        confirm: str | None,
        basis: str | None,
        via: str,
    ) -> Approval:
        """Records the vote and what follows from it; returns the approval as it then is.

        `basis` is what the policy says of the stored request now; None if it no longer says
        anything (the agent was revoked). Raises NotFound, NotEntitled, Conflict (decided, expired,
        stale, voted already), Unconfirmed, StoreUnavailable; then no vote is recorded.
        """

        def work(tx: Transaction) -> Approval | Conflict:
            now = self._store.clock()
            found = rows.get(tx.db, approval)
            if found.state != "pending":
                raise Conflict(f"this call is {found.state} already")
            voter = _present(tx, user)
            if basis is None:
                end(tx, found, "superseded", now, reason="the agent was revoked")
                return Conflict("the agent was revoked meanwhile, so there is nothing to decide")
            found = settle(tx, found, basis, now)
            if found.state == "expired":
                return Conflict("the time to decide is over")
            if found.state == "superseded":
                return Conflict(
                    "the policy or the agent changed since this was opened:"
                    " the call will be held anew when the agent repeats it"
                )
            if any(vote.user == voter.name for vote in found.votes):
                raise Conflict(f"{voter.name} has voted on this call already")
            entitled(found.requirement, voter)
            confirmed = _check_confirmation(found, decision, reason, confirm)
            _record(tx, found, voter, decision, reason, confirmed, via, now)
            return rows.get(tx.db, approval)

        outcome = self._store.write(work)
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome


def _record(
    tx: Transaction,
    found: Approval,
    user: User,
    decision: Choice,
    reason: str | None,
    confirmed: bool,
    via: str,
    now: datetime,
) -> None:
    vote = Vote(
        user.name, user.role, groups_of(found.requirement, user.name), decision, reason, now
    )
    try:
        rows.insert_vote(tx, found.id, vote)
    except sqlite3.IntegrityError:
        raise Conflict(f"{user.name} has voted on this call already") from None
    tx.append(
        Draft(
            "approval.voted",
            {
                "approval": found.id,
                "user": user.name,
                "role": user.role,
                "groups": list(vote.groups),
                "decision": decision,
                "reason": reason,
                "request": found.card["request_commitment"],
                "confirmed": confirmed,
                "via": via,
            },
            call=found.call,
            agent=found.agent,
        )
    )
    votes = (*found.votes, vote)
    event = judge(found.requirement, votes)
    if event is None:
        return
    by = [v.user for v in votes if v.decision == event and v.counts]
    within = timedelta(seconds=found.requirement.execute_within)
    rows.advance(tx, found, event, reason=reason, execute_by=now + within)
    state: ApprovalState = "approved" if event == "approve" else "denied"
    tell_resolved(tx, found, state, by=by, reason=reason)


def _present(tx: Transaction, user: User) -> User:
    """The voter as the store has them at this moment; raises NotEntitled if there is no account.

    Whoever was logged in a moment ago may be disabled by now.
    """
    row = tx.db.execute(
        "SELECT role, disabled_at FROM users WHERE name = ?", (user.name,)
    ).fetchone()
    if row is None:
        raise NotEntitled(f"there is no account {user.name}")
    return replace(user, role=row[0], disabled_at=optional_moment(row[1]))


def _check_confirmation(
    found: Approval, decision: Choice, reason: str | None, confirm: str | None
) -> bool:
    """Whether a value was retyped rightly; raises Unconfirmed where the tier asks and it was not.

    A denial needs neither: refusing must stay easy.
    """
    if decision == "deny":
        return False
    if found.requirement.reason_required and not (reason or "").strip():
        raise Unconfirmed("this tier asks for a reason: say why you approve")
    if not found.requirement.retype:
        return False
    if found.confirm_value is None:
        raise NotEntitled(
            "the value to retype is missing from the store, so this cannot be approved"
        )
    if confirm is None or confirm.strip() != found.confirm_value.strip():
        place = found.card.get("confirm_place") or "path"
        raise Unconfirmed(f"retype {describe_place(place)} exactly as the request has it")
    return True
