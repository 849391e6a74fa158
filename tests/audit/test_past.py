"""The calls of the past: each once, as it was asked for, with what the policy said of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from audit import past
from audit.past import Past, PastCall
from audit.reading import open_ledger
from audit.record import Draft
from tests.audit.ledgers import GOOD, WHAT, create, tampering, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(create(tmp_path_factory.mktemp("past") / "l.db"), GOOD)


def calls(path: Path, **window: str) -> tuple[list[PastCall], Past]:
    with closing(open_ledger(path)) as db:
        found = Past(db, **window)
        return list(found), found


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_each_call_is_told_once(path: Path, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_PAGE", page)
    found, _ = calls(path)
    ids = [call.call for call in found]
    assert len(ids) == len(set(ids))
    assert {call.call: call.said for call in found} == {
        "c1": "hold",
        "c2": "deny",
        "c3": "allow",
        "c4": "hold",
        "c5": "hold",
        "c6": "hold",
        "c7": "hold",
        "c8": "hold",  # and later allowed: as it was decided first
        "c9": "hold",
        "c10": "hold",
        "c11": "tunnel",
        "c12": "hold",
        "c13": "allow",
    }


def test_a_window_of_time_and_one_agent(path: Path) -> None:
    whole, _ = calls(path)
    middle = whole[len(whole) // 2].time
    before, _ = calls(path, until=middle)
    after, since = calls(path, since=middle)
    assert before + after == whole
    assert all(call.time < middle for call in before)
    assert since.first > 1
    nobody, _ = calls(path, agent="nobody")
    assert nobody == []


def test_a_time_after_the_end_finds_nothing(path: Path) -> None:
    found, all_of_it = calls(path, since="2999-01-01T00:00:00.000000Z")
    assert found == []
    assert all_of_it.at == all_of_it.last


def sent(call: str, **data: object) -> Draft:
    return Draft("call.sent", {"what": WHAT, **data}, call, "bot")  # type: ignore[dict-item]


def test_what_the_rules_said_is_kept(tmp_path: Path) -> None:
    path = write(
        create(tmp_path / "l.db"),
        [
            sent(
                "c1",
                rules=["a", "b"],
                policy=4,
                body_size=7,
                secrets=[{"name": "stripe", "ref": "kv/stripe#k", "version": 1}],
            ),
            Draft(
                "call.denied",
                {"what": WHAT, "code": "policy_denied", "rules": ["no"], "policy": 4},
                "c2",
                "bot",
            ),
            Draft(
                "call.denied",
                {"what": WHAT, "code": "request_ambiguous", "rules": ["a"], "policy": 4},
                "c3",
                "bot",
            ),
            Draft("call.denied", {"what": None, "code": "request_ambiguous"}, "c4", "bot"),
            Draft("call.denied", {"what": WHAT, "code": "body_too_large"}, "c5", "bot"),
            Draft(
                "call.denied",
                {"what": WHAT, "code": "secret_unavailable", "rules": [], "policy": None},
                "c6",
                "bot",
            ),
        ],
    )
    found, told = calls(path)
    assert [(c.call, c.said, c.rules, c.policy, c.size) for c in found] == [
        ("c1", "allow", ("a", "b"), 4, 7),
        ("c2", "deny", ("no",), 4, None),
        ("c3", "deny", None, 4, None),
        ("c6", "allow", None, None, None),
    ]
    assert found[0].credentials == ("stripe",)
    assert told.skipped.undecided == 2


def test_a_call_that_found_too_many_held_asked_nobody(tmp_path: Path) -> None:
    denied = Draft("call.denied", {"what": WHAT, "code": "too_many_pending"}, "c1", "bot")
    (call,), _ = calls(write(create(tmp_path / "l.db"), [denied]))
    assert (call.said, call.asks) == ("hold", False)


def test_a_joined_call_knows_the_request_of_its_approval(tmp_path: Path) -> None:
    opened = {"what": WHAT, "approval": "a1", "rules": ["r"], "tiers": ["high"], "policy": 2}
    path = write(
        create(tmp_path / "l.db"),
        [
            Draft("approval.opened", opened, "c1", "bot"),
            Draft("approval.joined", {"approval": "a1"}, "c2", "bot"),
            Draft("approval.joined", {"approval": "unknown"}, "c3", "bot"),
            sent("c2", approval="a1", rules=["r"]),
            Draft("call.denied", {"what": WHAT, "code": "approval_used", "approval": {}}, "c1"),
        ],
    )
    found, told = calls(path)
    assert [(c.call, c.asks, c.tiers) for c in found] == [
        ("c1", True, ("high",)),
        ("c2", False, ("high",)),
    ]
    assert told.skipped.spoilt == 2  # without an agent, and with no approval
    late, _ = calls(path, since=found[1].time)
    assert [c.call for c in late] == ["c2"]


def test_what_was_held_before_the_window_is_no_call_of_it(tmp_path: Path) -> None:
    """Its end lies in the window; what was asked for it does not. Nor was it asked again where it
    was decided anew."""
    opened = {"what": WHAT, "approval": "a1", "rules": ["r"], "tiers": ["high"], "policy": 2}
    denied = {"what": WHAT, "approval": "a1", "code": "approval_expired", "rules": []}
    path = write(
        create(tmp_path / "l.db"),
        [
            Draft("approval.opened", opened, "c1", "bot"),
            Draft("approval.joined", {"approval": "a1"}, "c2", "bot"),
            sent("c3", rules=["s"]),
            Draft("call.denied", denied, "c1", "bot"),  # type: ignore[arg-type]
            sent("c2", rules=["r"]),
            Draft("call.denied", denied, "c4", "bot"),  # type: ignore[arg-type]
        ],
    )
    whole, _ = calls(path)
    assert [call.call for call in whole] == ["c1", "c2", "c3", "c4"]
    late, _ = calls(path, since=whole[2].time)
    assert late == whole[2:]
    # A repeat is told by what its approval was opened for, and asks nobody.
    assert (late[1].said, late[1].rules, late[1].asks) == ("hold", ("r",), False)


def test_what_was_tried_in_shadow_is_kept(tmp_path: Path) -> None:
    shadow = {"effect": "deny", "rules": [{"rule": "no", "effect": "deny"}]}
    path = write(create(tmp_path / "l.db"), [sent("c1", shadow=shadow), sent("c2", shadow=1)])
    assert [call.shadow for call in calls(path)[0]] == [shadow, None]


def test_what_is_forgotten_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MOST_REMEMBERED", 1)
    drafts = []
    for n in range(3):
        opened = {"what": {**WHAT, "path": f"/{n}"}, "approval": f"a{n}", "rules": []}
        drafts.append(Draft("approval.opened", opened, f"o{n}", "bot"))
    drafts += [Draft("approval.joined", {"approval": f"a{n}"}, f"j{n}", "bot") for n in range(3)]
    found, _ = calls(write(create(tmp_path / "l.db"), drafts))
    assert [c.what["path"] for c in found] == ["/0", "/1", "/2"] * 2


@pytest.mark.parametrize(
    "data",
    [
        "no json",
        "[]",
        "[" * 100_000,
        '{"what": []}',
        '{"what": {"method": "GET", "scheme": "ftp", "host": "a", "port": 1, "path": "/"}}',
        '{"what": {"method": 1, "scheme": "https", "host": "a", "port": 1, "path": "/"}}',
        '{"what": {"method": "GET", "scheme": "https", "host": "a", "port": true, "path": "/"}}',
    ],
)
def test_a_spoilt_record_is_passed_over(tmp_path: Path, data: str) -> None:
    path = write(create(tmp_path / "l.db"), [sent("c1"), sent("c2")])
    with tampering(path) as db:
        db.execute("UPDATE ledger SET data = ? WHERE seq = 1", (data,))
        db.execute("DROP INDEX IF EXISTS ledger_approval")
    with closing(open_ledger(path)) as db:
        found = Past(db)
        assert [call.call for call in found] == ["c2"]
        assert found.skipped.spoilt == 1


def test_one_call_is_found_by_its_id(path: Path) -> None:
    whole, _ = calls(path)
    for call in whole:
        found, _ = calls(path, call=call.call)
        assert [one.call for one in found] == [call.call]
    assert calls(path, call="nothing")[0] == []
