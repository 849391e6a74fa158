"""Published policies: numbered, followed by everybody, and never a bad one."""

from __future__ import annotations

import pytest

from broker.errors import StoreUnavailable
from rules import packs
from rules.errors import InvalidFile
from rules.include import Sources
from tests.support.services import POLICY, World

OTHER = POLICY.replace("id: open", "id: opened")


def test_a_new_text_is_the_next_version_and_the_same_is_not_published_again(world: World) -> None:
    policies = world.services.policies
    assert policies.publish(POLICY, "cli:test")[0] == 1
    assert policies.publish(OTHER, "cli:test")[0] == 2
    assert policies.publish(OTHER, "cli:test")[0] == 2
    assert policies.publish(POLICY, "cli:test")[0] == 3
    assert [r["version"] for r in world.records("policy.published")] == [1, 2, 3]


def test_other_processes_follow_when_they_refresh(world: World) -> None:
    other = world.open().policies
    assert other.current() is None
    first = other.refresh()
    assert first is not None
    assert first.version == 1
    assert other.refresh() is first, "what is loaded stays"
    world.services.policies.publish(OTHER, "cli:test")
    assert other.current() is first
    second = other.refresh()
    assert second is not None
    assert (second.version, other.current()) == (2, second)
    assert any(rule.id == "opened" for rule in second.rulebook.policy.rules)


def test_a_bad_text_changes_nothing_and_is_recorded(world: World) -> None:
    policies = world.services.policies
    with pytest.raises(InvalidFile, match=r"policy.yaml:\d+: error"):
        policies.publish(POLICY.replace("effect: deny", "effect: maybe"), "cli:test")
    [refused] = world.records("policy.refused")
    assert refused["by"] == "cli:test"
    assert "policy.yaml:" in refused["problems"][0]
    found = policies.refresh()
    assert found is not None
    assert found.version == 1


def test_warnings_are_returned(world: World) -> None:
    unused = POLICY.replace("approvers: {", "approvers: {nobody: [zoe], ")
    _, warnings = world.services.policies.publish(unused, "cli:test")
    assert all(problem.severity == "warning" for problem in warnings)


def test_without_a_policy_there_is_none(world: World) -> None:
    world.services.store.write(lambda tx: tx.db.execute("DELETE FROM policies"))
    assert world.open().policies.refresh() is None


def test_a_text_that_this_program_cannot_read_leaves_what_is_loaded(world: World) -> None:
    """A newer program published it, say."""
    policies = world.services.policies
    loaded = policies.refresh()

    def forge(tx: object) -> None:
        db = tx.db  # type: ignore[attr-defined]
        db.execute("INSERT INTO policies VALUES (9, 'version: 2', '', '', '', '{}', 0)")
        db.execute("UPDATE counters SET value = value + 1 WHERE topic = 'policies'")

    world.services.store.write(forge)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="version 9 of the policy cannot be used here"):
            policies.refresh()
    assert policies.current() is loaded


INCLUDING = POLICY + "include:\n  - {pack: stripe, agents: [bot]}\n"


def test_a_version_keeps_the_packs_that_it_was_published_with(world: World) -> None:
    """Also when the program that reads it has others, as after an upgrade."""
    policies = world.services.policies
    text = packs.text_of("stripe")
    assert text is not None
    older = Sources({"stripe": text.replace("id: refund-create", "id: refund-made")})
    assert policies.publish(INCLUDING, "cli:test", sources=older)[0] == 2
    found = world.open().policies.refresh()
    assert found is not None
    assert "stripe.refund-made" in {rule.id for rule in found.rulebook.policy.rules}
    assert policies.publish(INCLUDING, "cli:test")[0] == 3, "another pack is another version"
    assert policies.publish(INCLUDING, "cli:test")[0] == 3
    published = world.records("policy.published")[-2:]
    assert [list(record["included"]) for record in published] == [["stripe"]] * 2
    assert len({record["included"]["stripe"] for record in published}) == 2
    assert len({record["sha256"] for record in published}) == 2


def test_what_is_loosened_stands_in_the_ledger(world: World) -> None:
    text = INCLUDING + "override:\n  stripe.refund-create: {effect: allow}\n"
    _, warnings = world.services.policies.publish(text, "cli:test")
    assert "loosened" in {warning.code for warning in warnings}
    assert world.records("policy.published")[-1]["loosened"] == ["stripe.refund-create"]


def test_each_version_can_be_had_again(world: World) -> None:
    before = world.services.policies.newest()
    assert before is not None
    number = world.publish("version: 1\nrules: []\n")
    assert (number, world.services.policies.newest()) == (before + 1, number)
    first, last = (world.services.policies.version(n) for n in (before, number))
    assert first is not None
    assert last is not None
    assert (len(first.rules) > 0, last.rules) == (True, ())
    assert world.services.policies.version(number + 1) is None
