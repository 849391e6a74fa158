"""The database itself refuses to change the past, by whatever statement and setting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit.schema import RARE
from tests.audit.ledgers import GOOD, create, write


@pytest.fixture(params=[False, True], ids=["plain", "recursive_triggers"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = write(create(tmp_path / "l.db"), GOOD[:8])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {request.param:d}")
        connection.execute("INSERT INTO ledger_salts VALUES ('c1', x'00')")
        yield connection


def everything(db: sqlite3.Connection) -> list[object]:
    return [
        db.execute(f"SELECT * FROM {table}").fetchall()
        for table in ("ledger", "ledger_head", "ledger_salts")
    ]


NEXT = "SELECT seq + 1, time, type, call, agent, data, hash, hash FROM ledger WHERE seq = 8"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET data = '{}' WHERE seq = 3",
        "UPDATE ledger SET seq = 99 WHERE seq = 8",
        "UPDATE OR REPLACE ledger SET seq = 3 WHERE seq = 8",
        "UPDATE OR IGNORE ledger SET data = '{}'",
        "DELETE FROM ledger",
        "DELETE FROM ledger WHERE seq = 8",
        "INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE seq = 3",
        "REPLACE INTO ledger SELECT seq, time, type, call, agent, '{}', prev, hash FROM ledger",
        "INSERT INTO ledger SELECT * FROM ledger WHERE seq = 8"
        " ON CONFLICT (seq) DO UPDATE SET data = '{}'",
        f"INSERT INTO ledger {NEXT.replace('seq + 1', 'seq + 2')}",
        f"INSERT INTO ledger {NEXT.replace('seq + 1', '0')}",
        f"INSERT INTO ledger {NEXT.replace('seq + 1', '-1')}",
        f"INSERT INTO ledger {NEXT.replace('seq + 1', 'NULL')}",
        f"INSERT INTO ledger {NEXT.replace('hash, hash', 'prev, hash')}",
        f"INSERT OR REPLACE INTO ledger {NEXT.replace('seq + 1', 'NULL')}",
        f"INSERT OR IGNORE INTO ledger {NEXT.replace('hash, hash', 'prev, hash')}",
        "UPDATE ledger_head SET seq = 7",
        "UPDATE ledger_head SET mac = ''",
        "UPDATE ledger_head SET id = 2, seq = 9",
        "DELETE FROM ledger_head",
        "INSERT INTO ledger_head VALUES (2, 9, '', '')",
        "REPLACE INTO ledger_head VALUES (1, 0, '', '')",
        "UPDATE ledger_salts SET salt = x'01'",
        "REPLACE INTO ledger_salts VALUES ('c1', x'01')",
        "INSERT INTO ledger_salts VALUES ('c1', x'01') ON CONFLICT DO UPDATE SET salt = x'01'",
    ],
)
def test_the_past_cannot_be_changed(db: sqlite3.Connection, statement: str) -> None:
    before = everything(db)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    assert everything(db) == before


@pytest.mark.parametrize("verb", ["INSERT", "REPLACE", "INSERT OR IGNORE"])
def test_the_next_link_is_taken(db: sqlite3.Connection, verb: str) -> None:
    before = db.execute("SELECT * FROM ledger").fetchall()
    db.execute(f"{verb} INTO ledger {NEXT}")
    after = db.execute("SELECT * FROM ledger").fetchall()
    assert after[:-1] == before
    assert len(after) == 9


def test_a_salt_can_be_forgotten(db: sqlite3.Connection) -> None:
    """That is what makes a commitment mean nothing, while the chain still verifies."""
    db.execute("DELETE FROM ledger_salts WHERE subject = 'c1'")
    assert db.execute("SELECT * FROM ledger_salts").fetchall() == []


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("call = ?", "ledger_call"),
        ("agent = ?", "ledger_agent"),
        (f"type = ? AND {RARE}", "ledger_type"),
        (f"type >= ? AND type < 'x' AND {RARE}", "ledger_type"),
        ("time >= ?", "ledger_time"),
        ("json_extract(data, '$.approval') = ?", "ledger_approval"),
    ],
)
def test_searches_have_their_index(db: sqlite3.Connection, sql: str, index: str) -> None:
    plan = db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM ledger WHERE {sql}", ("x",)).fetchone()
    assert f"USING INDEX {index} " in plan[3]
