"""Approvals as rows: the only place that knows their columns. Every move goes through the table in
broker.approvals; what it does not allow raises Conflict and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

from audit.journal import Transaction
from broker.approvals import ENDED, Event, move
from broker.errors import NotFound
from broker.model import Approval, Requirement, Vote
from broker.stores import limits
from broker.stores.sqlite import bump, optional_moment, to_moment, to_text

_COLUMNS = (
    "id, state, agent, call, join_key, digest, basis, policy_version, requirement, card,"
    " confirm_value, opened_at, decide_by, decided_at, execute_by, ended_at, ended_reason,"
    " executor, executor_call"
)


def get(db: sqlite3.Connection, approval: str) -> Approval:
    """The approval with its votes. Raises NotFound."""
    found = _select(db, "id = ?", (approval,))
    if not found:
        raise NotFound(f"there is no approval {approval}")
    return found[0]


def latest(db: sqlite3.Connection, agent: str, join_key: bytes) -> Approval | None:
    """The newest approval of this agent's same request."""
    # By the order of insertion: a clock that was set back must not bring up an older one.
    found = _select(db, "agent = ? AND join_key = ? ORDER BY rowid DESC LIMIT 1", (agent, join_key))
    return found[0] if found else None


def listing(db: sqlite3.Connection, state: str | None, limit: int) -> list[Approval]:
    """Newest first; `state` None means all."""
    if state is None:
        return _select(db, "1 ORDER BY opened_at DESC, id DESC LIMIT ?", (limit,))
    return _select(db, "state = ? ORDER BY opened_at DESC, id DESC LIMIT ?", (state, limit))


def due(db: sqlite3.Connection, now: datetime) -> list[str]:
    """Ids of approvals whose clock ran out."""
    moment = to_text(now)
    rows = db.execute(
        "SELECT id FROM approvals WHERE (state = 'pending' AND decide_by <= ?)"
        " OR (state = 'approved' AND execute_by <= ?)",
        (moment, moment),
    )
    return [row[0] for row in rows]


def changed_since(db: sqlite3.Connection, counter: int) -> list[str]:
    """Ids of approvals that changed after the counter 'approvals' stood at `counter`."""
    rows = db.execute("SELECT id FROM approvals WHERE changed > ?", (counter,))
    return [row[0] for row in rows]


def burden(db: sqlite3.Connection, agent: str) -> tuple[int, int]:
    """How many calls of the agent are held, and how many bytes are stored for them."""
    row = db.execute(
        "SELECT count(*), coalesce(sum(stored_bytes), 0) FROM approvals"
        " WHERE agent = ? AND state IN ('pending', 'approved', 'executing')",
        (agent,),
    ).fetchone()
    return int(row[0]), int(row[1])


def insert(tx: Transaction, approval: Approval, sealed: bytes) -> None:
    """A pending approval and its sealed request."""
    tx.db.execute(
        "INSERT INTO approvals (id, state, agent, call, join_key, digest, basis, policy_version,"
        " requirement, card, confirm_value, stored_bytes, opened_at, decide_by, changed)"
        " VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            approval.id,
            approval.agent,
            approval.call,
            approval.join_key,
            approval.digest,
            approval.basis,
            approval.policy_version,
            json.dumps(approval.requirement.to_json()),
            json.dumps(approval.card),
            approval.confirm_value,
            len(sealed),
            to_text(approval.opened_at),
            to_text(approval.decide_by),
            bump(tx, "approvals"),
        ),
    )
    tx.db.execute("INSERT INTO requests VALUES (?, ?)", (approval.id, sealed))


def insert_vote(tx: Transaction, approval: str, vote: Vote) -> None:
    """Raises sqlite3.IntegrityError if this person voted on it before."""
    tx.db.execute(
        "INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            approval,
            vote.user,
            vote.role,
            json.dumps(vote.groups),
            vote.decision,
            vote.reason,
            to_text(vote.at),
        ),
    )
    touch(tx, approval)


def touch(tx: Transaction, approval: str) -> None:
    """Says that something about the approval changed."""
    tx.db.execute(
        "UPDATE approvals SET changed = ? WHERE id = ?", (bump(tx, "approvals"), approval)
    )


def advance(
    tx: Transaction,
    approval: Approval,
    event: Event,
    *,
    reason: str | None = None,
    execute_by: datetime | None = None,
    executor: tuple[str, str] | None = None,
) -> None:
    """Moves the approval as the table says and keeps what goes with the new state.

    `executor` is (worker, call) on a claim. When the approval ends, its sealed request and the
    value to retype are deleted, and what it had reserved of limits is given back unless it was
    sent. Raises Conflict for a move that the table does not have.
    """
    state = move(approval.state, event)
    fields: dict[str, Any] = {"state": state, "changed": bump(tx, "approvals")}
    if event in ("approve", "deny"):
        fields["decided_at"] = tx.time
    if event == "approve" and execute_by is not None:
        fields["execute_by"] = to_text(execute_by)
    if event == "claim" and executor is not None:
        fields["executor"], fields["executor_call"] = executor
    if event == "release":
        fields["executor"] = fields["executor_call"] = None
    if state in ENDED:
        fields |= {"ended_at": tx.time, "ended_reason": reason, "confirm_value": None}
        tx.db.execute("DELETE FROM requests WHERE approval = ?", (approval.id,))
        limits.give_back(tx.db, approval.call)  # what was sent is not touched
    assignments = ", ".join(f"{name} = ?" for name in fields)
    tx.db.execute(
        f"UPDATE approvals SET {assignments} WHERE id = ?",  # noqa: S608 - names from above
        (*fields.values(), approval.id),
    )


def is_sent(db: sqlite3.Connection, call: str) -> bool:
    """Whether the ledger has the call as sent, and no result of it yet."""
    return db.execute("SELECT 1 FROM inflight WHERE call = ?", (call,)).fetchone() is not None


def sealed_request(db: sqlite3.Connection, approval: str) -> bytes | None:
    """The sealed request; None once the approval has ended."""
    row = db.execute("SELECT sealed FROM requests WHERE approval = ?", (approval,)).fetchone()
    return None if row is None else bytes(row[0])


def _select(db: sqlite3.Connection, where: str, parameters: tuple[Any, ...]) -> list[Approval]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE {where}",  # noqa: S608 - constants from this module
        parameters,
    ).fetchall()
    return [_approval(db, row) for row in rows]


def _approval(db: sqlite3.Connection, row: Any) -> Approval:
    votes = db.execute(
        # A vote stays what it was once the decision is made; before, its voter must have been
        # able to vote all the while.
        "SELECT v.user, v.role, v.groups, v.decision, v.reason, v.at,"
        " v.decision = 'deny' OR ? <> 'pending' OR (u.disabled_at IS NULL AND u.role <> 'viewer'"
        " AND (u.votes_from IS NULL OR v.at >= u.votes_from))"
        " FROM votes v LEFT JOIN users u ON u.name = v.user WHERE v.approval = ?"
        " ORDER BY v.at, v.user",
        (row[1], row[0]),
    ).fetchall()
    return Approval(
        id=row[0],
        state=row[1],
        agent=row[2],
        call=row[3],
        join_key=bytes(row[4]),
        digest=bytes(row[5]),
        basis=row[6],
        policy_version=row[7],
        requirement=Requirement.from_json(json.loads(row[8])),
        card=json.loads(row[9]),
        confirm_value=row[10],
        opened_at=to_moment(row[11]),
        decide_by=to_moment(row[12]),
        decided_at=optional_moment(row[13]),
        execute_by=optional_moment(row[14]),
        ended_at=optional_moment(row[15]),
        ended_reason=row[16],
        executor=row[17],
        executor_call=row[18],
        votes=tuple(
            Vote(v[0], v[1], tuple(json.loads(v[2])), v[3], v[4], to_moment(v[5]), bool(v[6]))
            for v in votes
        ),
    )
