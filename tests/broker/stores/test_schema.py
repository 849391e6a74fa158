"""Migrations: applied whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from broker.stores import schema


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}


def migrate(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        schema.migrations.apply(Database(db))


def test_every_migration_is_known_by_its_name(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        database = Database(db)
        schema.migrations.apply(database)
        assert {m.name for m in schema.migrations.applied(database)} == schema.VERSIONS


def test_applying_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path)
    before = tables(path)
    migrate(path)
    assert tables(path) == before
    assert {"ledger", "approvals", "inflight"} <= before


def test_a_migration_that_breaks_in_its_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr(schema, "STATE_V1", schema.STATE_V1 + "CREATE NONSENSE;\n")
    with pytest.raises(sqlite3.Error):
        migrate(path)
    assert not {"ledger", "agents", "approvals"} & tables(path)
    monkeypatch.undo()
    migrate(path)
    assert {"ledger", "agents", "approvals"} <= tables(path)


def test_triggers_are_taken_as_one_statement() -> None:
    script = """
    CREATE TABLE t (a);
    CREATE TRIGGER x BEFORE INSERT ON t BEGIN
      SELECT 1;
      SELECT 2;
    END;
    """
    assert len(schema._statements(script)) == 2


def test_what_the_first_version_held_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        schema.migrations.apply(Database(db), stop_before="v2_people")
        db.executescript(
            """
            INSERT INTO users VALUES ('alice', 'admin', 'x', '2026-01-01T00:00:00.000000Z', NULL);
            INSERT INTO user_tokens VALUES ('t-1', 'alice', x'01', '2026-01-02T00:00:00Z', NULL);
            INSERT INTO sessions VALUES (x'02', 'alice', '2026-01-03', '2026-01-04', NULL);
            INSERT INTO sessions VALUES (x'03', 'alice', '2026-01-05', '2026-01-06', NULL);
            INSERT INTO links VALUES (x'04', '2026-01-07', '2026-01-08', NULL);
            """
        )
    migrate(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, role, votes_from FROM users").fetchall() == [
            ("alice", "admin", None)
        ]
        assert db.execute("SELECT id, name, expires_at FROM user_tokens").fetchall() == [
            ("t-1", "", None)
        ]
        sessions = db.execute("SELECT id, created_at, last_seen_at, idle FROM sessions").fetchall()
        assert [(made, seen, idle) for _, made, seen, idle in sessions] == [
            ("2026-01-03", "2026-01-03", 3600),
            ("2026-01-05", "2026-01-05", 3600),
        ]
        assert len({id for id, *_ in sessions}) == 2
        assert db.execute("SELECT user FROM links").fetchall() == [(None,)]


def test_calls_in_flight_stay_so_when_their_table_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    rows = [("c-1", "bot", None, "worker-0", "t1"), ("c-2", "bot", "a-1", "worker-1", "t2")]
    with closing(sqlite3.connect(path)) as db:
        schema.migrations.apply(Database(db), stop_before="v5_lean")
        db.executemany("INSERT INTO inflight VALUES (?, ?, ?, ?, ?)", rows)
        db.commit()
    migrate(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM inflight ORDER BY call").fetchall() == rows
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO inflight VALUES ('c-1', 'bot', NULL, 'worker-0', 't')")


def test_limits_come_to_a_store_that_has_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        schema.migrations.apply(Database(db), stop_before="v7_limits")
        db.execute("INSERT INTO inflight VALUES ('c-1', 'bot', NULL, 'worker-0', 't1')")
        db.commit()
    assert not {"limit_counters", "limit_uses"} & tables(path)
    migrate(path)
    assert {"limit_counters", "limit_uses"} <= tables(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        assert db.execute("SELECT call FROM inflight").fetchall() == [("c-1",)]
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO limit_uses VALUES ('c-1', 7, '1', NULL, NULL)")
