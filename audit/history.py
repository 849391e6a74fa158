"""Calls at a glance, searchable: an index folded from the ledger, in a file of its own.

It is a copy for looking things up and proves nothing; the ledger is the truth, and a call's page
shows its records. It costs the writers of the ledger nothing, follows the ledger in small steps,
and is made anew whenever it does not belong to it. Deleting the file loses nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from audit.errors import Unreadable
from audit.filters import Filter
from audit.reading import open_ledger, reading

VERSION = 1
"""Of the tables below: another one in the file, and it is made anew."""
STEP = 2000
"""Records that one step of following takes in: less than a tenth of a second."""
FIRST_WINDOW, LARGEST_WINDOW = 5_000, 500_000
BUDGET = 2_000_000
"""Records back that one search looks; then it says where to go on."""

SCHEMA = """
CREATE TABLE place (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE TABLE calls (
  seq INTEGER PRIMARY KEY,           -- of its first record
  call TEXT NOT NULL UNIQUE,
  agent TEXT,
  started TEXT NOT NULL,
  method TEXT,
  scheme TEXT,
  host TEXT,
  port INTEGER,
  path TEXT,
  outcome TEXT NOT NULL,
  code TEXT,
  status INTEGER,
  rules TEXT NOT NULL,               -- JSON list
  approval TEXT,
  risk TEXT,
  duration_ms INTEGER,
  words TEXT NOT NULL,               -- what text is looked for in, case-folded
  waits INTEGER NOT NULL             -- 1: its outcome is its approval's state
) STRICT;
CREATE INDEX calls_agent ON calls(agent, seq);
CREATE INDEX calls_host ON calls(host, seq);
CREATE INDEX calls_outcome ON calls(outcome, seq);
CREATE INDEX calls_code ON calls(code, seq) WHERE code IS NOT NULL;
CREATE INDEX calls_approval ON calls(approval) WHERE approval IS NOT NULL;
CREATE INDEX calls_started ON calls(started);
CREATE TABLE marks (
  kind TEXT NOT NULL,                -- rule, secret
  value TEXT NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (kind, value, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE approvals (
  approval TEXT PRIMARY KEY,
  what TEXT NOT NULL,                -- JSON: what calls that joined know of their request
  state TEXT
) STRICT;
CREATE TABLE votes (
  approval TEXT NOT NULL,
  user TEXT NOT NULL,
  PRIMARY KEY (approval, user)
) STRICT, WITHOUT ROWID;
"""
_OUTCOMES = {
    "approval.opened": "pending",
    "approval.joined": "pending",
    "secret.read": "pending",
    "call.denied": "denied",
    "call.sent": "sent",
    "call.completed": "completed",
    "call.failed": "failed",
    "call.unknown": "unknown",
    "tunnel.opened": "tunnel",
    "tunnel.closed": "tunnel",
}
# Damaged, no database at all, or without our tables: it is only a copy, and is made anew.
_NOT_OURS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_WAITING = ("approval.opened", "approval.joined")
_SHOWN = (
    "call, agent, started, method, scheme, host, port, path, outcome, code, status, rules,"
    " approval, risk, duration_ms, seq"
)


@dataclass(frozen=True, slots=True)
class CallSummary:
    """One call, folded from its records and those of its approval. None: not known (yet)."""

    call: str
    agent: str | None
    started: str
    """Time of its first record."""
    method: str | None
    scheme: str | None
    host: str | None
    port: int | None
    path: str | None
    outcome: str
    """One of audit.filters.OUTCOMES."""
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


@dataclass(frozen=True, slots=True)
class Found:
    """A page of calls, newest first."""

    calls: tuple[CallSummary, ...]
    next: int | None
    """The `before` with which to go on, None at the end. There may be fewer calls than asked for,
    even none, and a `next`: so far back it looked."""
    behind: int
    """Records of the ledger that are not in the index yet."""


class History:
    """The index in the file `index` over the ledger in the file `ledger`."""

    def __init__(self, ledger: Path, index: Path) -> None:
        self._ledger, self._index = ledger, index
        self._lock = threading.Lock()

    # Following

    def follow(self, most: int = STEP) -> int:
        """Takes in up to `most` further records; how many are left. Raises Unreadable."""
        with self._lock, closing(open_ledger(self._ledger)) as ledger:
            try:
                return self._step(ledger, most)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _NOT_OURS:
                    raise Unreadable(f"{self._index} cannot be written: {error}") from error
                self._discard()
            with reading(str(self._index)):
                return self._step(ledger, most)

    def _step(self, ledger: sqlite3.Connection, most: int) -> int:
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            seq = self._place(db, ledger)
            fold = _Fold(db)
            end: tuple[int, str] | None = None
            with reading("the ledger"):
                newest = ledger.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()[0]
                rows = ledger.execute(
                    "SELECT seq, time, type, call, agent, data, hash FROM ledger"
                    " WHERE seq > ? ORDER BY seq LIMIT ?",
                    (seq, most),
                )
            for row in _reading_on(rows):
                fold.take(*row[:6])
                end = (row[0], row[6])
            fold.flush()
            if end is not None:
                db.execute("UPDATE place SET seq = ?, hash = ?", end)
            db.execute("COMMIT")
            return max(0, int(newest) - (seq if end is None else end[0]))

    def _open(self) -> sqlite3.Connection:
        # Nobody else's business: it has hosts, paths and summaries.
        os.close(os.open(self._index, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._index, isolation_level=None, timeout=5.0)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            db.close()
            raise
        return db

    def _place(self, db: sqlite3.Connection, ledger: sqlite3.Connection) -> int:
        """How far the index goes; 0, and empty, if it is of another version or another ledger."""
        known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'place'").fetchone()
        if known is not None:
            version, seq, hash_ = db.execute("SELECT version, seq, hash FROM place").fetchone()
            with reading("the ledger"):
                here = ledger.execute("SELECT hash FROM ledger WHERE seq = ?", (seq,)).fetchone()
            if version == VERSION and (seq == 0 or (here is not None and here[0] == hash_)):
                return int(seq)
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f'DROP TABLE "{name}"')
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO place VALUES (1, ?, 0, '')", (VERSION,))
        return 0

    def _discard(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._index.with_name(self._index.name + suffix).unlink()

    # Searching

    def search(self, wanted: Filter, *, limit: int, before: int | None = None) -> Found:
        """Calls whose first record comes before number `before`, newest first.

        Takes in one step of what is new first, so that a ledger in slow motion is never behind.
        Raises Unreadable.
        """
        behind = self.follow()
        with self._reader() as db:
            top = db.execute("SELECT coalesce(max(seq), 0) + 1 FROM calls").fetchone()[0]
            high = top if before is None else min(before, top)
            low, high = _by_time(db, wanted, high)
            floor = max(low, high - BUDGET)
            found: list[CallSummary] = []
            window = FIRST_WINDOW
            while high > floor and len(found) < limit:
                bottom = max(floor, high - window)
                found += _window(db, wanted, bottom, high, limit - len(found))
                high, window = bottom, min(window * 4, LARGEST_WINDOW)
        if len(found) == limit and limit:
            following: int | None = found[-1].seq
        else:
            following = high if high > low else None
        return Found(tuple(found), following, behind)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with (
            reading(str(self._index)),
            closing(
                sqlite3.connect(
                    f"{self._index.absolute().as_uri()}?mode=ro",
                    uri=True,
                    isolation_level=None,
                    timeout=5.0,
                )
            ) as db,
        ):
            yield db


def _reading_on(rows: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    """The rows one at a time; what fails in them is the ledger, not the index."""
    while True:
        with reading("the ledger"):
            row = rows.fetchone()
        if row is None:
            return
        yield row


def _by_time(db: sqlite3.Connection, wanted: Filter, high: int) -> tuple[int, int]:
    """(low, high) narrowed to where the times can be. A day of slack: clocks are set back."""
    low = 1
    if wanted.since is not None:
        row = db.execute(
            "SELECT seq FROM calls WHERE started >= ? ORDER BY started LIMIT 1",
            (_shifted(wanted.since, -1),),
        ).fetchone()
        low = high if row is None else int(row[0])
    if wanted.until is not None:
        row = db.execute(
            "SELECT seq FROM calls WHERE started < ? ORDER BY started DESC LIMIT 1",
            (_shifted(wanted.until, 1),),
        ).fetchone()
        high = low if row is None else min(high, int(row[0]) + 1)
    return low, high


def _shifted(time: str, days: int) -> str:
    """`time`, so many days on; itself at the ends of the calendar."""
    try:
        moment = datetime.fromisoformat(time) + timedelta(days=days)
    except OverflowError:
        return time
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _window(
    db: sqlite3.Connection, wanted: Filter, low: int, high: int, limit: int
) -> list[CallSummary]:
    terms: list[str] = ["seq >= ?", "seq < ?"]
    values: list[object] = [low, high]

    def where(term: str, *given: object) -> None:
        terms.append(term)
        values.extend(given)

    for name in ("agent", "outcome", "host", "port", "method", "code", "approval"):
        if (value := getattr(wanted, name)) is not None:
            where(f"{name} = ?", value)
    if wanted.path is not None:
        where("substr(path, 1, ?) = ?", len(wanted.path), wanted.path)
    for kind in ("rule", "secret"):
        if (value := getattr(wanted, kind)) is not None:
            where(
                "seq IN (SELECT seq FROM marks WHERE kind = ? AND value = ?"
                " AND seq >= ? AND seq < ?)",
                kind,
                value,
                low,
                high,
            )
    if wanted.reviewer is not None:
        where(
            "EXISTS (SELECT 1 FROM votes WHERE approval = calls.approval AND user = ?)",
            wanted.reviewer,
        )
    if wanted.since is not None:
        where("started >= ?", wanted.since)
    if wanted.until is not None:
        where("started < ?", wanted.until)
    if wanted.text is not None:
        where("instr(words, ?) > 0", wanted.text.casefold())
    # Names and terms are made of constants in this module; what comes from outside is bound.
    rows = db.execute(
        f"SELECT {_SHOWN} FROM calls WHERE {' AND '.join(terms)}"  # noqa: S608
        " ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
    return [_summary(row) for row in rows]


def _summary(row: tuple[Any, ...]) -> CallSummary:
    fields = list(row)
    fields[11] = tuple(json.loads(fields[11]))
    return CallSummary(*fields)


@dataclass(slots=True)
class _Row:
    """A call while its records are taken in."""

    seq: int
    call: str
    agent: str | None
    started: str
    method: str | None = None
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    outcome: str = "pending"
    code: str | None = None
    status: int | None = None
    rules: str = "[]"
    approval: str | None = None
    risk: str | None = None
    duration_ms: int | None = None
    words: str = ""
    waits: int = 0


_COLUMNS = ", ".join(_Row.__dataclass_fields__)
_MARKS = ", ".join("?" for _ in _Row.__dataclass_fields__)


@dataclass(slots=True)
class _Fold:
    """Takes records in, in order. What it knows beyond the tables ends with the transaction."""

    db: sqlite3.Connection
    rows: dict[str, _Row] = field(default_factory=dict)
    marks: list[tuple[str, str, int]] = field(default_factory=list)

    def take(
        self, seq: int, time: str, kind: str, call: str | None, agent: str | None, text: str
    ) -> None:
        """One record. A spoilt one is taken for empty: it is verify() that speaks of those."""
        if kind not in _OUTCOMES and not kind.startswith("approval."):
            return
        data = _object(text)
        approval = _text(data, "approval")
        if kind == "approval.opened" and approval is not None:
            known = {name: data.get(name) for name in ("what", "rules", "risk", "summaries")}
            self.db.execute(
                "INSERT OR REPLACE INTO approvals VALUES (?, ?, NULL)",
                (approval, json.dumps(known)),
            )
        elif kind == "approval.voted" and approval is not None:
            vote = (approval, _text(data, "user") or "")
            self.db.execute("INSERT OR IGNORE INTO votes VALUES (?, ?)", vote)
        elif kind == "approval.resolved" and approval is not None:
            self._resolve(approval, _text(data, "state") or "pending")
        if call is not None and kind in _OUTCOMES:
            self._tell(self._row(seq, time, call, agent), kind, data, approval)

    def _resolve(self, approval: str, state: str) -> None:
        for row in self.rows.values():
            if row.waits and row.approval == approval:
                row.outcome = state
        self.db.execute("UPDATE approvals SET state = ? WHERE approval = ?", (state, approval))
        self.db.execute(
            "UPDATE calls SET outcome = ? WHERE approval = ? AND waits = 1", (state, approval)
        )

    def _row(self, seq: int, time: str, call: str, agent: str | None) -> _Row:
        row = self.rows.get(call)
        if row is None:
            found = self.db.execute(
                f"SELECT {_COLUMNS} FROM calls WHERE call = ?",  # noqa: S608 - names from above
                (call,),
            ).fetchone()
            row = self.rows[call] = _Row(seq, call, agent, time) if found is None else _Row(*found)
        return row

    def _tell(self, row: _Row, kind: str, data: dict[str, object], approval: str | None) -> None:
        if kind != "secret.read":
            row.outcome = _OUTCOMES[kind]
            row.waits = int(kind in _WAITING)
        if approval is not None and approval != row.approval:
            row.approval = approval
            self._inherit(row, approval)
        if row.waits and row.approval is not None and (state := self._state(row.approval)):
            row.outcome = state
        self._describe(row, data)
        row.code = _text(data, "code") or row.code
        row.status = _number(data, "status", row.status)
        row.duration_ms = _number(data, "duration_ms", row.duration_ms)
        if row.outcome == "denied" and row.code == "approval_expired":
            row.outcome = "expired"
        if row.outcome == "tunnel":
            row.method = "CONNECT"
            row.host = _text(data, "host") or row.host
            row.port = _number(data, "port", row.port)
        for one in _list(data, "secrets"):
            if isinstance(one, dict) and isinstance(one.get("ref"), str):
                self.marks.append(("secret", one["ref"], row.seq))

    def _inherit(self, row: _Row, approval: str) -> None:
        """What the call knows by the approval that it opened or joined."""
        found = self.db.execute(
            "SELECT what FROM approvals WHERE approval = ?", (approval,)
        ).fetchone()
        if found is not None:
            self._describe(row, _object(found[0]))

    def _state(self, approval: str) -> str | None:
        found = self.db.execute(
            "SELECT state FROM approvals WHERE approval = ?", (approval,)
        ).fetchone()
        return None if found is None else found[0]

    def _describe(self, row: _Row, data: dict[str, object]) -> None:
        what = data.get("what")
        words = [text for text in _list(data, "summaries") if isinstance(text, str)]
        if isinstance(what, dict):
            row.method, row.scheme = _text(what, "method"), _text(what, "scheme")
            row.host, row.port = _text(what, "host"), _number(what, "port", None)
            row.path = _text(what, "path")
            words.append(row.path or "")
        words.append(_text(data, "sentence") or "")
        row.risk = _text(data, "risk") or row.risk
        rules = [rule for rule in _list(data, "rules") if isinstance(rule, str)]
        if rules:
            row.rules = json.dumps(rules)
            self.marks += [("rule", rule, row.seq) for rule in rules]
        for word in words:
            if word and (folded := word.casefold()) not in row.words:
                row.words = f"{row.words}\n{folded}" if row.words else folded

    def flush(self) -> None:
        """Writes what was told of calls into the tables."""
        self.db.executemany(
            f"INSERT OR REPLACE INTO calls ({_COLUMNS}) VALUES ({_MARKS})",  # noqa: S608
            [
                tuple(getattr(row, name) for name in _Row.__dataclass_fields__)
                for row in self.rows.values()
            ],
        )
        self.db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", self.marks)
        self.rows.clear()
        self.marks.clear()


def _object(text: object) -> dict[str, object]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(data: dict[str, object], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None


def _number(data: dict[str, object], name: str, default: int | None) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _list(data: dict[str, object], name: str) -> list[object]:
    value = data.get(name)
    return value if isinstance(value, list) else []
