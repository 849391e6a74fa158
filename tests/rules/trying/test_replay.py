"""Past calls before a candidate: what changes, by what evidence, and bounded whatever comes."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.load import load_policy
from rules.model import Decision, Effect, Policy, Quorum, Rule, Subject
from rules.request import Request
from rules.trying import replay
from rules.trying.glimpse import Glimpse
from rules.trying.replay import Ask, Change, Replay, Seen, approvers
from tests.support.policies import SUBJECTS, near, policies

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
    high = frozenset(("high",))
    assert dict(trial.held_then) == {Ask(call.day, "alice", high): 1}
    assert dict(trial.holds) == {Ask(call.day, "alice", frozenset(), high): 1}


def test_who_may_be_asked_besides_is_told() -> None:
    teams = policy(
        "id: sure, match: {host: a.example}, effect: hold, risk: one",
        f"id: maybe, {CONDITION}, effect: hold, risk: other",
        head="""\
approvers: {some: [olga, paul], others: [olga, vera]}
tiers:
  one: {quorum: [{group: some, count: 1}]}
  other: {quorum: [{group: others, count: 1}], exclude: [paul]}
""",
    )
    trial = Replay(teams, lambda _: None)
    trial.take(seen("allow"))
    (ask,) = trial.holds
    sure, maybe = ask.people(teams, ())
    assert (set(sure), set(maybe)) == ({"olga", "paul"}, {"vera"})
    # That one of two may not vote in one tier keeps nobody from being asked in the other alone.
    either = Ask("2026-11-22", None, frozenset(), frozenset(("one", "other")))
    sure, maybe = either.people(teams, ())
    assert (set(sure), set(maybe)) == (set(), {"olga", "paul", "vera"})


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


# -- against a simple reference: every call decided anew, with all that is in it


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """A policy, and one made from it: rules go, are renamed, do something else or come."""
    drawn, other = draw(policies()), draw(policies())
    tiers = {
        **drawn.tiers,
        "medium": dataclasses.replace(drawn.tiers["medium"], quorum=(Quorum("some", 1),)),
        "high": dataclasses.replace(drawn.tiers["high"], quorum=(Quorum("others", 2),)),
    }
    groups = {"some": ("paul", "olga"), "others": ("olga", "vera")}
    then = dataclasses.replace(
        drawn, tiers=tiers, approvers=groups, rules=tuple(map(_unlimited, drawn.rules))
    )
    rules = []
    for rule in then.rules:
        match draw(st.sampled_from(("keep", "keep", "drop", "rename", "effect"))):
            case "keep":
                rules.append(rule)
            case "rename":
                rules.append(dataclasses.replace(rule, id=f"{rule.id}-renamed"))
            case "effect":
                effect: Effect = draw(st.sampled_from(("allow", "hold", "deny")))
                risk = "high" if effect == "hold" else None
                use = () if effect == "deny" else rule.use
                rules.append(dataclasses.replace(rule, effect=effect, risk=risk, use=use))
    rules += [
        dataclasses.replace(_unlimited(rule), id=f"{rule.id}-new")
        for rule in other.rules[: draw(st.integers(0, 2))]
    ]
    return then, dataclasses.replace(then, rules=tuple(rules))


def _unlimited(rule: Rule) -> Rule:
    return dataclasses.replace(rule, limits=())


def as_recorded(subject: Subject, request: Request, decision: Decision) -> Seen:
    """What the ledger keeps of a call: of a denial the first rule only."""
    rules: tuple[str, ...] | None = (*decision.rules, *decision.allowed_by)
    if decision.effect == "deny":
        rules = decision.rules[:1] if decision.code == "policy_denied" else None
    glimpse = Glimpse(
        request.method,
        request.scheme,
        request.host,
        request.port,
        request.path,
        request.moment,
        request.via,
        request.run,
        len(request.body),
    )
    return Seen(
        "c1",
        subject,
        str(request.moment)[:10],
        decision.effect,
        glimpse,
        rules,
        1,
        frozenset(decision.tiers),
        None if decision.effect == "deny" else decision.credentials,
    )


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_told_of_a_ledger_is_so(data: st.DataObject) -> None:
    then, now = data.draw(candidates())
    before, after = Rulebook(then), Rulebook(now)
    trial = Replay(now, lambda _: then)
    changes: Counter[tuple[object, ...]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    calls = data.draw(st.integers(1, 4))
    for _ in range(calls):
        rule = data.draw(st.sampled_from((*then.rules, *now.rules)))
        subject = data.draw(st.sampled_from(SUBJECTS))
        request = data.draw(near(data.draw(st.sampled_from(rule.matches)), subject))
        was, would = before.decide(subject, request), after.decide(subject, request)
        told = trial.take(as_recorded(subject, request, was))
        _check_told(told, was, would)
        if told is not None:
            changes[told.kind, was.effect, told.outcome, told.rule, told.was, told.why] += 1
        for person in approvers(now, would.tiers, subject.owner, ()):
            asked[str(request.moment)[:10], person] += 1
    assert trial.calls == calls == trial.unchanged + changes.total()
    grouped = {(g.kind, g.before, g.after, g.rule, g.was, g.why): g.calls
               for g in trial.groups.values()}  # fmt: skip
    assert grouped == changes
    sure: Counter[tuple[str, str]] = Counter()
    most: Counter[tuple[str, str]] = Counter()
    for ask, count in trial.holds.items():
        certain, maybe = ask.people(now, ())
        for person in certain | maybe:
            most[ask.day, person] += count
            sure[ask.day, person] += count * (person in certain)
    assert sure <= asked <= most


def _check_told(told: Change | None, was: Decision, would: Decision) -> None:
    """Nothing but the truth, and of effects the whole of it."""
    if told is None:
        assert would.effect == was.effect
    elif told.kind == "changed":
        assert told.after == {would.effect} != {was.effect}
        assert would.effect == "deny" or told.rule in would.rules
    elif told.kind == "uncertain":
        assert would.effect in told.after
    else:
        assert would.effect == was.effect
        assert ("risk" in told.why) == (set(would.tiers) != set(was.tiers))
        assert ("credentials" in told.why) == (set(would.credentials) != set(was.credentials))
