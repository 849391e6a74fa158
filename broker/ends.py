"""How a held call's approval ends: by its clocks, by a change of what it was opened for, or by a
decision.

For use inside the transaction of whoever finds out; what is done there is done with it, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from audit.journal import Transaction
from audit.record import Draft
from broker.model import Approval, ApprovalState
from broker.stores import approvals as rows


def is_due(approval: Approval, now: datetime) -> bool:
    """Whether its clock ran out, though nobody has ended it yet."""
    limit = _limit(approval)
    return limit is not None and now >= limit


def settle(tx: Transaction, found: Approval, basis: str, now: datetime) -> Approval:
    """The approval after the clocks and the present policy have had their say."""
    if found.state not in ("pending", "approved"):
        return found
    if is_due(found, now):
        clock = "decide" if found.state == "pending" else "execute"
        return end(tx, found, "expired", now, reason=f"{clock}_within is over")
    if basis != found.basis:
        return end(
            tx, found, "superseded", now, reason="a rule, tier, credential or the agent changed"
        )
    return found


def end(
    tx: Transaction, found: Approval, state: ApprovalState, now: datetime, *, reason: str
) -> Approval:
    """Ends it without a decision, as expired or superseded."""
    rows.advance(tx, found, "expire" if state == "expired" else "supersede", reason=reason)
    tell_resolved(tx, found, state, by=[], reason=reason)
    return replace(found, state=state, ended_at=now, ended_reason=reason, confirm_value=None)


def tell_resolved(
    tx: Transaction,
    found: Approval,
    state: ApprovalState,
    *,
    by: Sequence[str],
    reason: str | None,
) -> None:
    """Tells the ledger what became of it, and by whom."""
    tx.append(
        Draft(
            "approval.resolved",
            {"approval": found.id, "state": state, "by": list(by), "reason": reason},
            call=found.call,
            agent=found.agent,
        )
    )


def _limit(approval: Approval) -> datetime | None:
    """The clock that runs now."""
    if approval.state == "pending":
        return approval.decide_by
    return approval.execute_by if approval.state == "approved" else None
