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
