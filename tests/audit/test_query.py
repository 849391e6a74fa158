"""What pages and command line read: records found, a call's whole story, calls at a glance."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from audit.errors import Unreadable
from audit.query import (
    CallSummary,
    after,
    calls,
    export,
    export_jsonl,
    search,
    show,
    tail,
)
from audit.reading import open_ledger
from audit.record import Draft, canonical_json
from tests.audit.ledgers import GOOD, START, create, denied, tampering, write


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


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"type": "approval.joined"}, ["a6", "a2"]),
        ({"type": "call.sent", "call": "c1"}, ["a1"]),
        ({"approval": "a2", "type": "approval"}, ["a2", "a2", "a2", "a2"]),
        ({"agent": "nobody"}, []),
        ({"host": "pypi.org"}, [None]),
        ({"host": "api.stripe.com", "call": "c4"}, ["a2"]),
        ({"text": "WORKER DIED"}, [None]),
        ({"type": "approval", "limit": 1}, ["a7"]),
        (
            {"since": START + timedelta(seconds=2), "until": START + timedelta(seconds=4)},
            ["a1"] * 2,
        ),
        ({"type": "appro"}, []),
        ({"type": "x' OR 1=1 --", "text": "%' --"}, []),
    ],
)  # fmt: skip
def test_a_search_finds_where_all_holds_newest_first(
    db: sqlite3.Connection, terms: dict[str, object], expected: list[str | None]
) -> None:
    found = search(db, **terms)  # type: ignore[arg-type]
    assert [record.data.get("approval") for record in found] == expected


def test_a_search_goes_on_page_by_page(db: sqlite3.Connection) -> None:
    seen: list[int] = []
    before = None
    while page := search(db, agent="bot", limit=7, before=before):
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


def test_calls_at_a_glance(db: sqlite3.Connection) -> None:
    found = calls(db)
    assert {call.call: call.outcome for call in found} == {
        "c1": "completed",
        "c2": "denied",
        "c3": "completed",
        "c4": "denied",
        "c5": "denied",
        "c6": "expired",
        "c7": "expired",
        "c8": "unknown",
        "c9": "failed",
        "c10": "failed",
        "c11": "tunnel",
        "c12": "pending",
        "c13": "completed",
    }
    assert [call.seq for call in found] == sorted((c.seq for c in found), reverse=True)
    by_id = {call.call: call for call in found}
    assert by_id["c1"] == CallSummary(
        call="c1",
        agent="bot",
        started="2026-11-22T16:00:02.000000Z",
        method="POST",
        host="api.stripe.com",
        path="/v1/refunds",
        outcome="completed",
        code=None,
        status=200,
        rules=("stripe-refund",),
        approval="a1",
        risk="high",
        duration_ms=12,
        seq=2,
    )
    # A call that joined knows its request and rules by the approval it joined.
    joined = by_id["c5"]
    assert (joined.host, joined.code, joined.approval) == (
        "api.stripe.com",
        "approval_denied",
        "a2",
    )
    tunnel = by_id["c11"]
    assert (tunnel.method, tunnel.host, tunnel.path) == ("CONNECT", "pypi.org", None)
    assert (by_id["c10"].code, by_id["c10"].duration_ms) == ("upstream_unreachable", 7)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"outcome": "denied"}, ["c5", "c4", "c2"]),
        ({"outcome": "denied", "limit": 2}, ["c5", "c4"]),
        ({"host": "pypi.org"}, ["c11"]),
        ({"agent": "nobody"}, []),
        ({"agent": "bot", "outcome": "unknown"}, ["c8"]),
        ({"since": START + timedelta(hours=1)}, []),
        ({"limit": 0}, []),
    ],
)
def test_calls_can_be_narrowed(
    db: sqlite3.Connection, terms: dict[str, object], expected: list[str]
) -> None:
    assert [call.call for call in calls(db, **terms)] == expected  # type: ignore[arg-type]


def test_calls_go_on_page_by_page(db: sqlite3.Connection) -> None:
    seen: list[CallSummary] = []
    while page := calls(db, limit=4, before=seen[-1].seq if seen else None):
        seen += page
    assert seen == calls(db, limit=100)


def test_calls_are_found_beyond_the_first_page(tmp_path: Path) -> None:
    drafts = [denied(f"c{i}") for i in range(450)]
    drafts[0] = Draft("call.denied", {"code": "approval_expired"}, "c0", "bot")
    with closing(open_ledger(write(create(tmp_path / "l.db"), drafts))) as db:
        assert len(calls(db, limit=1000)) == 450
        expired = calls(db, outcome="expired")
        assert [call.call for call in expired] == ["c0"]
        assert expired[0].host is None


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
