"""The data plane of the running program: protocols, streaming, sizes, and upstreams that fail."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bao import free_port
from tests.support.program import AgentKey, Program, read_all, wait_until
from tests.support.upstream import Received, Reply, Upstream

pytestmark = pytest.mark.e2e

SECRET = "sk_live_dataplane_4fJ2"
BODY_LIMIT = 10 * 1024 * 1024
POLICY = """
version: 1
credentials:
  pay: {{secret: "kv/pay#api_key", hosts: ["$HOST", "localhost:{h2}"], inject: bearer}}
rules:
  - {{id: paid, agents: [bot], match: {{host: "$HOST", path: /**}}, effect: allow, use: [pay]}}
  - {{id: paid-h2, agents: [bot], match: {{host: "localhost:{h2}", path: /**}}, effect: allow,
     use: [pay]}}
  - {{id: open, agents: [bot, talker], match: {{host: "127.0.0.1:{h1}", path: /**}}, effect: allow}}
  - {{id: clear, agents: [bot], match: {{scheme: http, host: "localhost:{clear}", path: /**}},
     effect: allow}}
  - {{id: bad, agents: [bot], match: {{host: ["localhost:{stranger}", "localhost:{expired}",
     "localhost:{misnamed}", "localhost:{nobody}"], path: /**}}, effect: allow}}
"""


@dataclass(frozen=True)
class Setup:
    kb: Program
    bot: AgentKey
    h1: Upstream
    h2: Upstream
    clear: Upstream
    stranger: Upstream
    expired: Upstream
    misnamed: Upstream
    nobody: int

    def options(self) -> dict[str, Any]:
        """What httpx needs to know."""
        context = ssl.create_default_context(cafile=str(self.kb.ca_file))
        return {"proxy": self.bot.proxy_url, "verify": context, "timeout": 60, "trust_env": False}

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(**self.options(), **options)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    nobody = free_port()
    with (
        Upstream() as h1,
        Upstream(http2=True, ca=h1.ca) as h2,
        Upstream(tls=False) as clear,
        Upstream() as stranger,
        Upstream(certificate="expired", ca=h1.ca) as expired,
        Upstream(certificate="wrong-name", ca=h1.ca) as misnamed,
    ):
        policy = POLICY.format(
            h1=h1.port,
            h2=h2.port,
            clear=clear.port,
            stranger=stranger.port,
            expired=expired.port,
            misnamed=misnamed.port,
            nobody=nobody,
        )
        with Program(tmp_path_factory.mktemp("plane"), h1, policy=policy) as kb:
            kb.secret("kv/pay", "api_key", SECRET)
            bot = kb.agent("bot")
            yield Setup(kb, bot, h1, h2, clear, stranger, expired, misnamed, nobody)


# --- protocols


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
@pytest.mark.parametrize("side", ["h1", "h2"])
def test_curl_speaks_either_http_on_either_side(at: Setup, option: str, side: str) -> None:
    upstream: Upstream = getattr(at, side)
    reply = at.kb.curl(at.bot, upstream.url + "/echo?a=1", option, "-d", "amount=5")
    assert reply.status == 200, reply.body
    assert reply.json["body"] == "amount=5" and reply.json["target"] == "/echo?a=1"
    assert reply.headers["keybroker-request-id"]
    arrived = upstream.requests[-1]
    assert arrived.header("authorization") == f"Bearer {SECRET}"
    assert arrived.version == ("HTTP/2" if side == "h2" and option == "--http2" else "HTTP/1.1")
    assert arrived.header("proxy-authorization") is None


def test_httpx_speaks_http2_through_the_tunnel(at: Setup) -> None:
    with at.client(http2=True) as client:
        replies = [client.get(f"{at.h2.url}/echo?n={n}") for n in range(3)]
    assert [reply.http_version for reply in replies] == ["HTTP/2"] * 3
    assert [reply.json()["target"] for reply in replies] == [f"/echo?n={n}" for n in range(3)]


def test_many_http2_streams_at_once_get_their_own_answers(at: Setup) -> None:
    """None is answered before all are there. In one thread: those that share a connection of httpx
    may take each other's stream ids and spoil its header compression."""
    together = threading.Barrier(12)

    def answer(request: Received) -> Reply:
        together.wait(30)
        return Reply(body=request.target.encode())

    at.h2.answer("/together", answer)
    targets = [f"/together?stream={n}" for n in range(12)]

    async def call() -> list[str]:
        async with httpx.AsyncClient(**at.options(), http2=True) as client:
            await client.get(at.h2.url + "/echo")  # one connection for all
            asked = (client.get(at.h2.url + target) for target in targets)
            return [reply.text for reply in await asyncio.gather(*asked)]

    assert asyncio.run(call()) == targets


def test_plain_http_goes_in_absolute_form(at: Setup) -> None:
    reply = at.kb.curl(at.bot, at.clear.url + "/echo")
    assert reply.status == 200 and reply.json["target"] == "/echo"
    hosts = at.clear.requests[-1].values("host")
    assert hosts == [f"localhost:{at.clear.port}"]


def test_without_a_rule_for_it_plain_http_to_the_same_host_is_denied(at: Setup) -> None:
    reply = at.kb.curl(at.bot, f"http://localhost:{at.h1.port}/echo")
    assert (reply.status, reply.code) == (403, "policy_denied")


def test_calls_on_one_connection_share_one_connection_upstream(at: Setup) -> None:
    before = at.h1.connections
    connection = at.kb.tunnel(at.bot, at.h1.url)
    used = set()
    for number in range(5):
        connection.request("GET", f"/echo?n={number}")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        used.add(at.h1.requests[-1].connection)
    connection.close()
    assert len(used) == 1 and at.h1.connections == before + 1


def test_a_refused_call_leaves_the_connection_usable(at: Setup) -> None:
    connection = at.kb.tunnel(at.bot, at.h1.url)
    for target, status in (("/echo", 200), ("/a/../b", 400), ("/echo", 200)):
        connection.request("GET", target)
        answer = connection.getresponse()
        assert answer.status == status, answer.read()
        answer.read()
    connection.close()


def test_answers_without_a_body_come_as_they_are(at: Setup) -> None:
    head = at.kb.curl(at.bot, at.h1.url + "/echo", "--head")
    assert head.status == 200 and head.body.strip() != b"{}"
    assert at.h1.requests[-1].method == "HEAD"
    for status in (204, 304):
        reply = at.kb.curl(at.bot, f"{at.h1.url}/status/{status}")
        assert (reply.exit, reply.status, reply.body) == (0, status, b"")


# --- streaming


def test_an_event_arrives_before_the_next_is_sent(at: Setup) -> None:
    """The upstream sends its second event only once the client has the first."""
    go_on = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: first\n\n"
        assert go_on.wait(60), "the first event was kept back"
        yield f"data: second {SECRET}\n\n".encode()

    def route(_: Received) -> Reply:
        return Reply(headers=(("Content-Type", "text/event-stream"),), body=events())

    for upstream in (at.h1, at.h2):
        go_on.clear()
        upstream.answer("/events", route)
        with (
            at.client(http2=upstream.http2) as client,
            client.stream("GET", upstream.url + "/events") as response,
        ):
            lines = response.iter_lines()
            assert next(lines) == "data: first"
            go_on.set()
            rest = "\n".join(lines)
        assert "data: second" in rest and SECRET not in rest


def test_a_large_download_does_not_grow_the_worker(at: Setup) -> None:
    """100 MB, scrubbed on the way, cost less than 40 MB of memory at any moment."""
    (worker,) = at.kb.processes("worker")
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # resets the peak (proc(5))
    before = _memory(worker, "VmRSS")
    connection = at.kb.tunnel(at.bot, at.h1.url)
    connection.request("GET", "/download?mb=100&text=1")
    answer = connection.getresponse()
    size = 0
    while chunk := answer.read(1 << 18):
        size += len(chunk)
    connection.close()
    assert size == 100 << 20
    grown = _memory(worker, "VmHWM") - before
    assert grown < 40 << 20, f"grew by {grown >> 20} MB"


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def test_an_agent_that_hangs_up_in_mid_response_is_recorded(at: Setup) -> None:
    go_on = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"x" * 4096
        go_on.wait(60)
        for _ in range(500):
            yield b"y" * 65536

    at.h1.answer("/endless", lambda _: Reply(body=parts()))
    connection = at.kb.tunnel(at.bot, at.h1.url)
    connection.request("GET", "/endless")
    answer = connection.getresponse()
    call = answer.headers["keybroker-request-id"]
    answer.read(10)
    answer.close()
    connection.close()
    go_on.set()
    wait_until(
        lambda: any(r["type"] != "call.sent" for r in _about(at.kb, call, "call.")),
        what="the call has a result",
    )
    sent, failed = _about(at.kb, call, "call.")
    assert sent["type"] == "call.sent"
    assert failed["type"] == "call.failed" and failed["data"]["sent"] is True


def _about(kb: Program, call: str, prefix: str = "") -> list[dict[str, object]]:
    return [r for r in kb.records(call=call) if r["type"].startswith(prefix)]


# --- sizes


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_at_the_limit_arrives_whole(at: Setup, chunked: bool) -> None:
    body = bytes(range(256)) * (BODY_LIMIT // 256)
    reply = _upload(at, body, chunked)
    assert reply[0] == 200, reply[1]
    document = json.loads(reply[1])
    assert document == {"size": BODY_LIMIT, "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_one_byte_above_the_limit_is_refused(at: Setup, chunked: bool, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(BODY_LIMIT + 1))
    count = len(at.h1.requests)
    options = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    reply = at.kb.curl(at.bot, at.h1.url + "/upload", "--data-binary", f"@{big}", *options)
    assert (reply.status, reply.code) == (413, "body_too_large"), reply
    assert reply.json["code"] == "body_too_large"
    assert len(at.h1.requests) == count


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_a_body_above_the_limit_is_refused_without_being_asked_for(
    at: Setup, option: str, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(3 * BODY_LIMIT))
    reply = at.kb.curl(
        at.bot, at.h1.url + "/upload", option, "--data-binary", f"@{big}", "-H", "Expect:"
    )
    assert (reply.status, reply.code) == (413, "body_too_large"), reply


def _upload(at: Setup, body: bytes, chunked: bool) -> tuple[int, bytes]:
    connection: http.client.HTTPSConnection = at.kb.tunnel(at.bot, at.h1.url)
    if chunked:
        pieces = (body[i : i + 100_000] for i in range(0, len(body), 100_000))
        connection.request("POST", "/upload", pieces, {"Transfer-Encoding": "chunked"},
                           encode_chunked=True)  # fmt: skip
    else:
        connection.request("POST", "/upload", body)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


# --- upstreams that cannot be used


@pytest.mark.parametrize("which", ["stranger", "expired", "misnamed", "nobody"])
def test_an_upstream_that_cannot_be_trusted_or_reached_gets_nothing(at: Setup, which: str) -> None:
    """Law 5: over verified TLS or not at all; the ledger says that no byte left."""
    target = getattr(at, which)
    port = target if isinstance(target, int) else target.port
    reply = at.kb.curl(at.bot, f"https://localhost:{port}/echo", "-d", "x=1")
    assert (reply.status, reply.code) == (502, "upstream_unreachable"), reply
    if which != "nobody":
        assert target.requests == []
    records = _about(at.kb, reply.json["request_id"], "call.")
    assert [r["type"] for r in records] == ["call.sent", "call.failed"]
    assert records[1]["data"]["sent"] is False  # type: ignore[index]


def test_an_upstream_that_breaks_off_is_not_taken_for_whole(at: Setup) -> None:
    reply = at.kb.curl(at.bot, at.h1.url + "/reset")
    assert reply.exit != 0
    call = reply.headers["keybroker-request-id"]
    wait_until(lambda: len(_about(at.kb, call, "call.")) == 2, what="the call has a result")
    assert _about(at.kb, call, "call.")[1]["type"] == "call.failed"


def test_nonsense_from_an_upstream_is_answered_by_a_page_of_ours(at: Setup) -> None:
    at.h1.answer("/nonsense", Reply(raw=b"\x00\x01 not http at all\r\n\r\n"))
    reply = at.kb.curl(at.bot, at.h1.url + "/nonsense")
    assert (reply.status, reply.code) == (502, "upstream_unreachable"), reply
    assert "mitmproxy" not in reply.body.decode().lower()
    assert reply.headers["content-type"] == "application/problem+json"


# --- WebSocket

WEBSOCKET = (
    "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket",
    "-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


def test_a_websocket_without_one_carries_frames(at: Setup) -> None:
    connection = at.kb.tunnel(at.bot, f"https://127.0.0.1:{at.h1.port}")
    sock = connection.sock
    assert sock is not None
    lines = ["GET /ws HTTP/1.1", f"Host: 127.0.0.1:{at.h1.port}", *WEBSOCKET[2::2]]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    assert data.startswith(b"HTTP/1.1 101 "), data
    sock.sendall(b"\x81\x85\x00\x00\x00\x00hello")
    frame = data.partition(b"\r\n\r\n")[2]
    while len(frame) < 7:
        frame += sock.recv(65536)
    assert frame == b"\x81\x05hello"
    connection.close()


def test_a_websocket_ends_when_its_agent_is_revoked(at: Setup) -> None:
    agent = at.kb.agent("talker")
    connection = at.kb.tunnel(agent, f"https://127.0.0.1:{at.h1.port}")
    sock = connection.sock
    assert sock is not None
    lines = ["GET /ws HTTP/1.1", f"Host: 127.0.0.1:{at.h1.port}", *WEBSOCKET[2::2]]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
    at.kb.cli("agent", "revoke", "talker")
    assert read_all(sock) in (b"", b"\x88\x02\x03\xee")  # closed, with or without a word
    connection.close()


def test_the_ledger_is_whole_after_all_that(at: Setup) -> None:
    at.kb.verify()
    assert SECRET not in at.kb.log.read_text()
