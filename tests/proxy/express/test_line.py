"""What the line keeps while nobody takes it, and when it notices that its agent is gone.

What it does with plain calls is in test_lanes.py, next to what the full engine does with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading

import pytest

from broker.model import Client
from rules.request import RawRequest
from tests.proxy.express.both import Peer, Visit
from tests.proxy.harness import FakeAnswer, Worker, refused
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

MiB = 1 << 20
MOST = 24 * MiB
"""What the sockets of both sides hold, and some more."""
BLOCK = b"x" * 65536
BIG = 48 * MiB


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def head(length: int, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % length, *lines, b"", b""])


class Pusher:
    """Sends a large body, and counts what the other side has taken of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.stuck = threading.Event()
        self.over = threading.Event()

    def push(self, visit: Visit, *, size: int = BIG) -> None:
        visit.write(head(size))
        visit.connection.settimeout(0.5)
        try:
            while self.sent < size:
                with contextlib.suppress(TimeoutError):
                    self.sent += visit.connection.send(BLOCK[: size - self.sent])
                    continue
                self.stuck.set()
            visit.connection.settimeout(20)
        except OSError:
            pass
        finally:
            self.stuck.set()
            self.over.set()


def request(place: str, path: str = "/", *lines: str, body: str = "", by: str = "GET") -> bytes:
    return "\r\n".join([f"{by} {path} HTTP/1.1", f"Host: {place}", *lines, "", body]).encode()


def read_body(tls: ssl.SSLSocket, size: int) -> int:
    """Reads until `size` bytes have come, or no more; how many did."""
    tls.settimeout(10)
    got = 0
    while got < size and (data := tls.recv(1 << 20)):
        got += len(data)
    return got


def test_what_an_agent_does_not_read_is_not_kept(worker: Worker, upstream: Upstream) -> None:
    pusher = Pusher()

    def talk(visit: Visit) -> None:
        visit.request()
        pusher.push(visit)
        if visit.request():
            visit.write(head(2) + b"ok")

    with Peer(upstream.ca, talk) as peer, worker.tls(f"localhost:{peer.port}") as tls:
        tls.sendall(request(f"localhost:{peer.port}"))
        assert pusher.stuck.wait(20)
        assert pusher.sent < MOST
        # And what was held back comes when it is asked for; the connection is as good as before.
        assert read_body(tls, len(head(BIG)) + BIG) >= BIG
        tls.sendall(request(f"localhost:{peer.port}"))
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")


PAGE = 16 * MiB


def page_first(worker: Worker) -> None:
    """The first call is answered with a page that fills the agent's side, before it is asked."""

    async def script(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
        if raw.target == "/page":
            return FakeAnswer(200, (), b"p" * PAGE)
        return await worker.pipeline.let_through(client, raw, gone)

    worker.pipeline.script = script


@pytest.mark.parametrize("second", ["GET /", "POST / chunked"])
def test_nor_what_comes_behind_a_full_agent(
    worker: Worker, upstream: Upstream, second: str
) -> None:
    """Over a connection that is new then; or in the full engine, to which the line hands over."""
    pusher = Pusher()

    def talk(visit: Visit) -> None:
        visit.request()
        pusher.push(visit)

    page_first(worker)
    with Peer(upstream.ca, talk) as peer, worker.tls(f"localhost:{peer.port}") as tls:
        place = f"localhost:{peer.port}"
        asked = request(place)
        if "chunked" in second:
            asked = request(place, "/", "Transfer-Encoding: chunked", body="0\r\n\r\n", by="POST")
        tls.sendall(request(place, "/page") + asked)
        pusher.stuck.wait(1)  # if it is asked at all before there is room for its answer
        assert pusher.sent < MOST
        assert read_body(tls, PAGE + BIG) >= PAGE + BIG
    assert worker.pipeline.passages[0].told[-1] == "completed"


def test_nor_the_refusals_of_an_agent_that_only_asks(worker: Worker, upstream: Upstream) -> None:
    async def no(*_: object) -> object:
        return refused("policy_denied", "no" * 2000)

    worker.pipeline.script = no
    place = f"localhost:{upstream.port}"
    batch = request(place) * 500
    sent = 0
    with worker.tls(place) as tls:
        tls.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while sent < 4000 * len(batch):
                tls.sendall(batch)
                sent += len(batch)
        asked = len(worker.pipeline.raw)
        worker.pipeline.raw.clear()
        assert asked * 4000 < MOST
