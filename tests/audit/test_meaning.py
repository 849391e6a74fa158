"""Every call that went out had leave to, or the verifier says at which record it had not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.meaning import Fault, Story
from audit.record import GENESIS, JSON, Draft, seal
from audit.verify import verify
from tests.audit.ledgers import (
    GOOD,
    KEY,
    TWO,
    WHAT,
    approved,
    completed,
    create,
    denied,
    failed,
    joined,
    opened,
    rechain,
    requirement,
    resolved,
    secret_read,
    sent,
    set_data,
    tampering,
    unknown,
    voted,
    write,
)


def tell(*drafts: Draft) -> list[Fault]:
    """The faults of these records, which are numbered from 1."""
    faults: list[Fault] = []
    with Story() as story:
        for seq, draft in enumerate(drafts, 1):
            faults += story.tell(seal(draft, seq, "2026-11-22T16:00:00.000000Z", GENESIS))
    return faults


def found(*drafts: Draft) -> list[tuple[int, str]]:
    return [(fault.seq, fault.kind) for fault in tell(*drafts)]


def put(draft: Draft, **changes: JSON) -> Draft:
    return replace(draft, data={**draft.data, **changes})


def drop(draft: Draft, key: str) -> Draft:
    return replace(draft, data={k: v for k, v in draft.data.items() if k != key})


TWO_VOTES = approved("a1", "c1", "alice", "bob")  # records 1 to 4
SENT = sent("c1", "a1", ["alice", "bob"])


def test_the_good_ledger_has_no_fault() -> None:
    assert tell(*GOOD) == []


# Votes and quorum


def test_an_approval_without_votes_is_forged() -> None:
    faults = tell(opened("a1", "c1"), resolved("a1"), sent("c1", "a1"))
    assert [(f.seq, f.kind) for f in faults] == [(2, "quorum")]
    assert faults[0].sentence == (
        "approval a1 is approved without the votes it needs: tier high lacks 2 of 2 (any)"
    )


def test_a_resolution_that_names_people_who_did_not_vote_is_forged() -> None:
    assert found(opened("a1", "c1"), resolved("a1", "approved", "alice", "bob")) == [
        (2, "vote"),
        (2, "quorum"),
    ]


def test_a_call_may_not_go_before_the_resolution() -> None:
    assert found(opened("a1", "c1"), sent("c1", "a1")) == [(2, "approval")]
    votes = TWO_VOTES[:3]
    assert found(*votes, SENT) == [(4, "approval")]


def test_one_person_voting_twice_does_not_make_two() -> None:
    faults = tell(
        opened("a1", "c1"),
        voted("a1", "alice"),
        voted("a1", "alice"),
        resolved("a1", "approved", "alice"),
    )
    assert [(f.seq, f.kind) for f in faults] == [(3, "vote"), (4, "quorum")]
    assert faults[0].sentence == "alice votes on approval a1 a second time"


def test_a_denial_cannot_be_turned_into_an_approval() -> None:
    assert found(
        opened("a1", "c1"),
        voted("a1", "alice", "deny"),
        voted("a1", "alice"),
        voted("a1", "bob"),
        resolved("a1", "approved", "bob"),
    ) == [(3, "vote"), (5, "quorum")]


def test_an_excluded_person_does_not_count() -> None:
    faults = tell(
        opened("a1", "c1"),
        voted("a1", "alice"),
        voted("a1", "olga"),
        resolved("a1", "approved", "alice", "olga"),
    )
    assert [(f.seq, f.kind) for f in faults] == [(3, "vote"), (4, "vote"), (4, "quorum")]
    assert faults[0].sentence == "olga is excluded from approval a1 and votes on it"


@pytest.mark.parametrize("role", ["viewer", "", None, 1])
def test_a_role_that_may_not_vote_does_not_count(role: JSON) -> None:
    assert found(
        opened("a1", "c1"),
        voted("a1", "alice"),
        voted("a1", "bob", role=role),
        resolved("a1", "approved", "alice"),
    ) == [(3, "vote"), (4, "quorum")]


def test_the_members_of_a_group_are_those_of_the_requirement_not_of_the_vote() -> None:
    finance = requirement(("finance", 1, ["alice"]))
    assert found(
        opened("a1", "c1", finance),
        voted("a1", "mallory", groups=["finance"]),
        resolved("a1", "approved", "mallory"),
    ) == [(3, "quorum")]


def test_a_vote_after_the_resolution_is_a_fault() -> None:
    assert found(*TWO_VOTES, voted("a1", "carol")) == [(5, "vote")]
    faults = tell(opened("a1", "c1"), resolved("a1", "expired"), voted("a1", "carol"))
    assert [f.sentence for f in faults] == [
        "carol votes on approval a1, which had ended: expired",
    ]


def test_a_vote_on_nothing_is_a_fault() -> None:
    assert found(voted("a9", "alice")) == [(1, "vote")]


def test_retyping_and_reasons_count_where_they_are_asked_for() -> None:
    strict = requirement(("any", 1, None), confirm="retype", reason="required")
    good = voted("a1", "alice", confirmed=True, reason="known customer")
    assert found(opened("a1", "c1", strict), good, resolved("a1", "approved", "alice")) == []
    for bad in (put(good, confirmed=False), put(good, reason=""), drop(good, "confirmed")):
        assert found(opened("a1", "c1", strict), bad, resolved("a1")) == [
            (2, "vote"),
            (3, "quorum"),
        ]
    assert found(opened("a1", "c1", strict), voted("a1", "alice", "deny")) == []


def test_a_vote_is_for_the_request_that_was_opened() -> None:
    assert found(
        opened("a1", "c1"),
        voted("a1", "alice"),
        voted("a1", "bob", request="r2"),
        resolved("a1", "approved", "alice"),
    ) == [(3, "commitment"), (4, "quorum")]


def test_a_call_names_only_those_who_approved() -> None:
    assert found(*TWO_VOTES, sent("c1", "a1", ["alice", "mallory"])) == [(5, "vote")]
    assert found(sent("c1", None, ["alice"])) == [(1, "vote")]


@pytest.mark.parametrize("needs", [None, {**TWO, "tiers": []}, {**TWO, "denials": "none"}])
def test_a_requirement_that_asks_nobody_is_said_once_at_its_opening(needs: JSON) -> None:
    assert found(opened("a1", "c1", needs), voted("a1", "x"), resolved("a1"), sent("c1", "a1")) == [
        (1, "data")
    ]


# The request


@pytest.mark.parametrize(
    "change",
    [{"request": "r2"}, {"request": None}, {"what": {**WHAT, "path": "/v1/payouts"}}],
)
def test_what_is_sent_is_what_was_opened(change: dict[str, JSON]) -> None:
    faults = tell(*TWO_VOTES, put(SENT, **change))
    assert [(f.seq, f.kind) for f in faults] == [(5, "commitment")]
    assert faults[0].sentence == "call c1 is not the request that approval a1 was opened for"


def test_another_agent_cannot_use_or_join_an_approval() -> None:
    assert found(*TWO_VOTES, replace(SENT, agent="other")) == [(5, "approval")]
    assert found(*TWO_VOTES, joined("a1", "c2", "other")) == [(5, "approval")]


# One approval, one execution


def test_an_approval_is_used_once() -> None:
    faults = tell(*TWO_VOTES, SENT, completed("c1"), sent("c2", "a1"))
    assert [(f.seq, f.kind) for f in faults] == [(7, "used")]
    assert faults[0].sentence == "call c2 is sent under approval a1 again: used by call c1"
    assert found(*TWO_VOTES, SENT, sent("c2", "a1")) == [(6, "used")]
    assert found(*TWO_VOTES, SENT, unknown("c1"), sent("c2", "a1")) == [(7, "used")]
    assert found(*TWO_VOTES, SENT, failed("c1", was_sent=True), sent("c2", "a1")) == [(7, "used")]


def test_an_approval_is_not_used_up_when_no_byte_left() -> None:
    again = [*TWO_VOTES, SENT, failed("c1", was_sent=False), sent("c2", "a1", ["bob"])]
    assert found(*again) == []
    assert found(*again, sent("c3", "a1")) == [(8, "used")]
    assert found(*again, completed("c2"), sent("c3", "a1")) == [(9, "used")]


def test_only_a_plain_false_means_that_nothing_left() -> None:
    lie = put(failed("c1", was_sent=False), sent=0)
    assert found(*TWO_VOTES, SENT, lie, sent("c2", "a1")) == [(7, "used")]


@pytest.mark.parametrize("state", ["denied", "expired", "superseded"])
def test_an_ended_approval_cannot_be_used(state: str) -> None:
    faults = tell(opened("a1", "c1"), resolved("a1", state), sent("c1", "a1"))
    assert [(f.seq, f.kind) for f in faults] == [(3, "approval")]
    assert faults[0].sentence.endswith(f"which had ended: {state}")


def test_an_approval_must_have_been_opened() -> None:
    faults = tell(sent("c1", "a9"))
    assert [(f.seq, f.kind) for f in faults] == [(1, "approval")]
    assert faults[0].sentence.endswith("which was never opened")
    assert found(resolved("a9")) == [(1, "approval")]
    assert found(joined("a9", "c1")) == [(1, "approval")]
    assert found(secret_read("c1", "a9")) == [(1, "secret")]


def test_an_approval_is_opened_and_resolved_once() -> None:
    assert found(opened("a1", "c1"), opened("a1", "c2")) == [(2, "approval")]
    assert found(opened("a1", "c1"), resolved("a1", "denied"), opened("a1", "c2")) == [
        (3, "approval")
    ]
    assert found(*TWO_VOTES, resolved("a1")) == [(5, "approval")]
    assert found(opened("a1", "c1"), resolved("a1", "denied"), resolved("a1")) == [(3, "approval")]
    assert found(opened("a1", "c1"), resolved("a1", "won")) == [(2, "data")]


def test_a_granted_approval_may_run_out_but_not_be_denied() -> None:
    assert found(*TWO_VOTES, resolved("a1", "expired")) == []
    assert found(*TWO_VOTES, resolved("a1", "superseded")) == []
    assert found(*TWO_VOTES, resolved("a1", "denied")) == [(5, "approval")]


def test_an_approval_that_is_being_executed_cannot_end_otherwise() -> None:
    assert found(*TWO_VOTES, SENT, resolved("a1", "expired"), completed("c1")) == [(6, "approval")]


def test_a_held_call_cannot_be_sent_as_if_it_were_not() -> None:
    bare = sent("c1")
    assert found(opened("a1", "c1"), bare) == [(2, "approval")]
    assert found(opened("a1", "c1"), joined("a1", "c2"), sent("c2")) == [(3, "approval")]
    assert found(*TWO_VOTES, bare) == [(5, "approval")]
    assert found(opened("a1", "c1"), resolved("a1", "superseded"), bare) == []


def test_a_secret_is_read_after_the_decision() -> None:
    assert found(opened("a1", "c1"), secret_read("c1", "a1")) == [(2, "secret")]
    assert found(*TWO_VOTES, secret_read("c1", "a1"), SENT, secret_read("c1", "a1")) == []
    assert found(opened("a1", "c1"), resolved("a1", "denied"), secret_read("c1", "a1")) == [
        (3, "secret")
    ]


# Calls and agents


@pytest.mark.parametrize(
    "result",
    [
        completed("c1"),
        failed("c1", was_sent=True),
        failed("c1", was_sent=False),
        unknown("c1"),
    ],
)
def test_a_result_belongs_to_one_sent_call(result: Draft) -> None:
    assert found(result) == [(1, "result")]
    assert found(sent("c1"), result) == []
    assert found(sent("c1"), result, completed("c1")) == [(3, "result")]
    assert found(denied("c1"), result) == [(2, "result")]


def test_a_call_is_sent_once() -> None:
    assert found(sent("c1"), sent("c1")) == [(2, "used")]
    assert found(sent("c1"), completed("c1"), sent("c1")) == [(3, "used")]


def test_a_revoked_agent_sends_nothing() -> None:
    revoked = Draft("agent.revoked", {"agent": "bot", "by": "cli:root"}, None, None)
    added = Draft("agent.added", {"agent": "bot", "by": "cli:root"}, None, None)
    assert found(sent("c1"), revoked, completed("c1")) == []
    assert found(revoked, sent("c1")) == [(2, "revoked")]
    assert found(revoked, sent("c1", agent="other")) == []
    assert found(revoked, added, sent("c1")) == []
    assert found(*TWO_VOTES, revoked, SENT) == [(6, "revoked")]


# Whatever a record holds

DRAFTS = {draft.type: draft for draft in GOOD if draft.data}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("approval.opened", "approval"),
        ("approval.opened", "request"),
        ("approval.opened", "requirement"),
        ("approval.joined", "approval"),
        ("approval.voted", "user"),
        ("approval.voted", "decision"),
        ("approval.resolved", "state"),
        ("agent.added", "agent"),
        ("agent.revoked", "agent"),
    ],
)
def test_a_record_that_lacks_what_its_type_needs_is_a_fault(kind: str, key: str) -> None:
    for bad in (drop(DRAFTS[kind], key), put(DRAFTS[kind], **{key: 1})):
        assert (1, "data") in found(bad)


@pytest.mark.parametrize(
    "kind", ["approval.opened", "approval.joined", "call.sent", "call.unknown"]
)
def test_a_record_of_a_call_says_which(kind: str) -> None:
    assert found(replace(DRAFTS[kind], call=None)) == [(1, "data")]


@pytest.mark.parametrize(
    "bad", [resolved("a1", "approved"), sent("c1", "a1")], ids=["resolved", "sent"]
)
@pytest.mark.parametrize("names", ["alice", {"alice": 1}, [["alice"]], 7])
def test_a_list_of_names_is_one(bad: Draft, names: JSON) -> None:
    key = "by" if bad.type == "approval.resolved" else "votes"
    start = TWO_VOTES[:3] if bad.type == "approval.resolved" else TWO_VOTES
    assert (len(start) + 1, "data") in found(*start, put(bad, **{key: names}))


def test_a_vote_is_for_or_against() -> None:
    assert found(opened("a1", "c1"), voted("a1", "alice", "maybe")) == [(2, "data")]


SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a1", "c1", "alice", "bot"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tiers", "quorum", "group", "count"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = sorted({key for draft in GOOD for key in draft.data})
ANY_DRAFT = st.builds(
    Draft,
    st.sampled_from(sorted({draft.type for draft in GOOD})),
    st.dictionaries(st.sampled_from(KEYS), SCRAPS, max_size=6),
    st.none() | st.sampled_from(["c1", "c2"]),
    st.none() | st.sampled_from(["bot", "other"]),
)


@settings(max_examples=60)
@given(st.lists(ANY_DRAFT | st.sampled_from(GOOD), max_size=30))
def test_a_story_is_total(drafts: list[Draft]) -> None:
    tell(*drafts)


@given(st.lists(st.sampled_from(GOOD[1:8]), max_size=12))
def test_an_approved_call_without_fault_has_its_votes_before_it(drafts: list[Draft]) -> None:
    """However its records are shuffled, dropped and doubled."""
    if any(draft.type == "call.sent" for draft in drafts) and not tell(*drafts):
        before = drafts[: [draft.type for draft in drafts].index("call.sent")]
        assert {str(d.data["user"]) for d in before if d.type == "approval.voted"} == {
            "alice",
            "bob",
        }
        assert before[0].type == "approval.opened"


# The same through verify(), on chains that were written anew by somebody who even has the key


def remove(seq: int) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute("DELETE FROM ledger WHERE seq = ?", (seq,))


def edit(seq: int, **changes: JSON) -> Callable[[sqlite3.Connection], object]:
    return lambda db: set_data(db, seq, **changes)


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        (remove(3), (4, "quorum")),
        (remove(5), (6, "approval")),
        (remove(7), (7, "result")),
        (edit(3, user="bob"), (4, "vote")),
        (edit(4, user="olga"), (4, "vote")),
        (edit(4, decision="deny"), (5, "quorum")),
        (edit(7, request="other"), (7, "commitment")),
        (edit(2, request="other"), (7, "commitment")),
        (edit(7, approval="a4"), (7, "approval")),
        (edit(7, approval=None, votes=[]), (7, "approval")),
        (edit(12, approval="a1"), (12, "used")),
        (edit(2, requirement={**TWO, "tiers": []}), (2, "data")),
    ],
)
def test_a_forgery_that_holds_as_a_chain_fails_in_its_meaning(
    tmp_path: Path, forge: Callable[[sqlite3.Connection], object], expected: tuple[int, str]
) -> None:
    path = write(create(tmp_path / "l.db"), GOOD)
    with tampering(path) as db:
        forge(db)
        rechain(db, KEY)
    found = {(fault.seq, fault.kind) for fault in verify(path, head_key=KEY).faults}
    assert expected in found
    assert not {kind for _, kind in found} & {"form", "gap", "hash", "chain", "head", "guard"}


STREAMED: dict[str, JSON] = {"body": "bb" * 32, "body_size": 7}


def streamed(call: str = "c1") -> Draft:
    return put(sent(call), streamed=True, body=None, body_size=None)


def test_a_streamed_call_commits_to_its_body_with_its_result() -> None:
    assert found(streamed(), put(completed("c1"), **STREAMED)) == []
    assert found(streamed(), put(failed("c1", was_sent=True), **STREAMED)) == []
    assert found(streamed(), failed("c1", was_sent=False)) == []
    assert found(streamed(), unknown("c1")) == []


@pytest.mark.parametrize("lost", ["body", "body_size"])
def test_a_result_that_keeps_quiet_about_a_streamed_body_is_a_fault(lost: str) -> None:
    quiet = drop(put(completed("c1"), **STREAMED), lost)
    assert found(streamed(), quiet) == [(2, "commitment")]
    assert found(streamed(), failed("c1", was_sent=True)) == [(2, "commitment")]


def test_a_call_that_neither_streams_nor_commits_to_its_body_is_a_fault() -> None:
    assert found(drop(sent("c1"), "body"), completed("c1")) == [(1, "commitment")]
