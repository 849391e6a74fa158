"""A candidate policy against what really happened: real calls through the real pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from audit.past import Past
from audit.reading import open_ledger
from keybroker import replaying
from keybroker.policy import subjects
from keybroker.replaying import Replayed, earlier, moment_of
from rules.load import load_policy
from rules.trying.replay import Change
from tests.support.past import go_by
from tests.support.services import POLICY, World, payout, raw, refund, template, world

__all__ = ["template", "world"]

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", "2026-11-15T12:00:00.000000Z"),
        ("90m", "2026-11-22T10:30:00.000000Z"),
        ("2026-11-01", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T01:00:00+01:00", "2026-11-01T00:00:00.000000Z"),
    ],
)
def test_a_time_is_so_long_ago_or_in_full(text: str, moment: str) -> None:
    assert moment_of(text, NOW, "since") == moment


@pytest.mark.parametrize("text", ["", "7", "yesterday", "999999999d", "-1d"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="since"):
        moment_of(text, NOW, "since")


@contextmanager
def past(world: World) -> Iterator[Past]:
    with closing(open_ledger(world.path)) as db:
        yield Past(db)


def try_out(world: World, policy: str) -> tuple[Replayed, list[Change]]:
    changes: list[Change] = []
    services = world.services
    with past(world) as calls:
        done = replaying.replay(
            calls,
            load_policy(policy)[0],
            earlier(services.policies),
            subjects(services.agents.list()),
            services.people.list(),
            each=changes.append,
            progress=lambda _: None,
        )
    return done, changes


CALLS = (
    raw(),
    raw(path="/v1/charges?limit=3"),
    raw(host="open.example", path="/x"),
    raw("POST", "/y", host="open.example", body=b'{"n": 1}'),
    raw("DELETE", "/v1/charges/1"),
    raw("PUT", "/v1/charges/1"),
    refund(),
    refund(),
    payout(),
)


@pytest.fixture
def busy(world: World) -> World:
    go_by(world, *CALLS)
    return world


def test_the_same_policy_changes_nothing(busy: World) -> None:
    done, changes = try_out(busy, POLICY)
    assert (done.replay.calls, done.replay.unchanged, changes) == (9, 9, [])
    # One a refund (the second joined it), two people for the payout.
    assert dict(done.holds.average) == dict(done.then.average)
    assert dict(done.holds.average) == {"bob": 2, "carol": 2, "dave": 2}  # alice owns the agent


def test_a_stricter_policy_says_what_it_would_hold_and_deny(busy: World) -> None:
    stricter = POLICY.replace(
        "  - id: open\n",
        "  - id: ask\n    agents: [bot]\n    match: {host: open.example, method: POST}\n"
        "    effect: hold\n    risk: medium\n  - id: open\n",
    ).replace("path: /v1/**", "path: /v1/balance")
    done, changes = try_out(busy, stricter)
    assert {(c.kind, c.seen.said, c.outcome, c.rule, c.was) for c in changes} == {
        ("changed", "allow", "hold", "ask", "open"),
        ("changed", "allow", "deny", None, "read"),
    }
    assert len(changes) == 3
    assert done.holds.average["bob"] == 3


def test_a_looser_policy_says_what_it_would_let_go(busy: World) -> None:
    payouts = "    effect: hold\n    risk: high\n    confirm: form:amount"
    looser = POLICY.replace(payouts, "    effect: allow")
    _, changes = try_out(busy, looser)
    assert [(c.seen.said, c.outcome, c.rule) for c in changes] == [("hold", "allow", "payout")]


def test_what_a_new_condition_looks_at_is_uncertain(busy: World) -> None:
    asking = POLICY.replace(
        "match: {host: open.example}", "match: {host: open.example, json: {/n: 1}}"
    )
    _, changes = try_out(busy, asking)
    told = {(c.kind, c.seen.glimpse.path, c.outcome) for c in changes}
    # The first has no body, so that there is nothing to be in doubt about.
    assert told == {("changed", "/x", "deny"), ("uncertain", "/y", "allow or deny")}


def test_a_condition_that_was_in_force_is_known_by_what_was_decided(busy: World) -> None:
    asking = POLICY.replace(
        "match: {host: open.example}", "match: {host: open.example, json: {/n: 1}}"
    )
    busy.publish(asking)
    asked = raw("POST", "/z", host="open.example")
    fields = ((b"Content-Type", b"application/json"), (b"Content-Length", b"8"))
    asked = replace(asked, headers=asked.headers + fields)
    go_by(busy, *(replace(asked, body=body) for body in (b'{"n": 1}', b'{"n": 2}')))
    _, changes = try_out(
        busy, asking + "  - {id: more, agents: [other], match: {}, effect: deny}\n"
    )
    assert all(c.seen.glimpse.path != "/z" for c in changes)


def test_risk_and_credentials_that_change_are_told(busy: World) -> None:
    other = POLICY.replace("risk: medium\n    summary", "risk: high\n    summary").replace(
        "path: /v1/**}\n    effect: allow\n    use: [stripe]", "path: /v1/**}\n    effect: allow"
    )
    done, changes = try_out(busy, other)
    assert {(c.kind, c.why) for c in changes} == {
        ("otherwise", "risk medium -> high"),
        ("otherwise", "credentials stripe -> none"),
    }
    assert done.replay.unchanged == 9 - len(changes)


def test_calls_of_a_policy_that_cannot_be_read_are_looked_at_alone(busy: World) -> None:
    services = busy.services
    find = earlier(services.policies)
    assert find(1) is not None
    assert find(99) is None


def test_a_denial_that_is_told_again_asks_nobody(world: World) -> None:
    go_by(world, refund())
    world.vote(world.pending()[0], decision="deny")
    go_by(world, refund(), refund())
    done, changes = try_out(world, POLICY)
    assert (done.replay.calls, changes) == (3, [])
    assert dict(done.holds.average) == dict(done.then.average)
    assert dict(done.holds.average) == {"bob": 1, "carol": 1, "dave": 1}
    # Under a rule that asks other people the repeats are known for what they are too.
    high = POLICY.replace("risk: medium\n    summary", "risk: high\n    summary")
    done, changes = try_out(world, high)
    assert {(change.kind, change.why) for change in changes} == {
        ("otherwise", "risk medium -> high")
    }
    assert done.holds.average["bob"] == 1
