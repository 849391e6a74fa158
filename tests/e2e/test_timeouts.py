"""`proxy.timeouts` of the running program: each stage that stands still ends in its own time, and
what is said and recorded names the stage."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import wss
from tests.support.program import AgentKey, Program, wait_until
from tests.support.upstream import Conversation, Received, Upstream
from tests.support.upstream_routes import built_in

pytestmark = pytest.mark.e2e

LIMITS = {
    "head": 1, "idle": 2, "stage": 2, "resolve": 2, "connect": 1, "tls": 1, "first_byte": 1,
}  # fmt: skip
LONG = 20
"""Seconds after which one without a limit would still stand there."""
POLICY = """
version: 1
credentials:
  pay: {{secret: "kv/pay#key", hosts: ["localhost:{up}"], inject: bearer}}
tiers:
  medium: {{exclude: []}}
rules:
  - {{id: keyed, agents: [bot], match: {{host: "localhost:{up}", path: /keyed/**}}, effect: allow,
     use: [pay]}}
  - {{id: open, agents: [bot], match: {{host: ["localhost:{up}", "localhost:{full}",
     "localhost:{deaf}"], path: /**}}, effect: allow}}
  - {{id: push, agents: [bot], match: {{host: "localhost:{up}", path: /push/**}}, effect: allow,
     body: stream}}
  - {{id: ask, agents: [bot], match: {{host: "localhost:{up}", path: /held/**}}, effect: hold}}
"""


@dataclass(frozen=True)
class Setup:
    kb: Program
    bot: AgentKey
    full: int
    """A port whose queue is full: it accepts no connection."""
    deaf: int
    """A port that accepts connections and says nothing."""

    def fails(self, url: str, *options: str) -> tuple[str, dict[str, Any]]:
        """The sentence that the agent gets, and the data of the ledger's record."""
        reply = self.kb.curl(self.bot, url, "--max-time", str(LONG), *options)
        assert (reply.status, reply.code) == (502, "upstream_unreachable"), reply
        record = self.kb.records(call=reply.json["request_id"], type="call.failed")[-1]
        assert record["data"]["sentence"] == reply.json["detail"]
        return reply.json["detail"], record["data"]

    def tls(self) -> ssl.SSLSocket:
        raw = self.kb.connect(self.bot, f"localhost:{self.kb.upstream.port}")
        raw.settimeout(LONG)
        context = ssl.create_default_context(cafile=str(self.kb.ca_file))
        return context.wrap_socket(raw, server_hostname="localhost")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with contextlib.ExitStack() as open_:
        upstream = open_.enter_context(Upstream())
        full, deaf = (open_.enter_context(socket.socket()) for _ in range(2))
        for listener in (full, deaf):
            listener.bind(("127.0.0.1", 0))
        full.listen(0)
        deaf.listen(16)
        ports = {"up": upstream.port, "full": full.getsockname()[1], "deaf": deaf.getsockname()[1]}
        for _ in range(4):  # the kernel answers as long as its queue has room
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", ports["full"]))
        limits = ", ".join(f"{name}: {seconds}s" for name, seconds in LIMITS.items())
        program = Program(
            tmp_path_factory.mktemp("timeouts"),
            upstream,
            policy=POLICY.format(**ports),
            proxy_settings=f"timeouts: {{{limits}}}",
        )
        kb = open_.enter_context(program)
        kb.secret("kv/pay", "key", "sk_live_timeouts_5Tz")
        yield Setup(kb, kb.agent("bot"), ports["full"], ports["deaf"])


def url(port: int) -> str:
    return f"https://localhost:{port}/x"


# --- the agent's side


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET http://localhost/ HT", b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\nX: "],
    ids=["nothing", "a line", "a header"],
)
def test_head_of_the_first_request(at: Setup, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", at.kb.proxy_port), timeout=LONG) as sock:
        sock.sendall(begun)
        ended(sock)


def test_head_of_a_handshake_with_the_agent(at: Setup) -> None:
    with at.kb.connect(at.bot, f"localhost:{at.kb.upstream.port}") as sock:
        sock.settimeout(LONG)
        sock.sendall(b"\x16\x03\x01")
        ended(sock)


def test_head_of_a_later_request(at: Setup) -> None:
    with at.tls() as tls:
        host = f"Host: localhost:{at.kb.upstream.port}\r\n"
        tls.sendall(f"GET /status/200 HTTP/1.1\r\n{host}\r\n".encode())
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")
        tls.sendall(f"GET /status/200 HTTP/1.1\r\n{host}X: ".encode())
        ended(tls)


def ended(sock: socket.socket) -> None:
    """It is closed before its time-out here, whatever was said before."""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while sock.recv(65536):
            pass


def test_idle_connection(at: Setup) -> None:
    with at.tls() as tls:
        ended(tls)
    with at.kb.connect(at.bot, f"localhost:{at.kb.upstream.port}") as raw:
        raw.settimeout(LONG)
        ended(raw)


def test_idle_upload(at: Setup) -> None:
    over = threading.Event()

    def swallow(_: Received, connection: Conversation) -> None:
        while connection.read(65536):
            pass
        over.set()

    at.kb.upstream.heads["/push/stopped"] = swallow
    with at.tls() as tls:
        lines = ["PUT /push/stopped HTTP/1.1", f"Host: localhost:{at.kb.upstream.port}"]
        lines += ["Content-Length: 1000", "", "some"]
        tls.sendall("\r\n".join(lines).encode())
        ended(tls)
    assert over.wait(10), "the upstream's side is closed too"
    failed = at.kb.records(type="call.failed")[-1]["data"]
    assert "Nothing of the request's body moved for 2 s" in failed["sentence"]
    assert (failed["sent"], failed["body_size"], failed["body_whole"]) == (True, 4, False)


def test_idle_websocket(at: Setup) -> None:
    """Silence on both sides ends it; a ping now and then keeps it."""
    kb = at.kb
    kb.upstream.answer("/ws-idle", lambda r: built_in(replace(r, target="/ws")))
    url = f"wss://localhost:{kb.upstream.port}/ws-idle"
    client = partial(wss.connect, url, proxy=at.bot.proxy_url, ca_file=kb.ca_file)
    with client(ping_interval=LIMITS["idle"] / 4) as socket:
        with pytest.raises(TimeoutError):
            socket.recv(timeout=LIMITS["idle"] + 1)
        socket.send("still here")
        assert socket.recv(10) == "still here"
    with (
        client(ping_interval=None) as socket,
        pytest.raises(ConnectionClosed),
    ):
        socket.recv(timeout=LONG)
    calls = [r["call"] for r in kb.records(type="call.sent") if "/ws-idle" in str(r["data"])]
    wait_until(
        lambda: sum(r["call"] in calls for r in kb.records(type="call.completed")) == len(calls),
        what="both have a result",
    )


# --- Keybroker's own stages


def test_stage_of_the_secret(at: Setup) -> None:
    (server,) = at.kb.processes("server")
    os.kill(server, signal.SIGSTOP)
    try:
        reply = at.kb.curl(
            at.bot, at.kb.upstream.url + "/keyed/x", "--max-time", str(LIMITS["stage"] + 2)
        )
        assert (reply.status, reply.code) == (502, "secret_unavailable"), reply
    finally:
        os.kill(server, signal.SIGCONT)
    works(at, "/keyed/x")


def test_stage_of_the_ledger(at: Setup) -> None:
    count = len(at.kb.upstream.requests)
    with closing(sqlite3.connect(at.kb.database, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        reply = at.kb.curl(
            at.bot, at.kb.upstream.url + "/status/200", "--max-time", str(LIMITS["stage"] + 3)
        )
        db.execute("ROLLBACK")
    assert (reply.status, reply.code) == (503, "ledger_unavailable"), reply
    works(at, "/status/200")
    assert len(at.kb.upstream.requests) == count + 1


def works(at: Setup, path: str) -> None:
    def look() -> bool:
        return at.kb.curl(at.bot, at.kb.upstream.url + path).status in (200, 404)

    wait_until(look, what="it works again", timeout=40)


# --- the upstream's side


def test_connect(at: Setup) -> None:
    sentence, failed = at.fails(url(at.full))
    assert "did not accept a connection within 1 s" in sentence
    assert failed["sent"] is False


def test_tls(at: Setup) -> None:
    sentence, failed = at.fails(url(at.deaf))
    assert "did not complete the TLS handshake in 1 s" in sentence
    assert failed["sent"] is False


def answering(*pieces: bytes) -> Callable[[Received, Conversation], None]:
    """An upstream that sends each piece at once and then waits until it is hung up on."""

    def serve(_: Received, connection: Conversation) -> None:
        for piece in pieces:
            connection.write(piece)
        while connection.read(100):
            pass

    return serve


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nX-Be", b"gun: yes\r\n")])
def test_first_byte(at: Setup, pieces: tuple[bytes, ...]) -> None:
    at.kb.upstream.heads["/stalls"] = answering(*pieces)
    sentence, failed = at.fails(at.kb.upstream.url + "/stalls")
    assert "did not begin to answer within 1 s" in sentence
    assert failed["sent"] is True


def test_idle_response(at: Setup) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    at.kb.upstream.heads["/begun"] = answering(head, b"begun")
    reply = at.kb.curl(at.bot, at.kb.upstream.url + "/begun", "--max-time", str(LONG))
    assert reply.body == b"begun" and reply.exit not in (0, 28), "broken off, not waited out"
    call = reply.headers["keybroker-request-id"]
    wait_until(lambda: bool(at.kb.records(call=call, type="call.failed")), what="a record of it")
    failed = at.kb.records(call=call, type="call.failed")[-1]["data"]
    assert "sent nothing for 2 s in the middle of its response" in failed["sentence"]


def test_waiting_for_people_has_no_part_in_it(at: Setup) -> None:
    """A held call outlives every one of them."""
    boss = at.kb.user("boss")
    held = at.kb.start_curl(at.bot, at.kb.upstream.url + "/held/x", "-d", "x=1")
    [card] = at.kb.pending(boss)
    time.sleep(LIMITS["idle"] + 1)
    assert held.process.poll() is None
    assert at.kb.vote(boss, card["id"], "approve")[0] == 200
    assert held.wait(LONG).status == 404


def test_the_ledger_is_whole_after_all_that(at: Setup) -> None:
    at.kb.verify()
