"""What pages and command line read: records found, a call's whole story, calls at a glance."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit.errors import Unreadable
from audit.filters import Filter, read_filter
from audit.query import (
    after,
    export,
    export_jsonl,
    search,
    show,
    tail,
)
from audit.reading import open_ledger
from audit.record import canonical_json
from tests.audit.ledgers import GOOD, create, tampering, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(create(tmp_path_factory.mktemp("query") / "l.db"), GOOD)


@pytest.fixture(params=[None, sqlite3.Row], ids=["tuples", "rows"])
def db(path: Path, request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    with closing(open_ledger(path)) as connection:
        connection.row_factory = request.param
        yield connection


def test_the_last_records_come_oldest_first(db: sqlite3.Connection) -> None:
    assert [r.seq for r in tail(db, 3)] == [len(GOOD) - 2, len(GOOD) - 1, len(GOOD)]
    assert len(tail(db, 10_000)) == len(GOOD)


def test_a_growing_ledger_can_be_followed(db: sqlite3.Connection) -> None:
    assert [r.seq for r in after(db, len(GOOD) - 2)] == [len(GOOD) - 1, len(GOOD)]
    assert [r.seq for r in after(db, 0, limit=2)] == [1, 2]
    assert after(db, len(GOOD)) == []


OPENED = [f"a{n}" for n in range(7, 0, -1)]


@pytest.mark.parametrize(
    ("type_", "given", "expected"),
    [
        ("approval.joined", {}, ["a6", "a2"]),
        ("approval", {"approval": "a2"}, ["a2", "a2", "a2", "a2"]),
        (None, {"agent": "nobody"}, []),
        (None, {"host": "pypi.org"}, [None]),
        (None, {"host": "pypi.org:443"}, [None]),
        (None, {"host": "pypi.org:8443"}, []),
        ("approval.opened", {"host": "API.stripe.com", "method": "post"}, OPENED),
        (None, {"text": "WORKER DIED"}, [None]),
        (None, {"since": "2026-11-22T16:00:02Z", "until": "2026-11-22T16:00:04Z"}, ["a1"] * 2),
        ("appro", {}, []),
        ("x' OR 1=1 --", {"text": "%' --"}, []),
        (None, {"path": "/v1/refunds", "code": "policy_denied"}, [None]),
        (None, {"path": "/v1/%"}, []),
        (None, {"rule": "no"}, [None, None]),
        (None, {"rule": "t"}, [None]),
        (None, {"reviewer": "alice", "approval": "a7"}, ["a7"]),
        ("call.sent", {"secret": "kv/stripe#api_key", "approval": "a1"}, ["a1"]),
        (None, {"secret": "kv/stripe#other"}, []),
        (None, {"outcome": "expired"}, ["a4", "a3"]),
        (None, {"outcome": "unknown"}, [None]),
        (None, {"outcome": "tunnel"}, [None, None]),
        (None, {"outcome": "pending", "approval": "a6"}, ["a6", "a6"]),
    ],
)  # fmt: skip
def test_a_search_finds_where_all_holds_newest_first(
    db: sqlite3.Connection, type_: str | None, given: dict[str, str], expected: list[str | None]
) -> None:
    found = search(db, read_filter(given), type=type_)
    assert [record.data.get("approval") for record in found] == expected


def test_a_search_can_be_for_one_call_and_so_many(db: sqlite3.Connection) -> None:
    assert [r.type for r in search(db, type="call.sent", call="c1")] == ["call.sent"]
    assert [r.data["approval"] for r in search(db, type="approval", limit=1)] == ["a7"]


def test_a_search_goes_on_page_by_page(db: sqlite3.Connection) -> None:
    seen: list[int] = []
    before = None
    while page := search(db, Filter(agent="bot"), limit=7, before=before):
        seen += [record.seq for record in page]
        before = seen[-1]
    assert seen == [r.seq for r in reversed(tail(db, 1000)) if r.agent == "bot"]


def test_a_call_shows_its_whole_story(db: sqlite3.Connection) -> None:
    assert [r.type for r in show(db, "c1")] == [
        "approval.opened",
        "approval.voted",
        "approval.voted",
        "approval.resolved",
        "secret.read",
        "call.sent",
        "call.completed",
    ]
    assert [r.type for r in show(db, "c2")] == ["call.denied"]
    assert show(db, "c99") == []


def test_an_approval_shows_all_calls_under_it(db: sqlite3.Connection) -> None:
    assert [(r.type, r.call) for r in show(db, "a6")] == [
        ("approval.opened", "c9"),
        ("approval.voted", None),
        ("approval.voted", None),
        ("approval.resolved", None),
        ("approval.joined", "c10"),
        ("call.sent", "c9"),
        ("call.failed", "c9"),
        ("call.sent", "c10"),
        ("call.failed", "c10"),
    ]


def test_an_export_is_one_canonical_record_a_line(db: sqlite3.Connection) -> None:
    records = list(export(db))
    assert [r.seq for r in records] == list(range(1, len(GOOD) + 1))
    lines = list(export_jsonl(records))
    assert len(lines) == len(GOOD)
    assert all(line.count("\n") == 1 and line.endswith("}\n") for line in lines)
    first = records[0]
    assert lines[0].encode() == (
        canonical_json({name: getattr(first, name) for name in first.__dataclass_fields__}) + b"\n"
    )


def test_a_spoilt_record_cannot_be_shown(tmp_path: Path) -> None:
    path = write(create(tmp_path / "l.db"), GOOD)
    with tampering(path) as db:
        db.execute("UPDATE ledger SET data = '{\"x\":1.5}' WHERE seq = 9")
    with closing(open_ledger(path)) as db, pytest.raises(Unreadable, match="record 9 does not"):
        list(export(db))
    with (
        closing(sqlite3.connect(":memory:")) as empty,
        pytest.raises(Unreadable, match="the ledger cannot be read: no such table"),
    ):
        tail(empty, 1)
