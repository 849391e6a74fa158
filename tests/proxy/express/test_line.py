"""What the line keeps while nobody takes it, and when it notices that its agent is gone.

What it does with plain calls is in test_lanes.py, next to what the full engine does with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from broker.model import Client
from proxy import pages
from proxy.patience import Timeouts
from rules.request import RawRequest
from tests.proxy.express.both import Peer, Visit
from tests.proxy.harness import (
    FakeAnswer,
    FakePassage,
    RawH2,
    Worker,
    exchange,
    read_all,
    read_response,
    refused,
    wait_until,
)
from tests.support.upstream import Conversation, Received, Reply, Upstream

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
        visit.connection.settimeout(0.3)
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
        pusher.stuck.wait(0.6)  # if it is asked at all before there is room for its answer
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
        tls.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < 4000 * len(batch):
                tls.sendall(batch)
                sent += len(batch)
        asked = len(worker.pipeline.raw)
        worker.pipeline.raw.clear()
        assert asked * 4000 < MOST


# -- agents that leave, or are told to


def streaming(upstream: Upstream) -> threading.Event:
    """`/stream` sends forever; set once nobody takes it any more."""
    left = threading.Event()

    def forever(_: Received, connection: Conversation) -> None:
        try:
            connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.write(b"5\r\nevent\r\n")
                time.sleep(0.02)
        except OSError:
            left.set()

    upstream.heads["/stream"] = forever
    return left


@pytest.mark.parametrize("reads", [True, False])
def test_a_revoked_agent_gets_no_more_of_its_response(
    worker: Worker, upstream: Upstream, reads: bool
) -> None:
    """Whether it takes what comes or not: within seconds it is cut, and recorded so."""
    pusher = Pusher()
    left = streaming(upstream)

    def talk(visit: Visit) -> None:
        visit.request()
        pusher.push(visit)

    with Peer(upstream.ca, talk) as peer:
        port = upstream.port if reads else peer.port
        with worker.tls(f"localhost:{port}") as tls:
            tls.sendall(request(f"localhost:{port}", "/stream"))
            if reads:
                assert tls.recv(100).startswith(b"HTTP/1.1 200")
            else:
                assert pusher.stuck.wait(10)
            worker.pipeline.forgotten.add(Client("bot", "t1"))
            [passage] = worker.pipeline.passages
            wait_until(lambda: passage.told[-1].startswith("failed"))
            assert (left if reads else pusher.over).wait(5), "the upstream is left alone"
            if reads:
                assert not read_all(tls).endswith(b"0\r\n\r\n")
    assert passage.told[1:] == [f"failed sent=True: {pages.REVOKED}"]


def test_over_http2_as_well(worker: Worker, upstream: Upstream) -> None:
    left = streaming(upstream)
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=("h2",)) as tls:
        agent = RawH2(tls, place)
        stream = agent.request("/stream")
        while not agent.bodies.get(stream):
            agent.read()
        worker.pipeline.forgotten.add(Client("bot", "t1"))
        assert left.wait(10)
        assert agent.wait(stream) == 0
    [passage] = worker.pipeline.passages
    wait_until(lambda: passage.told[-1].startswith("failed"))
    assert passage.told[1:] == [f"failed sent=True: {pages.REVOKED}"]


def test_a_revoked_agent_that_is_idle_is_left_alone(worker: Worker, upstream: Upstream) -> None:
    """Its next call is refused by the middle."""
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
        worker.pipeline.forgotten.add(Client("bot", "t1"))
        time.sleep(1.1)  # a look at connections has been taken
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200


def test_an_agent_that_says_goodbye_and_reads_on_is_gone(
    worker: Worker, upstream: Upstream
) -> None:
    """Also while much that was written waits to be taken."""
    pusher = Pusher()

    def talk(visit: Visit) -> None:
        visit.request()
        pusher.push(visit)

    with Peer(upstream.ca, talk) as peer, worker.tls(f"localhost:{peer.port}") as tls:
        tls.sendall(request(f"localhost:{peer.port}"))
        assert pusher.stuck.wait(20)
        socket.socket.shutdown(tls, socket.SHUT_WR)
        [passage] = worker.pipeline.passages
        wait_until(lambda: len(passage.told) == 2)
        assert pusher.over.wait(5)
        assert read_body(tls, len(head(BIG)) + BIG) < BIG
    assert passage.told == ["head 200", f"failed sent=True: {pages.GONE_UNDELIVERED}"]


def test_an_agent_that_takes_nothing_is_not_kept_for_ever(
    upstream: Upstream, tmp_path: Path, lane: str
) -> None:
    quick = Timeouts(idle=1)
    with Worker(tmp_path, upstream.ca_file, timeouts=quick, express=lane == "express") as worker:
        page_first(worker)
        with worker.tls(f"localhost:{upstream.port}") as tls:
            tls.sendall(request(f"localhost:{upstream.port}", "/page"))
            wait_until(lambda: bool(worker.pipeline.raw))
            wait_until(lambda: not worker.engine._connections)


# -- draining


def test_draining_answers_what_is_here_and_says_that_it_is_the_last(
    worker: Worker, upstream: Upstream
) -> None:
    going = threading.Event()

    async def hold(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
        while not going.is_set():
            await asyncio.sleep(0.01)
        return await worker.pipeline.let_through(client, raw, gone)

    worker.pipeline.script = hold
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls, worker.tls(place) as half:
        tls.sendall(request(place, "/echo") * 2)
        wait_until(lambda: len(worker.pipeline.raw) == 1)
        # A call that has begun to arrive counts as one.
        half.sendall(request(place, "/echo", "Content-Length: 2", by="POST"))
        time.sleep(0.1)
        drained = worker.submit(worker.engine.drain(10))
        time.sleep(0.1)
        assert not drained.done()
        going.set()
        status, answered, _ = read_response(tls)
        assert (status, b"connection: close" in answered.lower()) == (200, True)
        assert read_all(tls) == b"", "the call behind it is not made"
        assert not drained.done()
        half.sendall(b"ok")
        assert read_response(half)[0] == 200
        assert drained.result(10) is True
    assert len(worker.pipeline.raw) == 2


def test_draining_cuts_a_tunnel_without_a_call(worker: Worker, upstream: Upstream) -> None:
    place = f"localhost:{upstream.port}"
    with worker.connect(place) as raw, worker.tls(place) as tls:
        assert worker.run(worker.engine.drain(10)) is True
        assert read_all(raw) == b""
        assert read_all(tls) == b""


def test_stopping_ends_everything(worker: Worker, upstream: Upstream) -> None:
    left = streaming(upstream)
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        tls.sendall(request(place, "/stream"))
        assert tls.recv(100).startswith(b"HTTP/1.1 200")
        worker.run(worker.engine.stop())
        assert left.wait(5)
        assert not read_all(tls).endswith(b"0\r\n\r\n")
    assert worker.pipeline.passages[0].told[1:] == [f"failed sent=True: {pages.GONE_UNDELIVERED}"]


# -- faults


def test_a_fault_in_the_decision_of_a_head(
    worker: Worker, upstream: Upstream, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It refuses the call; in the full engine the whole request is then decided as any other."""

    def begun(*_: object) -> object:
        raise RuntimeError("s3cret")

    worker.pipeline.begin_script = begun  # type: ignore[assignment]
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        asked = f"POST /status/204 HTTP/1.1\nHost: {place}\nContent-Length: 6"
        status, _, body = exchange(tls, asked, b"s3cret")
    assert status == (500 if lane == "express" else 204)
    assert len(upstream.requests) == len(worker.pipeline.raw) == (lane == "core")
    assert b"s3cret" not in body
    assert "s3cret" not in caplog.text


def test_the_next_request_may_come_while_a_result_is_recorded(
    worker: Worker, upstream: Upstream
) -> None:
    """The agent has its whole answer, and its next request is larger than what may wait."""

    class Slow(FakePassage):
        async def completed(self) -> None:
            await asyncio.sleep(0.3)
            await super().completed()

    worker.pipeline.make_passage = Slow
    upstream.answer("/gone", lambda _: Reply(204))
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        assert exchange(tls, f"DELETE /gone HTTP/1.1\nHost: {place}")[0] == 204
        body = b"x" * 300_000
        first = f"POST /echo HTTP/1.1\nHost: {place}\nContent-Length: {len(body)}"
        status, _, answer = exchange(tls, first, body)
    assert status == 200
    assert len(upstream.requests[-1].body) == len(body)
    assert answer


def test_a_fault_in_one_connection_does_not_end_the_looking_after_others(
    worker: Worker, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        live = False

        @property
        def watched(self) -> Client | None:
            raise RuntimeError("secret-in-message")

        def cut(self) -> None: ...
        def revoke(self) -> None: ...
        def give_up_late(self) -> None: ...

    over: list[asyncio.Future[None]] = []

    async def serve() -> None:
        over.append(asyncio.get_running_loop().create_future())
        worker.engine.serve(Broken(), over[0])

    async def end() -> None:
        over[0].set_result(None)

    worker.run(serve())
    try:
        wait_until(lambda: caplog.text.count("looking after a connection") >= 2)
    finally:
        worker.run(end())
    assert "secret-in-message" not in caplog.text
