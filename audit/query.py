"""The ledger's read side: the last records, a search, one call or approval, calls at a glance.

Every function takes a connection (see audit.reading.open_ledger) and reads only. Records are given
as they stand; whether they are whole is verify()'s business. All raise Unreadable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from audit.errors import NotCanonical, Unreadable
from audit.reading import COLUMNS, parse_json, reading, record_of
from audit.record import Record, canonical_json, timestamp

_APPROVAL = "json_extract(data, '$.approval')"
_HOST = "coalesce(json_extract(data, '$.what.host'), json_extract(data, '$.host'))"
_PAGE = 200


@dataclass(frozen=True, slots=True)
class CallSummary:
    """One call, folded from its records and those of its approval. None: not known (yet)."""

    call: str
    agent: str | None
    started: str
    """Time of its first record."""
    method: str | None
    host: str | None
    path: str | None
    outcome: str
    """denied, expired, superseded, pending, approved, sent, completed, failed, unknown, tunnel."""
    code: str | None
    """The contract's code where the call was refused or failed."""
    status: int | None
    """The upstream's."""
    rules: tuple[str, ...]
    approval: str | None
    risk: str | None
    duration_ms: int | None
    seq: int
    """Of its first record; the `before` of the next page."""


def tail(db: sqlite3.Connection, n: int) -> list[Record]:
    """The last `n` records, oldest first."""
    return _select(db, "ORDER BY seq DESC LIMIT ?", (n,))[::-1]


def after(db: sqlite3.Connection, seq: int, limit: int = 1000) -> list[Record]:
    """Up to `limit` records that follow number `seq`, oldest first: to follow a growing ledger."""
    return _select(db, "WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))


def export(db: sqlite3.Connection) -> Iterator[Record]:
    """All records, oldest first, one at a time, as of the moment of the first."""
    return _records(db, "ORDER BY seq", ())


def export_jsonl(records: Iterable[Record]) -> Iterator[str]:
    """One line a record, in canonical JSON, its newline included; see verify_jsonl()."""
    for record in records:
        line = canonical_json(
            {
                "seq": record.seq,
                "time": record.time,
                "type": record.type,
                "call": record.call,
                "agent": record.agent,
                "data": record.data,
                "prev": record.prev,
                "hash": record.hash,
            }
        )
        yield line.decode() + "\n"


def search(
    db: sqlite3.Connection,
    *,
    type: str | None = None,  # noqa: A002 - the field's name
    agent: str | None = None,
    call: str | None = None,
    approval: str | None = None,
    host: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[Record]:
    """Records for which all that is given holds, newest first.

    `type` without a dot means all of its kind (`call`). `since` is included, `until` is not; both
    are aware. `text` is looked for in the data, ignoring the case of ASCII letters. `before` is a
    `seq`: for the next page, that of the last record of this one.
    """
    terms: list[str] = []
    values: list[object] = []

    def where(term: str, *given: object) -> None:
        terms.append(term)
        values.extend(given)

    if type is not None:
        if "." in type:
            where("type = ?", type)
        else:
            where("type >= ? AND type < ?", f"{type}.", f"{type}/")  # "/" follows "." in ASCII
    if agent is not None:
        where("agent = ?", agent)
    if call is not None:
        where("call = ?", call)
    if approval is not None:
        where(f"{_APPROVAL} = ?", approval)
    if host is not None:
        where(f"{_HOST} = ?", host)
    if since is not None:
        where("time >= ?", timestamp(since))
    if until is not None:
        where("time < ?", timestamp(until))
    if text is not None:
        where("instr(lower(data), lower(?)) > 0", text)
    if before is not None:
        where("seq < ?", before)
    condition = f"WHERE {' AND '.join(terms)} " if terms else ""
    return _select(db, f"{condition}ORDER BY seq DESC LIMIT ?", (*values, limit))


def show(db: sqlite3.Connection, id_: str) -> list[Record]:
    """The whole story of a call, or of an approval and all calls under it, oldest first.

    Empty if nothing is known by this id.
    """
    own = _select(db, "WHERE call = ? ORDER BY seq", (id_,))
    approvals = dict.fromkeys(a for record in own if (a := _approval(record)) is not None)
    found = {record.seq: record for record in own}
    for approval in approvals or (id_,):
        for record in _select(db, f"WHERE {_APPROVAL} = ? ORDER BY seq", (approval,)):
            found[record.seq] = record
    if not own:  # an approval: the results of its calls do not name it
        for call in dict.fromkeys(r.call for r in found.values() if r.type == "call.sent"):
            for record in _select(db, "WHERE call = ? ORDER BY seq", (call,)):
                found[record.seq] = record
    return [found[seq] for seq in sorted(found)]


def calls(
    db: sqlite3.Connection,
    *,
    agent: str | None = None,
    outcome: str | None = None,
    host: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
    before: int | None = None,
) -> list[CallSummary]:
    """Calls whose first record comes before number `before`, newest first."""
    found: list[CallSummary] = []
    edge = 2**63 - 1 if before is None else before
    earliest = "" if since is None else timestamp(since)
    while len(found) < limit:
        firsts = _select(
            db,
            "AS l WHERE call IS NOT NULL AND seq < ? AND time >= ? AND (? IS NULL OR agent = ?)"
            " AND NOT EXISTS (SELECT 1 FROM ledger AS e WHERE e.call = l.call AND e.seq < l.seq)"
            " ORDER BY seq DESC LIMIT ?",
            (edge, earliest, agent, agent, _PAGE),
        )
        for first in firsts:
            summary = _fold(db, first)
            if outcome in (None, summary.outcome) and host in (None, summary.host):
                found.append(summary)
                if len(found) == limit:
                    break
        if len(firsts) < _PAGE:
            break
        edge = firsts[-1].seq
    return found


_OUTCOMES = {
    "approval.opened": "pending",
    "approval.joined": "pending",
    "call.denied": "denied",
    "call.sent": "sent",
    "call.completed": "completed",
    "call.failed": "failed",
    "call.unknown": "unknown",
    "tunnel.opened": "tunnel",
    "tunnel.closed": "tunnel",
}


def _fold(db: sqlite3.Connection, first: Record) -> CallSummary:
    own = _select(db, "WHERE call = ? ORDER BY seq", (first.call,))
    # approval.resolved may carry the call that opened the approval; it is looked at below.
    own = [record for record in own if record.type in _OUTCOMES]
    approval = next((a for r in reversed(own) if (a := _approval(r)) is not None), None)
    outcome = _OUTCOMES[own[-1].type] if own else first.type
    about = own
    if approval is not None:
        its = _select(db, f"WHERE {_APPROVAL} = ? ORDER BY seq", (approval,))
        opened = [record for record in its if record.type == "approval.opened"]
        about = [*opened, *own]
        if outcome == "pending":
            states = [r.data.get("state") for r in its if r.type == "approval.resolved"]
            outcome = str(states[-1]) if states else outcome
    code = _last(own, "code", str)
    if outcome == "denied" and code == "approval_expired":
        outcome = "expired"
    tunnel = outcome == "tunnel"
    what = [r.data["what"] for r in about if isinstance(r.data.get("what"), dict)]
    place = what[-1] if what else next((r.data for r in own if tunnel), {})
    rules = next((r.data["rules"] for r in reversed(about) if r.data.get("rules")), ())
    return CallSummary(
        call=str(first.call),
        agent=first.agent,
        started=first.time,
        method="CONNECT" if tunnel else _field(place, "method"),
        host=_field(place, "host"),
        path=_field(place, "path"),
        outcome=outcome,
        code=code,
        status=_last(own, "status", int),
        rules=tuple(str(rule) for rule in rules) if isinstance(rules, list) else (),
        approval=approval,
        risk=_last(about, "risk", str),
        duration_ms=_last(own, "duration_ms", int),
        seq=first.seq,
    )


def _field(place: object, name: str) -> str | None:
    value = place.get(name) if isinstance(place, dict) else None
    return value if isinstance(value, str) else None


def _last[V](records: Sequence[Record], key: str, kind: type[V]) -> V | None:
    """The newest value of `key` that is a `kind`."""
    for record in reversed(records):
        value = record.data.get(key)
        if isinstance(value, kind):
            return value
    return None


def _approval(record: Record) -> str | None:
    value = record.data.get("approval")
    return value if isinstance(value, str) else None


def _select(db: sqlite3.Connection, rest: str, values: tuple[object, ...]) -> list[Record]:
    return list(_records(db, rest, values))


def _records(db: sqlite3.Connection, rest: str, values: tuple[object, ...]) -> Iterator[Record]:
    # `rest` is made of constants in this module; what comes from outside is bound.
    with reading("the ledger"):
        for row in db.execute(f"SELECT {COLUMNS} FROM ledger {rest}", values):  # noqa: S608
            fields = list(row)
            try:
                fields[5] = parse_json(fields[5])
                record = record_of(tuple(fields))
            except NotCanonical as odd:
                raise Unreadable(f"record {fields[0]} does not have its form: {odd}") from odd
            yield record
