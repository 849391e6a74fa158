"""From records to calls at a glance: the tables of the history's index, and how a record changes
them.

Records are taken in in order, each once. What one says is believed as it stands: whether a record
is true is for verify() to tell.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field

VERSION = 2
"""Of the tables below: another one in the file, and it is made anew."""
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
  kind TEXT NOT NULL,                -- rule, secret, shadow
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
_WAITING = ("approval.opened", "approval.joined")


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
class Fold:
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
        self._mark_shadow(row, data)
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

    def _mark_shadow(self, row: _Row, data: dict[str, object]) -> None:
        """By the rules in shadow, and by what would have been."""
        shadow = data.get("shadow")
        if isinstance(shadow, dict):
            named = [one.get("rule") for one in _list(shadow, "rules") if isinstance(one, dict)]
            for value in (*named, shadow.get("effect")):
                if isinstance(value, str):
                    self.marks.append(("shadow", value, row.seq))

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
