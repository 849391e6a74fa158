"""Opening reads and nothing else; what has not the form of a record is said, not repaired."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from audit.errors import NotCanonical, Unreadable
from audit.reading import open_ledger, parse_json, reading, record_of
from audit.record import GENESIS, Record
from tests.audit.ledgers import CREATED, create, write

ROW = (1, "2026-11-22T16:00:00.000000Z", "a.b", None, "bot", {"x": 1}, GENESIS, "a" * 64)


def test_a_ledger_is_opened_for_reading_only(tmp_path: Path) -> None:
    path = write(create(tmp_path / "a name with ? and #.db"), [CREATED])
    with closing(open_ledger(path)) as db:
        assert db.execute("SELECT count(*) FROM ledger").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM ledger_salts")


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there is no ledger"):
        open_ledger(tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_database_are_translated() -> None:
    with pytest.raises(Unreadable, match="it cannot be read: boom"), reading("it"):
        raise sqlite3.DatabaseError("boom")


def test_a_record_is_made_of_its_fields() -> None:
    assert record_of(ROW) == Record(*ROW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, None),
        (0, True),
        (0, "1"),
        (1, None),
        (1, "2026-11-22T16:00:00Z"),
        (1, "2026-11-22T16:00:00.000000+00:00"),
        (2, None),
        (3, 1),
        (4, b"bot"),
        (5, "{}"),
        (5, []),
        (6, None),
        (6, "A" * 64),
        (7, "a" * 63),
    ],
)
def test_a_field_without_its_form_is_refused(field: int, value: object) -> None:
    with pytest.raises(NotCanonical):
        record_of((*ROW[:field], value, *ROW[field + 1 :]))


@pytest.mark.parametrize("text", ["", "{", "1.0", "1e3", "NaN", "-Infinity", "[" * 100_000])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(NotCanonical):
        parse_json(text)
