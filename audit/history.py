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
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from audit.errors import Unreadable
from audit.filters import Filter
from audit.fold import SCHEMA, VERSION, Fold
from audit.reading import open_ledger, reading

STEP = 2000
"""Records that one step of following takes in: less than a tenth of a second."""
FIRST_WINDOW, LARGEST_WINDOW = 5_000, 500_000
BUDGET = 2_000_000
"""Records back that one search looks; then it says where to go on."""

# Damaged, no database at all, or without our tables: it is only a copy, and is made anew.
_NOT_OURS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
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
            fold = Fold(db)
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
    for kind in ("rule", "secret", "shadow"):
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
