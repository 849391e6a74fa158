"""Tells whether a ledger is whole, and if not, where and how it is broken.

One pass in order of `seq`, in bounded memory: every record's form, number, link and hash; what the
records say (audit.meaning); at the end the sealed head. It reads only, and works on a copy as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from audit.errors import NotCanonical, Unreadable
from audit.head import head_is_sealed
from audit.meaning import Fault, Story
from audit.reading import COLUMNS, open_ledger, parse_json, reading, record_of
from audit.record import GENESIS, MAX_DATA, Record, canonical_json, digest
from audit.schema import LEDGER_V1

__all__ = ["Fault", "Unreadable", "Verdict", "verify", "verify_jsonl"]

MOST_FAULTS = 100
"""How many faults are listed; the others are counted in a note."""
_LONGEST_LINE = 2 * MAX_DATA
_FIELDS = tuple(COLUMNS.split(", "))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. `notes` are worth knowing but no fault."""

    ok: bool
    records: int
    head: str
    """Hash of the last record, as it stands there; GENESIS if there is none."""
    faults: list[Fault]
    notes: list[str]


class _Entry(NamedTuple):
    """One row or line, taken apart."""

    seq: int
    record: Record | None
    """None if it does not have the form of a record; `hash` then says why not."""
    hash: str
    """What the record's hash should be."""


def verify(path: Path, *, head_key: bytes | None) -> Verdict:
    """Verifies the ledger in the SQLite file `path`.

    Without `head_key` the seal on the head cannot be checked, and a note says what that leaves
    open. Raises Unreadable if there is no ledger or the file is damaged beneath its records.
    """
    db = open_ledger(path)
    try:
        with reading(str(path)):
            db.text_factory = bytes  # what is not UTF-8 is a fault of one record, not of the file
            db.execute("BEGIN")  # one view of the ledger, however long this takes
            examined = _Examined(_rows(db))
            _check_head(db, head_key, examined)
            _check_guards(db, examined)
            return examined.verdict()
    finally:
        db.close()


def verify_jsonl(path: Path) -> Verdict:
    """Verifies an export: links and meaning. It has no head, so a cut tail does not show.

    Raises Unreadable if the file cannot be read or does not begin like an export.
    """
    try:
        with path.open("rb") as lines:
            examined = _Examined(_lines(lines, str(path)))
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    examined.notes.append(
        "an export has no sealed head: that its tail was cut, or all of it written anew, would"
        " not show; compare the hash of its last record with the ledger's"
    )
    return examined.verdict()


class _Examined:
    """The pass over the entries, and what it found."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.records = 0
        self.seq = 0
        """Of the last entry."""
        self.tip = GENESIS
        """Hash of the last entry, as it stands there."""
        self._more = 0
        self._clock = ""
        self._steps_back = 0
        with Story() as story:
            for entry in entries:
                self._take(entry, story)
            under_way = story.under_way
        if not self.records:
            self.fault(0, "origin", "there is no record, not even the ledger's creation")
        if under_way:
            self.notes.append(f"{under_way} calls were sent and have no result yet")
        if self._steps_back:
            self.notes.append(f"the clock went backwards {self._steps_back} times")

    def fault(self, seq: int, kind: str, sentence: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(seq, kind, sentence))
        else:
            self._more += 1

    def _take(self, entry: _Entry, story: Story) -> None:
        seq, record, true_hash = entry
        self.records += 1
        expected, self.seq = self.seq + 1, seq
        if seq != expected:
            self.fault(min(seq, expected), "gap", _gap(seq, expected))
        if record is None:
            self.fault(seq, "form", f"record {seq} does not have its form: {true_hash}")
            self.tip = ""
            return
        if record.hash != true_hash:
            self.fault(seq, "hash", f"record {seq} was changed: its hash is of something else")
        # After a gap or an entry without form there is nothing to link to; that has been said.
        if seq == expected and self.tip and record.prev != self.tip:
            self.fault(seq, "chain", f"record {seq} does not link to the record before it")
        self.tip = record.hash
        if (record.type == "ledger.created") != (seq == 1):
            self.fault(
                seq,
                "origin",
                "the first record is not the ledger's creation"
                if seq == 1
                else f"record {seq} creates the ledger anew",
            )
        self._steps_back += record.time < self._clock
        self._clock = record.time
        for fault in story.tell(record):
            self.fault(fault.seq, fault.kind, fault.sentence)

    def verdict(self) -> Verdict:
        if self._more:
            self.notes.append(f"{self._more} more faults are not listed")
        return Verdict(not self.faults, self.records, self.tip, self.faults, self.notes)


def _gap(seq: int, expected: int) -> str:
    if seq < expected:
        return f"record {seq} stands where record {expected} belongs"
    if seq == expected + 1:
        return f"record {expected} is missing"
    return f"records {expected} to {seq - 1} are missing"


def _rows(db: sqlite3.Connection) -> Iterator[_Entry]:
    """The entries of a database whose text comes as bytes."""
    last = 0
    for row in db.execute(f"SELECT {COLUMNS} FROM ledger ORDER BY seq"):  # noqa: S608
        last = row[0] if isinstance(row[0], int) else last + 1
        try:
            fields = [_decoded(value) for value in row]
            stored = fields[5]
            if not isinstance(stored, str):
                raise NotCanonical("data is not a text")
            fields[5] = parse_json(stored)
            entry = _entry(record_of(tuple(fields)), stored.encode())
        except NotCanonical as odd:
            entry = _Entry(last, None, str(odd))
        yield entry


def _lines(lines: BinaryIO, name: str) -> Iterator[_Entry]:
    """The entries of an export."""
    last, first = 0, True
    while line := lines.readline(_LONGEST_LINE):
        try:
            value = parse_json(line.decode())
            if not isinstance(value, dict) or value.keys() != set(_FIELDS):
                raise NotCanonical("it does not have the fields of a record")
            if line != canonical_json(value) + b"\n":
                raise NotCanonical("its line is not canonical JSON")
            record = record_of(tuple(value[field] for field in _FIELDS))
            entry = _entry(record, canonical_json(record.data))
        except (NotCanonical, UnicodeDecodeError) as odd:
            if first:
                raise Unreadable(f"{name} does not begin like an export: {odd}") from odd
            entry = _Entry(last + 1, None, str(odd))
        yield entry
        last, first = entry.seq, False


def _entry(record: Record, data: bytes) -> _Entry:
    """Raises NotCanonical if `data`, as it was stored, is not the canonical form."""
    if canonical_json(record.data) != data:
        raise NotCanonical("its data is not in canonical form")
    return _Entry(
        record.seq,
        record,
        digest(
            seq=record.seq,
            time=record.time,
            kind=record.type,
            call=record.call,
            agent=record.agent,
            data=data,
            prev=record.prev,
        ),
    )


def _decoded(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise NotCanonical("a field is not UTF-8") from error


def _check_head(db: sqlite3.Connection, head_key: bytes | None, examined: _Examined) -> None:
    try:
        rows = db.execute("SELECT seq, hash, mac FROM ledger_head").fetchall()
    except sqlite3.OperationalError:
        rows = []
    if len(rows) != 1:
        examined.fault(0, "head", f"the ledger has {len(rows) or 'no'} heads instead of one")
        return
    seq, tip, mac = (v.decode(errors="replace") if isinstance(v, bytes) else v for v in rows[0])
    if not isinstance(seq, int) or not isinstance(tip, str) or not isinstance(mac, str):
        examined.fault(0, "head", "the ledger's head does not have its form")
        return
    if seq > examined.seq:
        examined.fault(
            examined.seq + 1,
            "head",
            f"the ledger ends at record {examined.seq}, its head at {seq}: the tail was cut",
        )
    elif seq < examined.seq:
        examined.fault(
            seq + 1,
            "head",
            f"the head stands at record {seq}: what follows was not written by the journal",
        )
    elif tip != examined.tip and examined.tip:
        examined.fault(seq, "head", "the last record is not the one that the head names")
    if head_key is None:
        examined.notes.append(
            "without the workspace's key the seal on the head was not checked: a cut tail, or a"
            " chain written anew, would not show"
        )
    elif not head_is_sealed(head_key, seq, tip, mac):
        examined.fault(seq, "head", "the head does not bear this workspace's seal")


def _check_guards(db: sqlite3.Connection, examined: _Examined) -> None:
    """Whether the triggers that keep the ledger append-only stand as the schema has them."""
    triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    present = {
        bytes(name): bytes(sql) for name, sql in db.execute(triggers) if isinstance(sql, bytes)
    }
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(LEDGER_V1)
        for name, sql in model.execute(triggers):
            if present.get(name.encode()) != sql.encode():
                examined.fault(0, "guard", f"the trigger {name} was removed or changed")
