"""Rules in shadow on the path of a call: recorded, counted, and without any effect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.errors import StoreUnavailable
from broker.passage import Passage
from broker.telemetry.metrics import SHADOW
from rules.errors import InvalidFile
from tests.support.services import CANARY, POLICY, World, complete, problem_of, raw, refund

NO_READS = """\
  - id: no-reads
    agents: [bot]
    match: {host: api.stripe.com, method: GET}
    effect: deny
    mode: shadow
"""
ANY_DELETE = """\
  - id: any-delete
    agents: [bot]
    match: {host: api.stripe.com, method: DELETE}
    effect: allow
    use: [stripe]
    mode: shadow
"""
NO_REFUNDS = """\
  - {id: no-refunds, agents: [bot], match: {path: /v1/refunds}, effect: deny, mode: shadow}
"""


ONE_READ = """\
  - id: one-read
    agents: [bot]
    match: {host: api.stripe.com, method: GET}
    effect: allow
    limit: {calls: 1, per: 1d}
    mode: shadow
"""


async def ask(world: World, asked: Any) -> Any:
    outcome = await world.pipeline(hold_wait=0.05).handle(world.client(), asked, asyncio.Event())
    if isinstance(outcome, Passage):
        await complete(outcome)
    return outcome


def counted(world: World) -> dict[tuple[str, ...], float]:
    cells = world.meters._cells
    return {values: cells[at] for values, at in world.meters.shadow.at.items() if cells[at]}


async def test_a_deny_in_shadow_denies_nothing(world: World) -> None:
    world.publish(POLICY + NO_READS)
    assert isinstance(await ask(world, raw()), Passage)
    (sent,) = world.records("call.sent")
    assert sent["rules"] == ["read"]
    assert sent["shadow"] == {
        "effect": "deny",
        "rules": [{"rule": "no-reads", "effect": "deny"}],
    }
    assert counted(world) == {("allow", "deny"): 1.0}


async def test_an_allow_in_shadow_allows_nothing(world: World) -> None:
    """And gets no secret."""
    world.publish(
        POLICY.replace("  - id: no-delete", "  - id: no-patch").replace("DELETE", "PATCH")
        + ANY_DELETE
    )
    told = problem_of(await ask(world, raw("DELETE", "/v1/charges/1")))
    assert told["code"] == "policy_denied"
    assert "any-delete" not in str(told)  # agents are told nothing of it
    (denied,) = world.records("call.denied")
    assert denied["shadow"]["effect"] == "allow"
    assert world.secrets.reads == []
    assert counted(world) == {("deny", "allow"): 1.0}


async def test_a_held_call_says_what_is_tried_too(world: World) -> None:
    world.publish(POLICY + NO_REFUNDS)
    assert problem_of(await ask(world, refund()))["code"] == "approval_pending"
    (opened,) = world.records("approval.opened")
    assert opened["shadow"] == {
        "effect": "deny",
        "rules": [{"rule": "no-refunds", "effect": "deny"}],
    }
    assert CANARY not in str(opened)


async def test_calls_that_nothing_in_shadow_is_about_say_nothing_of_it(world: World) -> None:
    world.publish(POLICY + NO_REFUNDS)
    await ask(world, raw())
    told = [record["type"] for record in world.records() if "shadow" in record]
    assert set(told) == {"policy.published"}
    assert counted(world) == {}


async def test_a_whole_file_in_shadow_leaves_the_version_before_in_force(world: World) -> None:
    before = world.services.policies.current()
    assert before is not None
    tried = world.publish("mode: shadow\n" + POLICY.replace("effect: allow", "effect: deny"))
    now = world.services.policies.current()
    assert now is not None
    assert (now.version, tried) == (before.version, before.version + 1)
    assert isinstance(await ask(world, raw()), Passage)
    (sent,) = world.records("call.sent")
    assert sent["policy"] == before.version
    assert sent["shadow"] == {
        "effect": "deny",
        "rules": [{"rule": "read", "effect": "deny"}],
        "policy": tried,
    }
    published = world.records("policy.published")[-1]
    assert published["mode"] == "shadow"
    # One file in shadow after another: still the same is in force; and without the line it counts.
    world.publish("mode: shadow\nversion: 1\nrules: []\n")
    current = world.services.policies.current()
    assert current is not None
    assert current.version == before.version == world.services.policies.in_force()
    world.publish("version: 1\nrules: []\n")
    assert problem_of(await ask(world, raw()))["code"] == "policy_denied"


async def test_limits_of_what_is_in_shadow_neither_count_nor_refuse(world: World) -> None:
    """Of a rule, and of a whole file; once in force they begin with nothing used."""
    limited = POLICY + ONE_READ.replace("    mode: shadow\n", "")
    for tried in (POLICY + ONE_READ, "mode: shadow\n" + limited):
        world.publish(tried)
        for _ in range(3):
            assert isinstance(await ask(world, raw()), Passage)
        for record in world.records("call.sent")[-3:]:
            assert record["rules"] == ["read"]
            assert record["shadow"]["effect"] == "allow"
            assert {"rule": "one-read", "effect": "allow"} in record["shadow"]["rules"]
        assert world.rows("SELECT * FROM limit_uses") == []
        assert world.rows("SELECT * FROM limit_counters") == []
    world.publish(limited)
    assert isinstance(await ask(world, raw()), Passage)
    assert problem_of(await ask(world, raw()))["code"] == "policy_denied"
    assert world.rows("SELECT rule, used FROM limit_counters") == [("one-read", "1")]


async def test_another_process_starts_with_what_is_in_force(world: World) -> None:
    world.publish("mode: shadow\nversion: 1\nrules: []\n")
    other = world.open().policies.refresh()
    assert other is not None
    assert (other.version, other.shadow is not None) == (1, True)


def test_all_shadow_with_nothing_in_force_is_refused(world: World) -> None:
    def forget(tx: Any) -> None:
        tx.db.execute("DELETE FROM policies")

    policies = world.services.policies
    world.services.store.write(forget)
    with pytest.raises(InvalidFile, match="every call would be denied"):
        policies.publish("mode: shadow\n" + POLICY, "cli:test")
    assert world.records("policy.refused")

    def forge(tx: Any) -> None:
        tx.db.execute(
            "INSERT INTO policies VALUES (9, ?, '', '', '', '{}', 1)", ("mode: shadow\n" + POLICY,)
        )
        tx.db.execute("UPDATE counters SET value = value + 1 WHERE topic = 'policies'")

    world.services.store.write(forge)
    with pytest.raises(StoreUnavailable, match="version 9"):
        policies.refresh()


async def test_every_pair_of_effects_can_be_counted(world: World) -> None:
    assert len(SHADOW.values) == 9


async def test_the_history_and_the_ledger_find_it(world: World) -> None:
    from contextlib import closing

    from audit import query
    from audit.filters import read_filter
    from audit.history import History
    from audit.reading import open_ledger

    world.publish(POLICY + NO_READS)
    await ask(world, raw())
    await ask(world, refund())
    world.settle()
    history = History(world.path, world.path.with_name("history.db"))
    for value, many in (("no-reads", 1), ("deny", 1), ("hold", 0), ("read", 0)):
        wanted = read_filter({"shadow": value})
        assert len(history.search(wanted, limit=10).calls) == many
        with closing(open_ledger(world.path)) as db:
            assert len(query.search(db, wanted)) == many
