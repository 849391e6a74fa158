"""Ledgers to test on: a good one with every turn a call can take, and the means to spoil a copy."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from audit.head import head_mac
from audit.journal import Journal
from audit.record import GENESIS, JSON, Draft, canonical_json, digest
from audit.schema import LEDGER_V1, LEDGER_V2

KEY = b"k" * 32
START = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)


def ticking() -> Callable[[], datetime]:
    """A clock that goes one second a look."""
    now = START

    def clock() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        return now

    return clock


def create(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(LEDGER_V1 + LEDGER_V2)
    return path


def write(path: Path, drafts: Iterable[Draft]) -> Path:
    """Appends each draft in a transaction of its own, so that each has its own second."""
    journal = Journal(path, clock=ticking(), head_key=KEY, linger=0, max_batch=1)
    futures = [journal.commit(lambda tx, d=draft: tx.append(d)) for draft in drafts]
    journal.close()
    for future in futures:
        future.result()
    return path


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who can write the file: the guards are off, and back on after."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        guards = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DROP INDEX IF EXISTS ledger_approval")
        yield db
        for _, sql in guards:
            db.execute(sql)


def rechain(db: sqlite3.Connection, key: bytes | None) -> None:
    """Numbers and links every record anew, so that the chain holds; with `key` the head as well."""
    prev = GENESIS
    rows = db.execute(
        "SELECT seq, time, type, call, agent, data FROM ledger ORDER BY seq"
    ).fetchall()
    db.execute("BEGIN")
    db.execute("DELETE FROM ledger")
    for seq, (_, time, kind, call, agent, data) in enumerate(rows, 1):
        link = digest(
            seq=seq, time=time, kind=kind, call=call, agent=agent, data=data.encode(), prev=prev
        )
        db.execute(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, time, kind, call, agent, data, prev, link),
        )
        prev = link
    if key is None:
        db.execute("UPDATE ledger_head SET seq = ?, hash = ?", (len(rows), prev))
    else:
        mac = head_mac(key, len(rows), prev)
        db.execute("UPDATE ledger_head SET seq = ?, hash = ?, mac = ?", (len(rows), prev, mac))
    db.execute("COMMIT")


def set_data(db: sqlite3.Connection, seq: int, **changes: JSON) -> None:
    """Changes members of one record's data, keeping it canonical."""
    (text,) = db.execute("SELECT data FROM ledger WHERE seq = ?", (seq,)).fetchone()
    data = canonical_json({**json.loads(text), **changes}).decode()
    db.execute("UPDATE ledger SET data = ? WHERE seq = ?", (data, seq))


# The good ledger

CREATED = Draft("ledger.created")
WHAT: Mapping[str, JSON] = {
    "method": "POST",
    "scheme": "https",
    "host": "api.stripe.com",
    "port": 443,
    "path": "/v1/refunds",
}
SECRETS: JSON = [{"name": "stripe", "ref": "kv/stripe#api_key", "version": 3}]


def requirement(
    *quorum: tuple[str, int, list[str] | None],
    excluded: Iterable[str] = ("olga",),
    denials: int = 1,
    reason: str = "optional",
    confirm: str = "none",
) -> Mapping[str, JSON]:
    return {
        "tiers": [
            {
                "tier": "high",
                "quorum": [{"group": g, "count": c, "members": m} for g, c, m in quorum],
            }
        ],
        "excluded": list(excluded),
        "denials": denials,
        "reason": reason,
        "confirm": confirm,
        "decide_within": 900,
        "execute_within": 300,
    }


TWO = requirement(("any", 2, None))


def opened(
    approval: str,
    call: str,
    needs: JSON = TWO,
    *,
    agent: str = "bot",
    request: str = "r1",
) -> Draft:
    return Draft(
        "approval.opened",
        {
            "approval": approval,
            "what": WHAT,
            "request": request,
            "requirement": needs,
            "risk": "high",
            "rules": ["stripe-refund"],
            "after": None,
        },
        call,
        agent,
    )


def joined(approval: str, call: str, agent: str = "bot") -> Draft:
    return Draft("approval.joined", {"approval": approval}, call, agent)


def voted(approval: str, user: str, decision: str = "approve", **more: JSON) -> Draft:
    data: dict[str, JSON] = {
        "approval": approval,
        "user": user,
        "role": "approver",
        "groups": [],
        "decision": decision,
        "reason": None,
        "request": "r1",
        "confirmed": False,
    }
    return Draft("approval.voted", data | more, None, "bot")


def resolved(approval: str, state: str = "approved", *by: str) -> Draft:
    data: Mapping[str, JSON] = {"approval": approval, "state": state, "by": by, "reason": None}
    return Draft("approval.resolved", data, None, "bot")


def secret_read(call: str, approval: str | None = None) -> Draft:
    return Draft("secret.read", {"secrets": SECRETS, "approval": approval}, call, "bot")


def sent(
    call: str,
    approval: str | None = None,
    votes: Iterable[str] = (),
    *,
    agent: str = "bot",
    request: str = "r1",
) -> Draft:
    return Draft(
        "call.sent",
        {
            "what": WHAT,
            "request": request,
            "body": "bb" * 32,
            "body_size": 10,
            "rules": ["stripe-refund"],
            "policy": 1,
            "approval": approval,
            "votes": list(votes),
            "secrets": SECRETS,
        },
        call,
        agent,
    )


def completed(call: str, status: int = 200) -> Draft:
    return Draft("call.completed", {"status": status, "duration_ms": 12}, call, "bot")


def failed(call: str, *, was_sent: bool) -> Draft:
    data: Mapping[str, JSON] = {
        "code": "upstream_unreachable",
        "sent": was_sent,
        "sentence": "The upstream could not be reached.",
        "duration_ms": 7,
    }
    return Draft("call.failed", data, call, "bot")


def unknown(call: str) -> Draft:
    return Draft("call.unknown", {"sentence": "The worker died."}, call, "bot")


def denied(call: str, code: str = "policy_denied") -> Draft:
    return Draft(
        "call.denied", {"what": WHAT, "code": code, "sentence": "No.", "rules": ["no"]}, call, "bot"
    )


def approved(approval: str, call: str, *users: str) -> list[Draft]:
    """Opened, voted on, approved."""
    return [
        opened(approval, call),
        *(voted(approval, user) for user in users),
        resolved(approval, "approved", *users),
    ]


# The first 12 are what most tests spoil: seq 1 created, 2 opened, 3 and 4 votes, 5 resolved,
# 6 secret read, 7 sent, 8 completed.
GOOD: list[Draft] = [
    CREATED,
    *approved("a1", "c1", "alice", "bob"),
    secret_read("c1", "a1"),
    sent("c1", "a1", ["alice", "bob"]),
    completed("c1"),
    Draft("agent.added", {"agent": "bot", "by": "cli:root"}, None, "bot"),
    denied("c2"),
    # Allowed at once.
    secret_read("c3"),
    sent("c3"),
    completed("c3", 404),
    # Denied, and asked again while that is remembered.
    opened("a2", "c4"),
    voted("a2", "alice", "deny"),
    resolved("a2", "denied", "alice"),
    joined("a2", "c5"),
    denied("c5", "approval_denied"),
    # Nobody decided; somebody decided too late to be executed.
    opened("a3", "c6"),
    resolved("a3", "expired"),
    *approved("a4", "c7", "alice", "bob"),
    resolved("a4", "expired"),
    # Overtaken by a policy that allows it outright.
    opened("a5", "c8"),
    resolved("a5", "superseded"),
    sent("c8"),
    unknown("c8"),
    # Unreachable without a byte sent, and again by a call that had joined: not used up.
    *approved("a6", "c9", "alice", "bob"),
    joined("a6", "c10"),
    sent("c9", "a6", ["alice", "bob"]),
    failed("c9", was_sent=False),
    sent("c10", "a6", ["alice", "bob"]),
    failed("c10", was_sent=True),
    Draft("tunnel.opened", {"host": "pypi.org", "port": 443, "rules": ["t"]}, "c11", "bot"),
    Draft("tunnel.closed", {"sent_bytes": 1, "received_bytes": 2, "duration_ms": 3}, "c11", "bot"),
    opened("a7", "c12"),
    voted("a7", "alice"),
    sent("c13"),
    Draft("agent.revoked", {"agent": "bot", "by": "cli:root"}, None, "bot"),
    completed("c13"),
]
