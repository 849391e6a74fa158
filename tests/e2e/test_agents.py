"""Agents of the running program: tokens, expiry, revocation, and what an agent learns of itself."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

POLICY = """
version: 1
rules:
  - {id: open, agents: ["tag:all"], match: {host: "$HOST", path: /**}, effect: allow}
  - {id: ask, agents: ["tag:all"], match: {method: POST, host: "$HOST", path: /**}, effect: hold,
     summary: "Write {path}"}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Program]:
    """Two workers, so that whatever is said to one must reach the other."""
    directory = tmp_path_factory.mktemp("agents")
    with Program(directory, upstream, policy=POLICY, workers=2, hold_wait="1s") as program:
        yield program


def echo(kb: Program, agent: AgentKey) -> int:
    return kb.curl(agent, kb.upstream.url + "/echo").status


def wrong(agent: AgentKey, **changed: str) -> AgentKey:
    return AgentKey(agent.name, changed.get("token", agent.token), changed["proxy_url"])


def refused_at_connect(kb: Program, agent: AgentKey | None) -> bool:
    """Whether CONNECT is answered with 407 and a challenge."""
    reply = kb.curl(agent, kb.upstream.url + "/echo")
    return reply.exit != 0 and "407" in reply.stderr


def test_a_token_works_until_it_is_rotated(kb: Program) -> None:
    old = kb.agent("rotated", "--tag", "all")
    assert echo(kb, old) == 200
    made = kb.json("agent", "rotate", "rotated")
    new = AgentKey(made["agent"], made["token"], made["proxy_url"])
    assert new.token != old.token
    # Whichever worker answers: the old one is dead in both, the new one lives in both.
    for _ in range(6):
        assert refused_at_connect(kb, old)
        assert echo(kb, new) == 200


def test_nobody_gets_in_without_a_token_of_their_own(kb: Program) -> None:
    agent = kb.agent("careful", "--tag", "all")
    other = kb.agent("other", "--tag", "all")
    place = agent.proxy_url.rpartition("@")[2]
    assert refused_at_connect(kb, None)
    pairs = [("careful", other.token), ("nobody", agent.token), ("careful", "")]
    pairs.append(("careful", agent.token + "x"))
    for user in (f"{name}:{token}" for name, token in pairs):
        assert refused_at_connect(kb, wrong(agent, proxy_url=f"http://{user}@{place}"))
    count = len(kb.upstream.requests)
    reply = kb.curl(None, "http://keybroker.internal/v1/whoami")
    assert (reply.status, reply.code) == (407, "agent_unauthenticated")
    assert reply.headers["proxy-authenticate"].startswith("Basic")
    assert reply.json["code"] == "agent_unauthenticated" and reply.json["detail"]
    assert len(kb.upstream.requests) == count


def test_a_revocation_holds_from_the_next_call_on_an_open_connection(kb: Program) -> None:
    agent = kb.agent("fired", "--tag", "all")
    connections = [kb.tunnel(agent, kb.upstream.url) for _ in range(4)]  # in either worker
    for connection in connections:
        connection.request("GET", "/echo")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    kb.cli("agent", "revoke", "fired")
    count = len(kb.upstream.requests)
    for connection in connections:
        connection.request("GET", "/echo")
        answer = connection.getresponse()
        assert answer.status == 407
        assert json.loads(answer.read())["code"] == "agent_unauthenticated"
        connection.close()
    assert len(kb.upstream.requests) == count
    assert refused_at_connect(kb, agent)
    taken = kb.run("agent", "add", "fired")
    assert taken.returncode != 0 and "fired" in taken.stderr


def test_an_agent_that_expired_is_out(kb: Program) -> None:
    agent = kb.agent("temp", "--tag", "all", "--expires", "4s")
    connection = kb.tunnel(agent, kb.upstream.url)
    connection.request("GET", "/echo")
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    listed = {one["agent"]: one for one in kb.json("agent", "list")}
    until = datetime.fromisoformat(listed["temp"]["expires_at"])
    wait_until(lambda: datetime.now(UTC) > until, what="the agent expires")
    connection.request("GET", "/echo")
    assert connection.getresponse().status == 407
    connection.close()
    assert refused_at_connect(kb, agent)
    assert "expired" in kb.cli("agent", "list")


def test_list_shows_agents_and_never_tokens(kb: Program) -> None:
    agent = kb.agent("listed", "--owner", "alice", "--tag", "all", "--tag", "night")
    shown = kb.cli("agent", "list") + kb.cli("agent", "list", "--json")
    assert agent.token not in shown
    one = next(a for a in kb.json("agent", "list") if a["agent"] == "listed")
    assert (one["owner"], one["tags"]) == ("alice", ["all", "night"])
    assert "listed" in kb.cli("agent", "list")


def test_tokens_are_stored_as_hashes(kb: Program) -> None:
    agent = kb.agent("hashed", "--tag", "all")
    state = b"".join(p.read_bytes() for p in kb.database.parent.glob("keybroker.db*"))
    assert agent.token.encode() not in state
    assert hashlib.sha256(agent.token.encode()).hexdigest().encode() not in state  # as bytes only
    assert echo(kb, agent) == 200


def test_an_agent_learns_who_it_is_and_what_it_may(kb: Program) -> None:
    agent = kb.agent("curious", "--tag", "all", "--owner", "alice")
    reply = kb.curl(agent, "http://keybroker.internal/v1/whoami")
    assert reply.status == 200
    assert reply.json["agent"] == "curious" and reply.json["owner"] == "alice"
    effects = {rule["id"]: rule["effect"] for rule in reply.json["rules"]}
    assert effects == {"open": "allow", "ask": "hold"}
    assert all(rule["sentence"] for rule in reply.json["rules"])
    stranger = kb.agent("stranger")
    assert kb.curl(stranger, "http://keybroker.internal/v1/whoami").json["rules"] == []


def test_the_certificate_is_served_and_shown(kb: Program, tmp_path: Path) -> None:
    agent = kb.agent("trusting", "--tag", "all")
    served = kb.curl(agent, "http://keybroker.internal/ca.pem").body.decode()
    shown = kb.cli("ca", "show")
    assert "BEGIN CERTIFICATE" in served and served.strip() == shown.strip()
    assert "PRIVATE" not in served + shown
    ssl.create_default_context(cadata=served)
    missing = kb.curl(agent, "http://keybroker.internal/state/keybroker.db")
    assert missing.status == 404 and missing.json["code"] == "not_found"


def test_another_agents_approvals_are_not_there(kb: Program) -> None:
    mine, theirs = kb.agent("mine", "--tag", "all"), kb.agent("theirs", "--tag", "all")
    held = kb.curl(mine, kb.upstream.url + "/private", "-d", "x")
    approval = held.json["approval"]["id"]
    url = f"http://keybroker.internal/v1/approvals/{approval}"
    assert kb.curl(mine, url).json["state"] == "pending"
    for reply in (kb.curl(theirs, url), kb.curl(theirs, url + "/execute", "-X", "POST")):
        assert (reply.status, reply.json["code"]) == (404, "not_found")


def test_hold_wait_and_pending_status_are_the_agents_own(kb: Program) -> None:
    agent = kb.agent("hasty", "--tag", "all", "--hold-wait", "0s", "--pending-status", "429")
    held = kb.curl(agent, kb.upstream.url + "/hasty", "-d", "x")
    assert (held.status, held.code) == (429, "approval_pending")
    assert held.headers["retry-after"]


def test_an_agent_can_have_so_many_calls_held_and_no_more(kb: Program) -> None:
    """200 of them; the refusal says so, nothing is forwarded, and other agents are not touched."""
    agent = kb.agent("greedy", "--tag", "all", "--hold-wait", "0s")
    connection = kb.tunnel(agent, kb.upstream.url)
    count = len(kb.upstream.requests)
    codes = []
    for number in range(205):
        connection.request("POST", "/greedy", f"n={number}")
        answer = connection.getresponse()
        codes.append(json.loads(answer.read())["code"])
    assert answer.status == 429 and answer.headers["retry-after"]
    connection.close()
    assert codes == ["approval_pending"] * 200 + ["too_many_pending"] * 5
    other = kb.agent("modest", "--tag", "all", "--hold-wait", "0s")
    assert kb.curl(other, kb.upstream.url + "/x", "-d", "x").code == "approval_pending"
    assert len(kb.upstream.requests) == count
    # Once the agent is gone its held calls are ended, and their bodies with them.
    kb.cli("agent", "revoke", "greedy")
    wait_until(
        lambda: (
            not [
                a for a in kb.json("approvals", "list", "--limit", "1000") if a["agent"] == "greedy"
            ]
        ),
        what="the calls of a revoked agent end",
    )


def test_an_agent_can_have_so_many_bytes_held_and_no_more(kb: Program, tmp_path: Path) -> None:
    agent = kb.agent("heavy", "--tag", "all", "--hold-wait", "0s")
    codes = []
    for number in range(7):  # 10 MiB each, more as stored; 64 MiB may be stored
        body = tmp_path / "body"
        body.write_bytes(bytes([number]) * (10 << 20))
        reply = kb.curl(agent, kb.upstream.url + "/heavy", "--data-binary", f"@{body}")
        codes.append(reply.code)
    held = codes.count("approval_pending")
    assert 3 <= held <= 6
    assert codes == ["approval_pending"] * held + ["too_many_pending"] * (7 - held)


def test_every_act_on_an_agent_is_in_the_ledger(kb: Program) -> None:
    kb.agent("logged", "--owner", "alice")
    kb.cli("agent", "rotate", "logged")
    kb.cli("agent", "revoke", "logged")
    records = kb.records(agent="logged")
    assert [r["type"] for r in records] == ["agent.added", "agent.rotated", "agent.revoked"]
    assert all(r["data"]["by"].startswith("cli:") for r in records)
    kb.verify()
