"""What an agent can ask of Keybroker: about itself, and about nobody else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.errors import Refusal
from broker.internal import Internal, execution_of, own
from broker.policies import Policies
from rules.canonical import canonicalise
from tests.support.holding import hold
from tests.support.services import CA_PEM, World, internal


def ask(world: World, method: str, path: str, agent: str = "bot") -> Any:
    services = world.services
    services.policies.refresh()
    answer = Internal(services.holds, services.policies, services.placeholders, CA_PEM).answer(
        "c-1", services.agents.get(agent), canonicalise(internal(method, path))
    )
    assert answer.status == 200
    return answer.body if path == "/ca.pem" else json.loads(answer.body)


@pytest.fixture
def second(world: World) -> str:
    world.services.agents.add("second", by="cli:test")
    return "second"


@pytest.mark.parametrize("path", ["/", "/v1/whoami"])
def test_an_agent_learns_its_own_rules_in_words(world: World, path: str) -> None:
    told = ask(world, "GET", path)
    assert (told["agent"], told["owner"], told["policy_version"]) == ("bot", "alice", 1)
    sentences = {rule["id"]: rule["sentence"] for rule in told["rules"]}
    assert "allowed; Keybroker adds the credential stripe" in sentences["read"]
    assert "held until approved (medium risk" in sentences["refund"]
    assert told["otherwise"] == "Every call that no rule allows or holds is denied."


def test_rules_of_other_agents_are_not_told(world: World, second: str) -> None:
    assert [rule["id"] for rule in ask(world, "GET", "/v1/whoami", second)["rules"]] == ["refund"]


def test_the_authority_is_served(world: World) -> None:
    assert ask(world, "GET", "/ca.pem") == CA_PEM


def test_an_agent_sees_its_own_approval(world: World) -> None:
    held = hold(world)
    told = ask(world, "GET", f"/v1/approvals/{held.id}")
    assert (told["id"], told["state"], told["summary"]) == (held.id, "pending", ["Refund 5"])
    assert told["reason"] is None
    before = told["expires_at"]
    world.vote(held.id, reason="fine")
    told = ask(world, "GET", f"/v1/approvals/{held.id}")
    assert (told["state"], told["reason"]) == ("approved", "fine")
    assert told["expires_at"] < before, "now the time to execute runs, which is shorter"


def test_another_agents_approval_is_as_unknown_as_one_that_never_was(
    world: World, second: str
) -> None:
    held = hold(world)
    said = []
    for id in (held.id, "a-none"):
        with pytest.raises(Refusal, match=f"You have no approval {id}") as refused:
            ask(world, "GET", f"/v1/approvals/{id}", second)
        said.append((refused.value.code, refused.value.extra))
    assert said == [("not_found", {})] * 2
    with pytest.raises(Refusal, match="You have no approval"):
        own(world.services.holds, world.services.agents.get(second), held.id)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("POST", "/v1/whoami"),
        ("DELETE", "/v1/approvals/a-1"),
        ("GET", "/v1/approvals/a-1/execute"),
        ("GET", "/v1/approvals/a-1/x"),
        ("GET", "/v1/approvals/" + "x" * 65),
        ("GET", "/v1/approvals/a_1"),
    ],
)
def test_there_is_nothing_else(world: World, method: str, path: str) -> None:
    with pytest.raises(Refusal, match="Keybroker has nothing at") as refused:
        ask(world, method, path)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "approval"),
    [
        ("POST", "/v1/approvals/a-1/execute", "a-1"),
        ("PUT", "/v1/approvals/a-1/execute", None),
        ("GET", "/v1/approvals/a-1/execute", None),
        ("POST", "/v1/approvals/a-1", None),
        ("POST", "/v1/approvals//execute", None),
    ],
)
def test_what_asks_for_an_execution(method: str, path: str, approval: str | None) -> None:
    request = canonicalise(internal("GET", "/"))
    assert execution_of(replace(request, method=method, path=path)) == approval


def test_without_a_policy_nothing_is_promised(world: World) -> None:
    fresh = Internal(
        world.services.holds,
        Policies(world.services.store),
        world.services.placeholders,
        CA_PEM,
    )
    answer = fresh.answer(
        "c-1", world.services.agents.get("bot"), canonicalise(internal("GET", "/v1/whoami"))
    )
    told = json.loads(answer.body)
    assert (told["policy_version"], told["rules"]) == (None, [])
