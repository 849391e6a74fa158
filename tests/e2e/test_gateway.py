"""Base-URL mode with real clients: `base_url` and `api_key` are all that they are given."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as websocket

from tests.support.program import AgentKey, Program, environment, wait_until
from tests.support.upstream import Received, Reply, Upstream
from tests.support.upstream_routes import built_in

pytestmark = pytest.mark.e2e

SECRET = "sk_live_gateway_canary"
POLICY = """\
version: 1
credentials:
  llm: {secret: "kv/llm#api_key", hosts: ["$HOST"], inject: bearer}
tiers:
  medium: {exclude: []}
rules:
  - {id: chat, agents: [bot], match: {host: "$HOST", path: /v1/**}, effect: allow, use: [llm]}
  - {id: push, agents: [bot], match: {method: PUT, host: "$HOST", path: /push/**}, effect: allow,
     body: stream, use: [llm]}
  - {id: keyless, agents: [bot], match: {host: "$HOST", path: /echo}, effect: allow}
  - {id: ask, agents: [bot, other], match: {host: "$HOST", path: /ask/**}, effect: hold,
     use: [llm]}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("gateway")
    with Program(directory, upstream, policy=POLICY, workers=2, hold_wait="10s") as program:
        program.secret("kv/llm", "api_key", SECRET)
        yield program


@pytest.fixture(scope="module")
def bot(kb: Program) -> AgentKey:
    return kb.agent("bot")


@pytest.fixture(scope="module")
def boss(kb: Program) -> str:
    return kb.user("boss")


@pytest.fixture(autouse=True)
def clean(upstream: Upstream) -> None:
    upstream.clear()


def base(agent: AgentKey, upstream: Upstream) -> str:
    return f"{agent.gateway_url}/localhost:{upstream.port}"


def sdk(agent: AgentKey, upstream: Upstream, **headers: str) -> httpx.Client:
    """As an SDK builds its client from `base_url` and `api_key`."""
    return httpx.Client(
        base_url=base(agent, upstream) + "/v1", headers=headers, timeout=30, trust_env=False
    )


def test_an_openai_style_client_needs_base_url_and_key_only(
    kb: Program, bot: AgentKey, upstream: Upstream
) -> None:
    upstream.answer("/v1/chat/completions", Reply(body=b'{"choices": []}'))
    with sdk(bot, upstream, Authorization=f"Bearer {bot.token}") as client:
        for _ in range(2):
            reply = client.post("/chat/completions", json={"model": "m"}, params={"a": "b c"})
            assert reply.status_code == 200, reply.text
    first, second = upstream.requests
    assert first.target == "/v1/chat/completions?a=b+c"
    assert first.values("authorization") == [f"Bearer {SECRET}"]
    assert first.values("host") == [f"localhost:{upstream.port}"]
    assert first.connection == second.connection, "the upstream connection is kept"
    sent = kb.records(type="call.sent")[-1]
    assert sent["agent"] == "bot"
    assert sent["data"]["what"] == {
        "method": "POST",
        "scheme": "https",
        "host": "localhost",
        "port": upstream.port,
        "path": "/v1/chat/completions",
        "via": "gateway",
    }
    assert sent["data"]["rules"] == ["chat"]


def test_an_anthropic_style_client_streams(bot: AgentKey, upstream: Upstream) -> None:
    events = [b"data: 1\n\n", b"data: 2\n\n"]
    upstream.answer("/v1/messages", Reply(headers=[("Content-Type", "text/event-stream")],
                                          body=events))  # fmt: skip
    with (
        sdk(bot, upstream, **{"x-api-key": bot.token, "anthropic-version": "1"}) as client,
        client.stream("POST", "/messages", json={}) as reply,
    ):
        assert b"".join(reply.iter_raw()) == b"".join(events)
    (request,) = upstream.requests
    assert request.values("x-api-key") == []
    assert request.header("anthropic-version") == "1"
    assert request.values("authorization") == [f"Bearer {SECRET}"]


def test_an_event_arrives_before_the_next_is_sent(bot: AgentKey, upstream: Upstream) -> None:
    go_on = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: first\n\n"
        assert go_on.wait(30), "the first event was kept back"
        yield f"data: second {SECRET}\n\n".encode()

    kind = [("Content-Type", "text/event-stream")]
    upstream.answer("/v1/events", lambda _: Reply(headers=kind, body=events()))
    with (
        sdk(bot, upstream, Authorization=f"Bearer {bot.token}") as client,
        client.stream("GET", "/events") as reply,
    ):
        lines = reply.iter_lines()
        assert next(lines) == "data: first"
        go_on.set()
        rest = "\n".join(lines)
    assert "data: second" in rest and SECRET not in rest


def test_an_upload_larger_than_any_buffer_streams(
    kb: Program, bot: AgentKey, upstream: Upstream
) -> None:
    upstream.answer("/push/large", lambda r: Reply(body=b"%d" % len(r.body)))
    blocks = (bytes(1 << 16) for _ in range(256))  # 16 MiB; `body_limit` is 10
    with sdk(bot, upstream, **{"Keybroker-Token": bot.token}) as client:
        reply = client.put(base(bot, upstream) + "/push/large", content=blocks)
    assert (reply.status_code, reply.text) == (200, str(16 << 20)), reply.text
    sent = kb.records(type="call.sent", call=reply.headers["keybroker-request-id"])[-1]["data"]
    assert (sent["streamed"], sent["what"]["via"]) == (True, "gateway")


def test_a_websocket_with_the_credential(kb: Program, bot: AgentKey, upstream: Upstream) -> None:
    upstream.answer("/v1/ws", lambda r: built_in(replace(r, target="/ws")))
    url = base(bot, upstream).replace("http://", "ws://") + "/v1/ws"
    with websocket(url, additional_headers={"Keybroker-Token": bot.token}, proxy=None) as socket:
        socket.send(f"say {SECRET}")
        assert SECRET not in str(socket.recv(10))
    (request,) = upstream.requests
    assert request.values("authorization") == [f"Bearer {SECRET}"]
    assert request.header("keybroker-token") is None


def curl(url: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}",
         *options, url],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body.startswith("{") else {}


def test_curl_sends_its_own_authorization_beside_the_token(
    bot: AgentKey, upstream: Upstream
) -> None:
    status, shown = curl(
        base(bot, upstream) + "/echo", "-H", f"Keybroker-Token: {bot.token}", "-u", "me:mine"
    )
    assert status == 200
    sent = {name.lower(): value for name, value in shown["headers"]}
    assert sent["authorization"] == "Basic bWU6bWluZQ=="
    assert "keybroker-token" not in sent


def test_redirects_are_followed_at_the_gateway(bot: AgentKey, upstream: Upstream) -> None:
    upstream.answer("/v1/old", Reply(302, "Found", [("Location", f"{upstream.url}/echo")]))
    url = base(bot, upstream) + "/v1/old"
    key = f"Keybroker-Token: {bot.token}"
    status, shown = curl(url, "--location", "-H", key)
    assert (status, shown["target"]) == (200, "/echo")
    upstream.answer("/v1/away", Reply(302, "Found", [("Location", "https://away.example/x")]))
    status, refused = curl(base(bot, upstream) + "/v1/away", "--location", "-H", key)
    assert (status, refused["code"]) == (403, "policy_denied")
    assert "away.example" in refused["detail"]


def test_the_pages_of_a_list_are_followed_at_the_gateway(bot: AgentKey, upstream: Upstream) -> None:
    """As GitHub's clients do: to the absolute URL in `Link`, with the same headers."""

    def page(request: Received) -> Reply:
        number = int(request.query.get("page", "1"))
        links = [f'<{upstream.url}/v1/list?page={number + 1}>; rel="next"'] * (number < 3)
        return Reply(headers=[("Link", link) for link in links], body=b"%d" % number)

    upstream.answer("/v1/list", page)
    seen = []
    with sdk(bot, upstream, Authorization=f"Bearer {bot.token}") as client:
        url: Any = base(bot, upstream) + "/v1/list"
        while url is not None:
            reply = client.get(url)
            assert reply.status_code == 200, reply.text
            seen.append(reply.text)
            link = reply.links.get("next", {}).get("url")
            url = None if link is None else reply.url.join(link)
    assert seen == ["1", "2", "3"]
    for request in upstream.requests:
        assert request.values("authorization") == [f"Bearer {SECRET}"]


def test_what_the_policy_denies_is_denied_here_too(
    kb: Program, bot: AgentKey, upstream: Upstream
) -> None:
    status, refused = curl(base(bot, upstream) + "/other", "-H", f"X-Api-Key: {bot.token}")
    assert (status, refused["code"]) == (403, "policy_denied")
    denied = kb.records(type="call.denied")[-1]["data"]
    assert denied["what"]["via"] == "gateway"
    assert upstream.requests == []


def test_a_held_call_waits_for_a_person(
    kb: Program, bot: AgentKey, boss: str, upstream: Upstream
) -> None:
    upstream.answer("/ask/pay", Reply(201, body=b'{"paid": true}'))
    got: list[tuple[int, dict[str, Any]]] = []
    options = ("-d", "amount=5", "-H", f"Authorization: Bearer {bot.token}")
    waiting = threading.Thread(
        target=lambda: got.append(curl(base(bot, upstream) + "/ask/pay", *options))
    )
    waiting.start()
    (card,) = kb.pending(boss)
    assert upstream.requests == []
    assert kb.vote(boss, card["id"], "approve")[0] == 200
    waiting.join(20)
    assert got == [(201, {"paid": True})]
    (request,) = upstream.requests
    assert request.body == b"amount=5"


def test_a_pending_answer_leads_back_to_the_gateway(
    kb: Program, bot: AgentKey, boss: str, upstream: Upstream
) -> None:
    upstream.answer("/ask/late", Reply(body=b'{"late": true}'))
    with sdk(bot, upstream, Authorization=f"Bearer {bot.token}") as client:
        url = base(bot, upstream) + "/ask/late"
        pending = client.get(url, headers={"Prefer": "respond-async"})
        assert pending.status_code == 202
        # As a client that follows it does: relative to the URL that was asked.
        location = str(pending.url.join(pending.headers["location"]))
        place = client.get(location).json()
        assert place["state"] == "pending"
        assert pending.headers["location"] in pending.json()["detail"]
        assert kb.vote(boss, place["id"], "approve")[0] == 200
        wait_until(
            lambda: client.get(location).json()["state"] == "approved",
            what="the approval is seen",
        )
        done = client.post(location + "/execute")
        assert done.json() == {"late": True}
        whoami = client.get(f"{bot.gateway_url}/keybroker.internal/v1/whoami").json()
        assert whoami["agent"] == "bot"


def test_other_agents_tokens_and_revoked_ones_are_refused(
    kb: Program, bot: AgentKey, upstream: Upstream
) -> None:
    other = kb.agent("other")
    status, refused = curl(base(bot, upstream) + "/echo", "-H", f"X-Api-Key: {other.token}")
    assert (status, refused["code"]) == (401, "agent_unauthenticated")
    key = ("-H", f"X-Api-Key: {other.token}")
    assert curl(base(other, upstream) + "/echo", *key)[1]["code"] == "policy_denied"
    kb.cli("agent", "revoke", "other")
    assert curl(base(other, upstream) + "/echo", *key)[0] == 401
    assert upstream.requests == []


def test_the_ledger_is_whole_and_no_token_is_anywhere(kb: Program, bot: AgentKey) -> None:
    kb.verify()
    everything = json.dumps(kb.records()) + kb.log.read_text()
    assert bot.token not in everything
    assert SECRET not in everything
