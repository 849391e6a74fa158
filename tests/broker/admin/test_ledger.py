"""The pages read the real ledger file, read-only."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit.errors import Unreadable
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
    calls = ledger.calls(agent=None, outcome=None, host=None, limit=10, before=None)
    assert [(call.call, call.outcome, call.host) for call in calls] == [
        ("c_1", "denied", "api.example.com")
    ]
    assert [record.type for record in ledger.show("c_1")] == ["call.denied"]
    assert ledger.show("c_2") == []


def test_no_file_is_an_error_not_an_empty_history(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        LedgerReader(tmp_path / "nothing.db").show("c_1")
