"""The pages read the real ledger file, read-only."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit.errors import Unreadable
from audit.filters import Filter
from audit.history import History
from audit.journal import Journal
from audit.record import Draft
from audit.schema import LEDGER_V1
from broker.admin.ledger import LedgerReader

WHAT = {"method": "GET", "scheme": "https", "host": "api.example.com", "port": 443, "path": "/v1"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.executescript(LEDGER_V1)
    made = Journal(tmp_path / "ledger.db", clock=lambda: datetime.now(UTC), head_key=b"k" * 32)
    yield made
    made.close()


def deny(journal: Journal, call: str) -> None:
    data = {
        "what": WHAT,
        "code": "policy_denied",
        "sentence": "No rule matches.",
        "rules": [],
        "policy": 1,
    }
    draft = Draft("call.denied", data, call=call, agent="bot")
    journal.commit(lambda tx: tx.append(draft)).result()


def test_calls_and_their_records(journal: Journal, tmp_path: Path) -> None:
    deny(journal, "c_1")
    ledger = LedgerReader(tmp_path / "ledger.db")
    found = ledger.calls(Filter(), limit=10, before=None)
    assert [(call.call, call.outcome, call.host) for call in found.calls] == [
        ("c_1", "denied", "api.example.com")
    ]
    assert [record.type for record in ledger.show("c_1")] == ["call.denied"]
    assert ledger.show("c_2") == []


def test_no_file_is_an_error_not_an_empty_history(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        LedgerReader(tmp_path / "nothing.db").show("c_1")


def test_the_index_follows_by_itself(journal: Journal, tmp_path: Path) -> None:
    ledger = LedgerReader(tmp_path / "ledger.db")
    index = History(tmp_path / "ledger.db", tmp_path / "history.db")
    with ledger.following():
        deny(journal, "c_1")
        until = time.monotonic() + 30
        with closing(sqlite3.connect(tmp_path / "history.db")) as db:
            while time.monotonic() < until:
                try:
                    if db.execute("SELECT count(*) FROM calls").fetchone()[0]:
                        break
                except sqlite3.Error:
                    pass
                time.sleep(0.02)
    assert index.follow() == 0
    assert [call.call for call in index.search(Filter(), limit=5).calls] == ["c_1"]


def test_a_ledger_that_cannot_be_read_is_said_once_and_no_end_of_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LedgerReader(tmp_path / "nothing.db").following():
        until = time.monotonic() + 30
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "the history cannot follow the ledger: Unreadable"
    ]
