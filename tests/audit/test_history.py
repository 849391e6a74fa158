"""The history's index: it says what the records say, goes on in steps, and is made anew if it is
not the ledger's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from audit import history
from audit.errors import Unreadable
from audit.filters import Filter, read_filter
from audit.history import CallSummary, Found, History
from audit.record import Draft
from tests.audit.ledgers import GOOD, approved, create, denied, opened, tampering, voted, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(create(tmp_path_factory.mktemp("history") / "l.db"), GOOD)


@pytest.fixture
def index(path: Path, tmp_path: Path) -> History:
    return History(path, tmp_path / "h.db")


def names(found: Found) -> list[str]:
    return [call.call for call in found.calls]


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_calls_at_a_glance(path: Path, tmp_path: Path, step: int) -> None:
    index = History(path, tmp_path / "h.db")
    while index.follow(step):
        pass
    found = index.search(Filter(), limit=100)
    assert (found.next, found.behind) == (None, 0)
    assert {call.call: call.outcome for call in found.calls} == {
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
    seqs = [call.seq for call in found.calls]
    assert seqs == sorted(seqs, reverse=True)
    by_id = {call.call: call for call in found.calls}
    assert by_id["c1"] == CallSummary(
        call="c1",
        agent="bot",
        started="2026-11-22T16:00:02.000000Z",
        method="POST",
        scheme="https",
        host="api.stripe.com",
        port=443,
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
    assert (joined.host, joined.code, joined.approval, joined.risk) == (
        "api.stripe.com",
        "approval_denied",
        "a2",
        "high",
    )
    tunnel = by_id["c11"]
    assert (tunnel.method, tunnel.host, tunnel.port, tunnel.path) == (
        "CONNECT", "pypi.org", 443, None,
    )  # fmt: skip
    assert (by_id["c10"].code, by_id["c10"].duration_ms) == ("upstream_unreachable", 7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"outcome": "denied"}, ["c5", "c4", "c2"]),
        ({"host": "pypi.org"}, ["c11"]),
        ({"host": "pypi.org:443"}, ["c11"]),
        ({"host": "pypi.org:8443"}, []),
        ({"agent": "nobody"}, []),
        ({"agent": "bot", "outcome": "unknown"}, ["c8"]),
        ({"since": "2026-11-22T17:00:00Z"}, []),
        ({"until": "2026-11-22T16:00:10Z"}, ["c1"]),
        ({"until": "2026-11-01"}, []),
        ({"since": "0001-01-01", "until": "2026-11-22T16:00:03Z"}, ["c1"]),
        ({"method": "connect"}, ["c11"]),
        ({"path": "/v1/ref", "outcome": "failed"}, ["c10", "c9"]),
        ({"path": "/v1/%"}, []),
        ({"path": "_"}, []),
        ({"rule": "no"}, ["c5", "c2"]),
        ({"rule": "t"}, ["c11"]),
        ({"code": "approval_denied"}, ["c5"]),
        ({"approval": "a6"}, ["c10", "c9"]),
        ({"reviewer": "bob"}, ["c10", "c9", "c7", "c1"]),
        ({"reviewer": "alice", "outcome": "pending"}, ["c12"]),
        ({"secret": "kv/stripe#api_key", "outcome": "failed"}, ["c10", "c9"]),
        ({"text": "V1/REFUNDS", "outcome": "pending"}, ["c12"]),
        ({"text": "no."}, ["c5", "c2"]),
        ({"text": "%"}, []),
        ({"agent": "bot' OR '1'='1"}, []),
        ({"text": "\x00"}, []),
    ],
)
def test_calls_can_be_narrowed(index: History, given: dict[str, str], expected: list[str]) -> None:
    assert names(index.search(read_filter(given), limit=100)) == expected


def test_calls_go_on_page_by_page_while_new_ones_come(tmp_path: Path) -> None:
    path = write(create(tmp_path / "l.db"), [denied(f"c{n}") for n in range(10)])
    index = History(path, tmp_path / "h.db")
    seen: list[str] = []
    before = None
    for page in range(10):
        found = index.search(Filter(), limit=4, before=before)
        seen += names(found)
        write(path, [denied(f"new{page}")])
        before = found.next
        if before is None:
            break
    assert seen == [f"c{n}" for n in range(9, -1, -1)]
    assert index.search(Filter(), limit=0).calls == ()
    assert index.search(Filter(), limit=5, before=1).next is None
    assert index.search(Filter(), limit=5, before=2**53).calls[0].call.startswith("new")


def test_a_search_looks_a_bounded_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BUDGET", 10)
    monkeypatch.setattr(history, "FIRST_WINDOW", 3)
    path = write(
        create(tmp_path / "l.db"), [denied("old", "rare"), *map(denied, "abcdefghijklmnop")]
    )
    index = History(path, tmp_path / "h.db")
    first = index.search(Filter(code="rare"), limit=5)
    assert (first.calls, first.next) == ((), 8)
    second = index.search(Filter(code="rare"), limit=5, before=first.next)
    assert (names(second), second.next) == (["old"], None)


def test_it_tells_how_far_behind_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(create(tmp_path / "l.db"), [denied(f"c{n}") for n in range(9)])
    index = History(path, tmp_path / "h.db")
    assert index.follow(4) == 5
    monkeypatch.setattr(History.follow, "__defaults__", (2,))
    found = index.search(Filter(), limit=100)
    assert (len(found.calls), found.behind) == (6, 3)


def test_votes_and_ends_reach_all_calls_of_an_approval(tmp_path: Path) -> None:
    """Those that joined before, and those that joined after."""
    path = create(tmp_path / "l.db")
    index = History(path, tmp_path / "h.db")
    write(path, [opened("a1", "c1"), Draft("approval.joined", {"approval": "a1"}, "c2", "bot")])
    assert [c.outcome for c in index.search(Filter(), limit=9).calls] == ["pending"] * 2
    write(path, approved("a1", "c1", "alice")[1:])
    write(path, [Draft("approval.joined", {"approval": "a1"}, "c3", "bot")])
    assert [c.outcome for c in index.search(Filter(), limit=9).calls] == ["approved"] * 3
    write(path, [voted("a1", "bob")])
    assert names(index.search(Filter(reviewer="bob"), limit=9)) == ["c3", "c2", "c1"]
    assert names(index.search(Filter(outcome="approved"), limit=9)) == ["c3", "c2", "c1"]


def test_another_ledger_makes_it_anew(tmp_path: Path) -> None:
    """As after a restored backup: numbers go on, what they mean does not."""
    path = write(create(tmp_path / "l.db"), [denied(f"c{n}") for n in range(5)])
    index = History(path, tmp_path / "h.db")
    assert len(index.search(Filter(), limit=9).calls) == 5
    other = write(create(tmp_path / "other.db"), [denied(f"d{n}") for n in range(6)])
    assert names(History(other, tmp_path / "h.db").search(Filter(), limit=9)) == [
        f"d{n}" for n in range(5, -1, -1)
    ]
    short = write(create(tmp_path / "short.db"), [denied("e")])
    assert names(History(short, tmp_path / "h.db").search(Filter(), limit=9)) == ["e"]
    empty = create(tmp_path / "empty.db")
    assert names(History(empty, tmp_path / "h.db").search(Filter(), limit=9)) == []


@pytest.mark.parametrize("spoil", ["garbage", "foreign", "older"])
def test_a_spoilt_index_is_made_anew(tmp_path: Path, spoil: str) -> None:
    path = write(create(tmp_path / "l.db"), GOOD)
    file = tmp_path / "h.db"
    index = History(path, file)
    whole = index.search(Filter(), limit=100)
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    if spoil == "garbage":
        file.write_bytes(b"not a database" * 1000)
    else:
        with closing(sqlite3.connect(file)) as db:
            db.execute("DROP TABLE calls" if spoil == "foreign" else "UPDATE place SET version = 0")
            db.commit()
        if spoil == "foreign":
            write(path, [denied("more")])
            assert "more" in names(index.search(Filter(), limit=100))
            return
    assert index.search(Filter(), limit=100) == whole
    assert file.stat().st_mode & 0o077 == 0


def test_a_spoilt_record_is_left_to_the_verifier(tmp_path: Path) -> None:
    path = write(create(tmp_path / "l.db"), GOOD)
    with tampering(path) as db:
        db.execute("UPDATE ledger SET data = '[1' WHERE seq = 2")
        db.execute('UPDATE ledger SET data = \'{"code": 7, "what": 3}\' WHERE seq = 10')
    found = History(path, tmp_path / "h.db").search(Filter(), limit=100)
    assert {"c1", "c2"} <= set(names(found))


def test_no_ledger_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        History(tmp_path / "none.db", tmp_path / "h.db").search(Filter(), limit=1)
    path = write(create(tmp_path / "l.db"), GOOD)
    (tmp_path / "dir").mkdir()
    with pytest.raises((Unreadable, OSError)):
        History(path, tmp_path / "dir").search(Filter(), limit=1)
