"""What must not come back with a restored workspace: it is ended before anybody can use it.

A backup knows nothing of what came after it. An approval that is open in it may have been executed
since, and would be executed again; a session in it may have been ended since.
"""

from __future__ import annotations

from dataclasses import dataclass

from audit.journal import Transaction
from audit.record import Draft
from broker.services import Services
from broker.stores.sqlite import bump

_REASON = "the workspace was restored from a backup"


@dataclass(frozen=True, slots=True)
class Ended:
    """How many of each were ended."""

    unknown: int
    """Calls that were under way."""
    approvals: int
    sessions: int
    tokens: int


def end_what_was_open(services: Services, *, backup: str, by: str, end_tokens: bool) -> Ended:
    """Ends open calls, approvals, sessions, links and runs, and records the restoration.

    `end_tokens`: those of agents and people too, since one that was revoked after the backup is
    good again. Raises StoreUnavailable.
    """
    unknown = services.recover(None)
    approvals = services.holds.end_open(_REASON)

    def work(tx: Transaction) -> Ended:
        db, now = tx.db, tx.time
        sessions = db.execute(
            "UPDATE sessions SET ended_at = ? WHERE ended_at IS NULL AND expires_at > ?", (now, now)
        ).rowcount
        db.execute("UPDATE links SET expires_at = ? WHERE used_at IS NULL", (now,))
        tokens = db.execute(
            "UPDATE agent_tokens SET revoked_at = ?"
            " WHERE revoked_at IS NULL AND (purpose = 'run' OR ?)",
            (now, end_tokens),
        ).rowcount
        # Where the backup was taken, somebody may still hold and give back that token for Vault.
        db.execute("UPDATE vault_token SET sealed = NULL")
        if end_tokens:
            tokens += db.execute(
                "UPDATE user_tokens SET revoked_at = ? WHERE revoked_at IS NULL", (now,)
            ).rowcount
        bump(tx, "agents")
        ended = Ended(unknown, approvals, sessions, tokens)
        tx.append(
            Draft(
                "workspace.restored",
                {
                    "backup": backup,
                    "by": by,
                    "unknown": unknown,
                    "approvals": approvals,
                    "sessions": sessions,
                    "tokens": tokens,
                },
            )
        )
        return ended

    return services.store.write(work)
