"""Past calls before a candidate: what changes, by what evidence, and bounded whatever comes."""

from __future__ import annotations

import pytest

from rules.load import load_policy
from rules.model import Effect, Policy, Subject
from rules.trying import replay
from rules.trying.glimpse import Glimpse
from rules.trying.replay import Change, Replay, Seen, approvers

BOT = Subject("bot", frozenset(), "alice")
CONDITION = "match: {host: a.example, json: {/n: 1}}"


def policy(*rules: str, head: str = "") -> Policy:
    lines = "".join(f"  - {{agents: [bot], {rule}}}\n" for rule in rules)
    return load_policy(f"version: 1\n{head}rules:\n{lines}")[0]


def seen(said: Effect = "allow", rules: tuple[str, ...] | None = None, **more: object) -> Seen:
    given: dict[str, object] = {"path": "/x", "method": "POST", **more}
    glimpse = Glimpse(
        str(given.pop("method")), "https", "a.example", 443, str(given.pop("path")), size=9
    )
    return Seen("c1", BOT, "2026-11-22", said, glimpse, rules, **given)  # type: ignore[arg-type]


def change(candidate: Policy, then: Policy | None, call: Seen) -> Change | None:
    return Replay(candidate, lambda _: then).take(call)


def test_a_rule_that_looks_alike_has_the_answer() -> None:
    then = policy(f"id: old, {CONDITION}, effect: allow")
    now = policy(f"id: new, {CONDITION}, effect: allow")
    assert change(now, then, seen("allow", ("old",), version=1)) is None
    told = change(now, then, seen("allow", (), version=1))
    assert told is not None
    assert (told.kind, told.outcome) == ("changed", "deny")
    assert change(now, then, seen("deny", (), version=1)) is None


def test_without_the_policy_of_that_time_it_cannot_be_told() -> None:
    now = policy(f"id: new, {CONDITION}, effect: allow")
    for then, version in ((None, 1), (now, None)):
        told = change(now, then, seen("allow", ("new",), version=version))
        assert told is not None
        assert (told.kind, told.outcome, told.rule) == ("uncertain", "allow or deny", "new")
        assert "JSON /n" in told.why


def test_what_reads_widely_is_no_evidence_for_what_reads_narrowly() -> None:
    then = policy(f"id: r, {CONDITION}, effect: hold")
    now = policy(f"id: r, {CONDITION}, effect: allow")
    told = change(now, then, seen("hold", ("r",), version=1))
    assert told is not None
    assert told.kind == "uncertain"


def test_a_denial_names_its_first_rule_only() -> None:
    then = policy(
        "id: no, match: {host: a.example}, effect: deny",
        f"id: maybe, {CONDITION}, effect: allow",
    )
    now = policy(f"id: maybe, {CONDITION}, effect: allow")
    told = change(now, then, seen("deny", ("no",), version=1))
    assert told is not None
    assert told.outcome == "allow or deny"
    # An allow that a denial names was in doubt, or beyond its limit.
    doubtful = change(now, then, seen("deny", ("maybe",), version=1))
    assert doubtful is not None
    assert doubtful.kind == "uncertain"


def test_limits_are_not_replayed() -> None:
    limited = policy("id: r, match: {host: a.example}, effect: allow, limit: {calls: 1, per: 1d}")
    told = change(limited, limited, seen("deny", ("r",), version=1))
    assert told is not None
    assert (told.kind, told.outcome) == ("uncertain", "allow or deny")
    assert change(limited, limited, seen("allow", ("r",), version=1)) is None


def test_people_may_be_asked_again_for_what_a_limit_held() -> None:
    limited = policy(
        "id: r, match: {host: a.example}, effect: allow, risk: high,"
        " limit: {calls: 1, per: 1d, over: hold}",
        head="tiers: {high: {exclude: []}}\n",
    )
    trial = Replay(limited, lambda _: limited)
    call = seen("hold", ("r",), version=1, tiers=frozenset(("high",)))
    told = trial.take(call)
    assert told is not None
    assert (told.kind, told.outcome) == ("uncertain", "allow or hold")
    assert dict(trial.held_then) == {(call.day, frozenset(("high",)), "alice", True): 1}
    assert dict(trial.holds) == {(call.day, frozenset(("high",)), "alice", False): 1}


def test_tunnels_stay_or_are_opened() -> None:
    through = policy("id: t, match: {host: a.example}, effect: tunnel")
    call = seen("tunnel", path="", method="CONNECT")
    assert change(through, None, call) is None
    about = policy(
        "id: t, match: {host: a.example}, effect: tunnel",
        "id: r, match: {path: /x}, effect: deny",
    )
    told = change(about, None, call)
    assert told is not None
    assert (told.seen.said, told.outcome) == ("tunnel", "deny")
    key = "credentials:\n  k: {secret: 'kv/a#b', hosts: ['*.example:8443'], inject: bearer}\n"
    assert change(policy(head=key), None, call) is not None


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_GROUPS", 5)
    monkeypatch.setattr(replay, "_KEPT", 3)
    trial = Replay(policy(), lambda _: None)
    for n in range(50):
        trial.take(seen("allow", (f"r{n}",), path=f"/{n}"))
    assert sum(group.calls for group in trial.groups.values()) == 50
    assert len(trial.groups) == 6
    assert all(len(group.examples) <= replay.EXAMPLES for group in trial.groups.values())


def test_examples_are_of_different_places() -> None:
    trial = Replay(policy(), lambda _: None)
    for path in ("/a", "/a", "/a", "/b"):
        trial.take(seen("allow", ("r",), path=path))
    (group,) = trial.groups.values()
    assert (group.calls, [e.seen.glimpse.path for e in group.examples]) == (4, ["/a", "/b"])


def test_who_would_be_asked() -> None:
    teams = policy(
        head="""\
approvers: {finance: [alice, bob], security: [dave]}
tiers:
  both: {quorum: [{group: finance, count: 1}, {group: security, count: 1}]}
  all: {quorum: [{group: any, count: 1}], exclude: [erin]}
"""
    )
    assert approvers(teams, ["both"], "alice", ["x"]) == {"bob", "dave"}
    assert approvers(teams, ["both"], None, ["x"]) == {"alice", "bob", "dave"}
    assert approvers(teams, ["all"], None, ["erin", "frank"]) == {"frank"}
    assert approvers(teams, ["both", "all"], "alice", ["frank"]) == {"bob", "dave", "frank"}
    assert approvers(teams, ["gone"], None, ["frank"]) == set()
