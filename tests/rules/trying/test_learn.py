"""What is learnt covers what was seen, asks where something changes, and is a safe file."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules.decide import Rulebook
from rules.lint.check import check
from rules.load import load_policy
from rules.model import Effect, Policy, Subject
from rules.trying import learn
from rules.trying.glimpse import Glimpse
from rules.trying.learn import Learner
from rules.trying.replay import Replay, Seen

BOT = Subject("bot", frozenset(), "alice")
TIME = "2026-11-22T09:00:00.000000Z"
POLICY = """\
version: 1
credentials:
  api:
    secret: "kv/api#key"
    hosts: [api.example, "*.wide.example:8443"]
    inject: bearer
    env: {name: API_KEY, shape: "sk_{hex:24}"}
  login: {secret: "kv/l#p", hosts: [api.example], inject: {basic: {username: "u'\\"#"}}}
  key: {secret: "kv/k#k", hosts: [api.example], inject: {header: X-Key, format: "t={secret}"}}
approvers: {"123": [alice, bob]}
tiers:
  medium: {quorum: [{group: any, count: 1}], exclude: []}
  money: {quorum: [{group: "123", count: 2}], reason: required, confirm: retype, decide_within: 1h}
rules: []
"""
IN_FORCE = load_policy(POLICY)[0]


def seen(
    method: str = "GET",
    path: str = "/v1/x",
    said: Effect = "allow",
    *,
    host: str = "api.example",
    port: int = 443,
    scheme: str = "https",
    tiers: tuple[str, ...] = (),
    credentials: tuple[str, ...] | None = (),
) -> Seen:
    glimpse = Glimpse(method, scheme, host, port, path, size=0)  # type: ignore[arg-type]
    held = frozenset(tiers)
    return Seen("c", BOT, TIME[:10], said, glimpse, None, 1, held, credentials)


def learnt(*calls: Seen, agent: str = "bot") -> tuple[str, Policy]:
    learner = Learner(agent, IN_FORCE)
    for call in calls:
        learner.take(call, TIME)
    text = learner.propose().text()
    policy, warnings = load_policy(text)
    assert warnings == ()
    return text, policy


def test_reads_are_allowed_and_writes_are_held() -> None:
    text, policy = learnt(
        seen("GET", "/v1/orders/1"),
        seen("GET", "/v1/orders/2"),
        seen("HEAD", "/v1/orders/3"),
        seen("POST", "/v1/notes"),
        seen("DELETE", "/v1/orders/1"),
        seen("PUT", "/v1/orders/1", "deny"),
    )
    told = {
        (rule.effect, rule.risk, *sorted(match.methods), *match.paths)
        for rule in policy.rules
        for match in rule.matches
    }
    assert ("allow", None, "GET", "/v1/orders/{id}") in told
    assert ("allow", None, "HEAD", "/v1/orders/3") in told
    assert ("hold", "medium", "POST", "/v1/notes") in told
    assert ("hold", "high", "DELETE", "/v1/orders/1") in told
    assert not any("PUT" in each for each in told)
    assert "5 calls covered" in text
    assert "1 denied call left out" in text
    assert "first 2026-11-22T09:00Z, last 2026-11-22T09:00Z" in text


def test_methods_with_the_same_paths_stand_together() -> None:
    _, policy = learnt(seen("GET"), seen("HEAD"))
    ((match,),) = [rule.matches for rule in policy.rules]
    assert match.methods == {"GET", "HEAD"}


def test_what_was_held_is_held_as_then() -> None:
    text, policy = learnt(
        seen("GET", "/secret", "hold", tiers=("medium", "money")),
        seen("POST", "/pay", "hold", tiers=("gone",)),
    )
    risks = {match.paths[0]: rule.risk for rule in policy.rules for match in rule.matches}
    assert risks == {"/secret": "money", "/pay": "high"}
    assert policy.tiers["money"] == IN_FORCE.tiers["money"]
    assert policy.approvers["123"] == ("alice", "bob")
    assert "decide_within: 3600s" in text


def test_credentials_go_in_as_they_were_used() -> None:
    _, policy = learnt(
        seen(path="/a", credentials=("api", "key")),
        seen(path="/b", credentials=("login",)),
        seen(path="/c", credentials=None),
        seen(path="/d", credentials=("gone",)),
        seen(path="/e", credentials=("api",), host="a.wide.example", port=8443),
        seen(path="/f", credentials=("api",), host="other.example"),
        seen(path="/g", credentials=("api",), scheme="http", port=80),
    )
    used = {
        (match.hosts[0].host, path): rule.use
        for rule in policy.rules
        for match in rule.matches
        for path in match.paths
    }
    assert used["api.example", "/a"] == ("api", "key")
    assert used["api.example", "/b"] == ("login",)
    assert used["other.example", "/f"] == ()
    assert used["a.wide.example", "/e"] == ("api",)
    assert used["api.example", "/d"] == used["api.example", "/g"] == ()
    for name in ("api", "login", "key"):
        one, other = policy.credentials[name], IN_FORCE.credentials[name]
        assert (one.secret, one.hosts, one.inject, one.env) == (
            other.secret,
            other.hosts,
            other.inject,
            other.env,
        )


def test_tunnels_and_plain_http_stay_what_they_are() -> None:
    _, policy = learnt(
        seen("CONNECT", "", "tunnel", host="pypi.org"),
        seen("CONNECT", "", "tunnel", host="a.wide.example"),  # a credential's by now
        seen("GET", "/x", scheme="http", host="plain.example", port=8080),
        seen("GET", "/x", host="2001:db8::1"),
    )
    assert {(rule.effect, rule.matches[0].scheme) for rule in policy.rules} == {
        ("tunnel", "https"),
        ("allow", "http"),
        ("allow", "https"),
    }


def test_the_head_says_what_the_file_does_not_have() -> None:
    text, _ = learnt(seen())
    head = " ".join(line.strip("# ") for line in text.splitlines() if line.startswith("#"))
    assert (
        "query, headers, body, time and source is not in it, and neither are their limits" in head
    )


def test_nothing_seen_is_nothing_allowed() -> None:
    _, policy = learnt()
    assert policy.rules == ()


@pytest.mark.parametrize(
    "path",
    [
        "/a\nrules: []",
        '/"]}\n    effect: allow',
        "/\x1b[2J",
        "/a/../b",
        "/{id}",
        "/#x",
        "/\u2028",
        "no-slash",
        "",
        "/**/x" + "\x00",
    ],
)
def test_a_forged_path_is_left_out(path: str) -> None:
    text, policy = learnt(seen(path=path), seen(path="/fine"))
    assert [match.paths for rule in policy.rules for match in rule.matches] == [("/fine",)]
    assert "1 call left out" in text


@pytest.mark.parametrize(
    ("method", "host", "port"),
    [
        ("GET\n#", "a.example", 443),
        ("get", "a.example", 443),
        ("CONNECT", "a.example", 443),
        ("GET", "a\n.example", 443),
        ("GET", "A.example", 443),
        ("GET", "a.example", 0),
        ("GET", "a.example", 99999),
    ],
)
def test_a_forged_place_is_left_out(method: str, host: str, port: int) -> None:
    _, policy = learnt(seen(method, host=host, port=port))
    assert policy.rules == ()


def test_an_agent_cannot_write_into_the_file() -> None:
    """What it may choose: any canonical path."""
    odd = "%23 ' !!python &x *x %C3%A9 =cmd a:b - @x , null true 1e3 ~ $(x)"
    paths = [f"/{word}" for word in odd.split()]
    text, policy = learnt(*(seen(path=path) for path in paths))
    plain = yaml.safe_load(text)
    assert plain.keys() == {"version", "rules"}
    assert len(policy.rules) == 1
    for line in text.splitlines():
        assert line.isascii()
        assert line.isprintable()


def test_an_agent_name_that_looks_like_something_else_is_quoted() -> None:
    _, policy = learnt(seen(), agent="123")
    assert policy.rules[0].agents == ("123",)


PROPOSE = """
from tests.rules.trying.test_learn import learnt, seen
paths = ["/v1/x/%d" % n for n in range(9)] + ["/a", "/b/deadbeef", "/b/cafebabe/c", "/A"]
held = dict(said="hold", tiers=("medium", "money"))
print(learnt(
    *[seen(m, path, credentials=("key", "api")) for path in paths for m in ("GET", "PUT")],
    *[seen("POST", path, host=h, **held) for path in paths for h in ("b.example", "api.example")],
)[0])
"""


def test_the_same_calls_give_the_same_file() -> None:
    """Whatever order Python gives its sets in, which differs from process to process."""
    files = {
        subprocess.run(
            [sys.executable, "-c", PROPOSE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3", "4")
    }  # fmt: skip
    assert len(files) == 1
    assert "effect: hold" in files.pop()


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "MOST_PATHS", 3)
    text, _ = learnt(*(seen(path=f"/{word}") for word in ("a", "b", "c", "d", "e", "a")))
    assert "4 calls covered" in text
    assert "2 calls left out" in text
    monkeypatch.setattr(learn, "MOST_WRITTEN", 2)
    text, _ = learnt(*(seen(path=f"/{word}") for word in "abc"))
    assert "2 calls covered" in text


def test_paths_that_a_hold_reads_as_one_do_not_clash() -> None:
    """It would deny what went out with another credential for the same header than its own."""
    held = {"said": "hold", "tiers": ("medium",), "credentials": ("api",)}
    calls = [
        seen(path="/A/1", **held),  # type: ignore[arg-type]
        seen(path="/A/2", **held),  # type: ignore[arg-type]
        seen(path="/a/7", credentials=("login",)),
        seen(path="/b", credentials=("login",)),
    ]
    text, policy = learnt(*calls)
    assert "1 call left out" in text
    trial = Replay(policy, lambda _: None)
    assert [change and change.outcome for change in map(trial.take, calls)] == [
        None,
        None,
        "hold",
        None,
    ]


def test_of_writes_that_clash_one_keeps_its_rule() -> None:
    calls = [
        seen("POST", "/a", credentials=("api",)),
        seen("POST", "/a/", credentials=("login",)),
    ]
    text, policy = learnt(*calls)
    assert "1 call left out" in text
    trial = Replay(policy, lambda _: None)
    changes = map(trial.take, calls)
    assert [change and change.outcome for change in changes] == ["hold", "hold"]


def test_a_tunnel_beside_calls_to_its_host_is_left_out() -> None:
    text, policy = learnt(seen(), seen("CONNECT", "", "tunnel"))
    assert [rule.effect for rule in policy.rules] == ["allow"]
    assert "1 call left out" in text


def test_so_is_one_beside_plain_http_to_its_port() -> None:
    learner = Learner("bot", IN_FORCE)
    learner.take(seen("GET", "/a", host="x.example", port=8443, scheme="http"), TIME)
    learner.take(seen("CONNECT", "", "tunnel", host="x.example", port=8443), TIME)
    proposal = learner.propose()
    assert [rule.how.effect for rule in proposal.rules] == ["allow"]
    assert (proposal.calls, proposal.left_out) == (1, 1)


def test_no_two_rules_have_one_name() -> None:
    """Whatever hosts and tiers are called."""
    more = "".join(f"  {tier}: {{quorum: [{{group: any, count: 1}}]}}\n" for tier in ("t", "t-2"))
    learner = Learner("bot", load_policy(POLICY.replace("tiers:\n", "tiers:\n" + more))[0])
    learner.take(seen("POST", "/a", "hold", tiers=("t",)), TIME)
    learner.take(seen("POST", "/b", "hold", tiers=("t-2",), credentials=("api",)), TIME)
    learner.take(seen("POST", "/c", "hold", tiers=("t",), credentials=("api",)), TIME)
    learner.take(seen("POST", "/d", "hold", tiers=("t-2",)), TIME)
    rules = load_policy(learner.propose().text())[0].rules
    assert len({rule.id for rule in rules}) == len(rules) == 4


def test_denied_calls_that_fall_under_it_are_marked() -> None:
    text, _ = learnt(
        seen(path="/v1/x/1"),
        seen(path="/v1/x/2"),
        seen(path="/v1/x/3", said="deny"),
        seen(path="/v1/y", said="deny"),
        seen("PUT", "/v1/x/1", "deny"),
    )
    assert '"/v1/x/{id}"  # 2, and 1 that were denied' in text
    assert "2 denied calls left out" in text
    assert "1 denied call would fall under these rules" in text


def test_what_looks_like_a_key_is_not_in_the_file() -> None:
    key = "sk_test_" + "4eC39HqLyjWDarjt"
    text, policy = learnt(seen(path=f"/reset/{key}"))
    assert key not in text
    assert [match.paths for rule in policy.rules for match in rule.matches] == [("/reset/{id}",)]


CALLS = st.builds(
    seen,
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
    st.sampled_from(
        ["/", "/a", "/a/", "/a/1", "/a/2", "/a/3/b", "/b/deadbeef", "/b/cafebabe/c", "/a*", "/A"]
    )
    | st.sampled_from(["/a/x%2Fy", "/a%2Fx", "/b/x%2Fy/c"]),
    st.sampled_from(["allow", "allow", "hold", "deny"]),
    host=st.sampled_from(["api.example", "b.example"]),
    tiers=st.sampled_from([("medium",), ("money",), ("high",)]),
    credentials=st.sampled_from([(), ("api",), ("login",), ("api", "key"), None]),
)


@given(st.lists(CALLS, max_size=30))
def test_a_replay_of_what_was_learnt_only_asks_more(calls: list[Seen]) -> None:
    learner = Learner("bot", IN_FORCE)
    for call in calls:
        learner.take(call, TIME)
    proposal = learner.propose()
    candidate, warnings = load_policy(proposal.text())
    assert warnings == ()
    trial = Replay(candidate, lambda _: None)
    changes = [change for call in calls if (change := trial.take(call))]
    if proposal.left_out and any(odd in c.glimpse.path for c in calls for odd in ("*", "%2F")):
        return
    for change in changes:
        seen_then = change.seen
        if change.kind == "otherwise":
            continue
        if seen_then.said == "allow":
            assert change.outcome == "hold"
            assert seen_then.glimpse.method in ("POST", "PUT", "DELETE") or any(
                call.said == "hold" and _alike(call, seen_then) for call in calls
            )
        else:
            assert seen_then.said == "deny"


def _alike(one: Seen, other: Seen) -> bool:
    """Whether a hold reads the two paths as one."""
    paths = [seen.glimpse.path.lower().rstrip("/") for seen in (one, other)]
    return paths[0] == paths[1]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CALLS, max_size=20))
def test_what_is_proposed_is_sound(calls: list[Seen]) -> None:
    """No error in it, no risky method that goes unasked, and each call that it says it covers."""
    learner = Learner("bot", IN_FORCE)
    for call in calls:
        learner.take(call, TIME)
    proposal = learner.propose()
    assert check(proposal.text()).valid
    book = Rulebook(load_policy(proposal.text())[0])
    lost = 0
    for call in calls:
        requests = [
            dataclasses.replace(call.glimpse, method=method).request()
            for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND")
        ]
        assert all(book.decide(BOT, request).effect != "allow" for request in requests)
        if call.said != "deny":
            effect = book.decide(BOT, call.glimpse.request()).effect
            assert effect in ("allow", "hold", "deny")[call.said == "hold" :]
            lost += effect == "deny"
    assert lost <= proposal.left_out
    assert proposal.calls + proposal.left_out == sum(call.said != "deny" for call in calls)
