"""Agents and their tokens: hashed, compared in constant time, ended at once in every process."""

from __future__ import annotations

import hmac
from datetime import timedelta

import pytest

from broker import agents as module
from broker.errors import Conflict, InvalidInput, NotFound
from broker.model import Client
from broker.tokens import token_hash
from tests.support.services import START, World


def test_a_new_agent_is_known_by_its_token(world: World) -> None:
    agents = world.services.agents
    agent, token = agents.add(
        "helper",
        owner="alice",
        tags=["b", "a", "b"],
        hold_wait=4.0,
        pending_status=429,
        by="cli:test",
    )
    client = agents.authenticate("helper", token)
    assert client is not None
    assert agents.current(client) == agent == agents.get("helper")
    assert agent.tags == {"a", "b"}
    assert (agent.hold_wait, agent.pending_status) == (4.0, 429)
    [added] = [r for r in world.records("agent.added") if r["agent"] == "helper"]
    assert (added["owner"], added["tags"], added["by"]) == ("alice", ["a", "b"], "cli:test")
    assert [a.name for a in agents.list()] == ["bot", "helper"]


def test_tokens_are_kept_as_hashes_only(world: World) -> None:
    agents = world.services.agents
    tokens = [
        world.token,
        agents.add("helper", by="cli:test")[1],
        agents.rotate("bot", "cli:test"),
        agents.run_token("bot", ttl=60, by="cli:test"),
    ]
    world.services.store.close()
    on_disk = world.files()
    for token in tokens:
        assert token.encode() not in on_disk
        assert token.split("_", 2)[2].encode() not in on_disk
        assert token_hash(token) in on_disk


@pytest.mark.parametrize("name", ["bot", "nobody", ""])
def test_a_wrong_token_is_nobodys(world: World, name: str) -> None:
    for token in ("", "kb_agent_wrong", world.token + "x", world.token[:-1]):
        assert world.services.agents.authenticate(name, token) is None


def test_a_token_is_good_for_its_own_agent_only(world: World) -> None:
    agents = world.services.agents
    _, token = agents.add("helper", by="cli:test")
    assert agents.authenticate("bot", token) is None
    client = agents.authenticate("helper", token)
    assert client is not None
    assert agents.current(Client("bot", client.token_id)) is None


@pytest.mark.parametrize("name", ["bot", "nobody"])
def test_tokens_are_compared_in_constant_time(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also for a name that nobody has: an answer takes as long."""
    compared: list[tuple[object, object]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    assert world.services.agents.authenticate(name, "kb_agent_wrong") is None
    assert compared
    assert all(other == token_hash("kb_agent_wrong") for _, other in compared)


def test_a_rotated_token_ends_at_once_everywhere(world: World) -> None:
    other = world.open().agents
    client = world.client()
    run = other.run_token("bot", ttl=60, by="cli:test")
    assert other.current(client) is not None
    new = world.services.agents.rotate("bot", "cli:test")
    assert other.current(client) is None
    assert other.authenticate("bot", world.token) is None
    assert other.authenticate("bot", run) is None
    assert other.authenticate("bot", new) is not None
    assert [r["by"] for r in world.records("agent.rotated")] == ["cli:test"]


def test_a_revocation_holds_from_the_next_call_on_in_every_process(world: World) -> None:
    other = world.open().agents
    client = other.authenticate("bot", world.token)
    assert client is not None
    world.services.agents.revoke("bot", "cli:test")
    assert other.current(client) is None
    assert other.authenticate("bot", world.token) is None
    assert other.get("bot").revoked_at is not None
    for again in (
        lambda: other.revoke("bot", "cli:test"),
        lambda: other.rotate("bot", "cli:test"),
        lambda: other.run_token("bot", ttl=60, by="cli:test"),
    ):
        with pytest.raises(Conflict, match="the agent bot was revoked"):
            again()


def test_an_agent_ends_with_its_expiry(world: World) -> None:
    agents = world.services.agents
    _, token = agents.add("brief", expires_at=START + timedelta(hours=1), by="cli:test")
    client = agents.authenticate("brief", token)
    assert client is not None
    world.clock.forward(3598)
    assert agents.current(client) is not None
    world.clock.forward(2)
    assert agents.current(client) is None
    assert agents.authenticate("brief", token) is None


def test_a_run_token_ends_by_itself_and_leaves_the_standing_one(world: World) -> None:
    agents = world.services.agents
    token = agents.run_token("bot", ttl=60, by="cli:test", note="the nightly run")
    client = agents.authenticate("bot", token)
    assert client is not None
    assert agents.run_note(client) == "the nightly run"
    assert agents.run_note(world.client()) is None
    assert agents.run_of(client) == world.records("agent.token")[0]["run"]
    assert agents.run_of(world.client()) is None
    world.clock.forward(61)
    assert agents.current(client) is None
    assert agents.current(world.client()) is not None


def test_one_token_can_be_ended(world: World) -> None:
    agents = world.services.agents
    token = agents.run_token("bot", ttl=60, by="cli:test")
    agents.end_token("bot", token, "cli:test")
    agents.end_token("bot", token, "cli:test")
    agents.end_token("bot", "unknown", "cli:test")
    assert agents.authenticate("bot", token) is None
    assert agents.authenticate("bot", world.token) is not None
    [begun], [ended] = world.records("agent.token"), world.records("agent.token_ended")
    assert begun["run"] == ended["run"]


def test_a_name_is_given_once_even_after_a_revocation(world: World) -> None:
    agents = world.services.agents
    agents.revoke("bot", "cli:test")
    records = len(world.records())
    with pytest.raises(
        Conflict, match="the agent bot was revoked, and its name is not given again"
    ):
        agents.add("bot", by="cli:test")
    assert len(world.records()) == records


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"name": "a b"}, "is no name for an agent"),
        ({"owner": "a b"}, "is no name for an owner"),
        ({"tags": ["a:b"]}, "is no name for a tag"),
        ({"pending_status": 500}, "pending status 500: it can be 503, 429 or 202"),
        ({"hold_wait": -1.0}, "hold wait -1s"),
        ({"hold_wait": 3601.0}, "hold wait 3601s: it can be 0s to 3600s"),
        ({"hold_wait": float("nan")}, "hold wait nans"),
        ({"expires_at": START}, "the expiry lies in the past"),
    ],
)
def test_impossible_values_are_refused(world: World, values: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        world.services.agents.add(**{"name": "helper", "by": "cli:test", **values})  # type: ignore[arg-type]
    assert [agent.name for agent in world.services.agents.list()] == ["bot"]


def test_an_agent_that_never_was_is_not_found(world: World) -> None:
    agents = world.services.agents
    for ask in (
        lambda: agents.get("nobody"),
        lambda: agents.rotate("nobody", "cli:test"),
        lambda: agents.revoke("nobody", "cli:test"),
        lambda: agents.run_token("nobody", ttl=1, by="cli:test"),
    ):
        with pytest.raises(NotFound, match="there is no agent nobody"):
            ask()
    assert agents.current(Client("nobody", "t-1")) is None
