"""Records become rows: the same ones however they are cut into steps, whatever stands in them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from audit.fold import SCHEMA, Fold
from audit.record import Draft
from tests.audit.ledgers import GOOD, approved, denied, opened

TABLES = ("calls", "marks", "approvals", "votes")
KINDS = (
    "approval.opened", "approval.joined", "approval.voted", "approval.resolved", "secret.read",
    "call.denied", "call.sent", "call.completed", "call.failed", "call.unknown", "tunnel.opened",
    "tunnel.closed", "agent.added", "approval.other",
)  # fmt: skip


def folded(
    records: Sequence[tuple[str, str | None, str | None, str]], cuts: Iterable[int] = ()
) -> dict[str, list[tuple[object, ...]]]:
    """The tables after these (type, call, agent, data), written down at each cut and at the end."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        fold, at = Fold(db), frozenset(cuts)
        for seq, (kind, call, agent, data) in enumerate(records, 1):
            if seq in at:
                fold.flush()
            fold.take(seq, f"2026-05-04T03:02:{seq % 60:02}.000000Z", kind, call, agent, data)
        fold.flush()
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in TABLES}


def rows(drafts: Iterable[Draft]) -> list[tuple[str, str | None, str | None, str]]:
    return [(d.type, d.call, d.agent, json.dumps(d.data)) for d in drafts]


@given(st.sets(st.integers(1, 60)))
def test_how_it_is_cut_makes_no_difference(cuts: set[int]) -> None:
    records = rows(GOOD)
    assert folded(records, cuts) == folded(records)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from([None, "c1", "c2"]),
            st.sampled_from([None, "bot"]),
            st.one_of(
                st.text(max_size=20),
                st.dictionaries(
                    st.sampled_from(
                        [
                            "approval",
                            "what",
                            "rules",
                            "risk",
                            "summaries",
                            "state",
                            "user",
                            "code",
                            "status",
                            "duration_ms",
                            "secrets",
                            "host",
                            "port",
                            "sentence",
                        ]
                    ),
                    st.recursive(
                        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
                        lambda inner: (
                            st.lists(inner, max_size=2)
                            | st.dictionaries(st.sampled_from(["method", "ref", "port"]), inner)
                        ),
                        max_leaves=5,
                    ),
                ).map(json.dumps),
            ),
        ),
        max_size=8,
    ),
    st.sets(st.integers(1, 8)),
)
def test_nothing_that_stands_in_a_record_stops_it(
    records: list[tuple[str, str | None, str | None, str]], cuts: set[int]
) -> None:
    found = folded(records, cuts)
    told = {call for kind, call, *_ in records if call and kind in KINDS[:2] + KINDS[4:12]}
    assert {row[1] for row in found["calls"]} == told


def test_what_is_not_about_calls_leaves_no_trace() -> None:
    assert not any(folded([("agent.added", "c1", "bot", "{}")]).values())


def test_an_approval_ends_for_every_call_that_waits_for_it() -> None:
    joined = Draft("approval.joined", {"approval": "a1"}, "c2", "bot")
    records = rows([opened("a1", "c1"), joined, *approved("a1", "c1", "alice")[1:], denied("c3")])
    for cuts in ((), (2,), (3,), (2, 3, 4)):
        found = folded(records, cuts)
        outcomes = {row[1]: row[9] for row in found["calls"]}
        assert outcomes == {"c1": "approved", "c2": "approved", "c3": "denied"}
        assert found["votes"] == [("a1", "alice")]
