"""The ledger's read side: the last records, a search, one call or approval with all its records.

Every function takes a connection (see audit.reading.open_ledger) and reads only. Records are given
as they stand; whether they are whole is verify()'s business. All raise Unreadable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from audit.errors import NotCanonical, Unreadable
from audit.filters import Filter
from audit.reading import COLUMNS, parse_json, reading, record_of
from audit.record import Record, canonical_json
from audit.schema import FREQUENT, RARE

_APPROVAL = "json_extract(data, '$.approval')"
_HOST = "coalesce(json_extract(data, '$.what.host'), json_extract(data, '$.host'))"
EVERYTHING = Filter()
_TERMS = {
    "agent": "agent = ?",
    "approval": f"{_APPROVAL} = ?",
    "host": f"{_HOST} = ?",
    "port": "coalesce(json_extract(data, '$.what.port'), json_extract(data, '$.port')) = ?",
    "method": "json_extract(data, '$.what.method') = ?",
    "path": "substr(json_extract(data, '$.what.path'), 1, length(?)) = ?",
    "rule": "EXISTS (SELECT 1 FROM json_each(data, '$.rules') WHERE value = ?)",
    "shadow": "(json_extract(data, '$.shadow.effect') = ? OR EXISTS (SELECT 1 FROM"
    " json_each(data, '$.shadow.rules') WHERE json_extract(value, '$.rule') = ?))",
    "code": "json_extract(data, '$.code') = ?",
    "reviewer": f"type = 'approval.voted' AND {RARE} AND json_extract(data, '$.user') = ?",
    "secret": "(json_extract(data, '$.ref') = ? OR EXISTS (SELECT 1 FROM"
    " json_each(data, '$.secrets') WHERE json_extract(value, '$.ref') = ?))",
    "since": "time >= ?",
    "until": "time < ?",
    "text": "instr(lower(data), lower(?)) > 0",
}
"""For each field of a filter the records that say it; what is given is bound at every mark."""
_BROUGHT_ABOUT = {
    "completed": ("call.completed",),
    "denied": ("call.denied",),
    "pending": ("approval.opened", "approval.joined"),
    "sent": ("call.sent",),
    "failed": ("call.failed",),
    "unknown": ("call.unknown",),
    "tunnel": ("tunnel.opened", "tunnel.closed"),
}
"""Other outcomes are states in which an approval ended."""


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
    wanted: Filter = EVERYTHING,
    *,
    type: str | None = None,  # noqa: A002 - the field's name
    call: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[Record]:
    """Records that say themselves what is wanted, newest first.

    `type` without a dot means all of its kind (`call`). An outcome is looked for in the record that
    brought it about, a reviewer in the votes, a text in all of the data. `before` is a `seq`: for
    the next page, that of the last record of this one.
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
        if not any(frequent == type or frequent.startswith(f"{type}.") for frequent in FREQUENT):
            where(RARE)
    if call is not None:
        where("call = ?", call)
    for name, term in _TERMS.items():
        if (value := getattr(wanted, name)) is not None:
            where(term, *[value] * term.count("?"))
    if wanted.outcome is not None:
        kinds = _BROUGHT_ABOUT.get(wanted.outcome)
        if kinds is None:
            where(
                f"type = 'approval.resolved' AND {RARE} AND json_extract(data, '$.state') = ?",
                wanted.outcome,
            )
        else:
            where(f"type IN ({', '.join('?' * len(kinds))})", *kinds)
            if not any(kind in FREQUENT for kind in kinds):
                where(RARE)
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
