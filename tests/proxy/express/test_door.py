"""The door: who takes a connection, and that it does not matter how its beginning was cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.patience import Timeouts
from tests.proxy.express.both import settle
from tests.proxy.harness import (
    CREDENTIALS,
    Worker,
    connect_head,
    exchange,
    read_all,
    read_head,
    wait_until,
)
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Handshake:
    """TLS in memory, so that a test says how its bytes go over the wire."""

    def __init__(
        self,
        worker: Worker,
        raw: socket.socket,
        *,
        sni: str | None = "localhost",
        alpn: Sequence[str] = (),
        most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(worker.ca_file))
        context.check_hostname = sni is not None
        context.maximum_version = most
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=sni)
        raw.settimeout(5)

    def hello(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def finish(self, more: bytes = b"") -> None:
        """To the end of the handshake; `more` is sent in the same write as its last part."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
        if more:
            self.tls.write(more)
        self._flush()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def read(self, until: bytes) -> bytes:
        """Plain text until it ends so, or nothing more comes."""
        got = b""
        while not got.endswith(until):
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                if not self._fill():
                    break
                continue
            if not data:
                break
            got += data
        return got

    def _flush(self) -> None:
        data = self.outgoing.read()
        if data:
            self.raw.sendall(data)

    def _fill(self) -> bool:
        try:
            data = self.raw.recv(65536)
        except OSError:
            data = b""
        self.incoming.write(data)
        if not data:
            self.incoming.write_eof()
        return bool(data)


def get(upstream: Upstream, path: str = "/echo") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n\r\n".encode()


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def records(hello: bytes, step: int) -> bytes:
    """The same handshake message in many TLS records (RFC 8446 5.1 lets it be)."""
    assert hello[0] == 0x16
    message = hello[5:]
    assert len(message) == int.from_bytes(hello[3:5], "big")
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in cut(message, step))


def connected(worker: Worker, upstream: Upstream) -> socket.socket:
    return worker.connect(f"localhost:{upstream.port}")


HELLOS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda hello: [hello],
    "in-two": lambda hello: cut(hello, len(hello) // 2 + 1),
    "byte-by-byte": lambda hello: cut(hello, 1),
    "a-first-byte": lambda hello: [hello[:1], hello[1:]],
    "two-bytes-first": lambda hello: [hello[:2], hello[2:]],
    "in-records": lambda hello: [records(hello, 50)],
    "in-small-records-in-pieces": lambda hello: cut(records(hello, 7), 40),
}


@pytest.mark.parametrize("name", HELLOS)
def test_a_hello_may_come_in_any_pieces(worker: Worker, upstream: Upstream, name: str) -> None:
    with connected(worker, upstream) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        agent = Handshake(worker, raw)
        for piece in HELLOS[name](agent.hello()):
            raw.sendall(piece)
            time.sleep(0.001)
        agent.finish()
        agent.send(get(upstream))
        assert agent.read(b"}").startswith(b"HTTP/1.1 200")
    assert worker.pipeline.raw[0].sni == "localhost"


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_request_may_come_with_the_end_of_the_handshake(
    worker: Worker, upstream: Upstream, most: ssl.TLSVersion
) -> None:
    with connected(worker, upstream) as raw:
        agent = Handshake(worker, raw, most=most)
        agent.finish(get(upstream))
        assert agent.read(b"}").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "alpn", [(), ("http/1.1",), ("http/1.0",), ("x", "http/1.1"), ("x" * 255,)]
)
@pytest.mark.parametrize("sni", ["localhost", None])
def test_names_and_protocols_of_plain_agents(
    worker: Worker, upstream: Upstream, sni: str | None, alpn: tuple[str, ...]
) -> None:
    with connected(worker, upstream) as raw:
        agent = Handshake(worker, raw, sni=sni, alpn=alpn)
        agent.finish()
        agreed = "http/1.1" if "http/1.1" in alpn else None
        assert agent.tls.selected_alpn_protocol() == agreed
        agent.send(get(upstream))
        assert agent.read(b"}").startswith(b"HTTP/1.1 200")
    assert worker.pipeline.raw[0].sni == sni


@pytest.mark.parametrize("alpn", [("h2",), ("http/1.1", "h2"), ("h2", "http/1.1")])
def test_who_offers_http2_gets_it(
    worker: Worker, upstream: Upstream, alpn: tuple[str, ...]
) -> None:
    with connected(worker, upstream) as raw:
        agent = Handshake(worker, raw, alpn=alpn)
        agent.finish()
        assert agent.tls.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("sni", ["other.localhost", "LOCALHOST"])
def test_another_name_is_refused_where_it_can_be_read(
    worker: Worker, upstream: Upstream, sni: str
) -> None:
    with connected(worker, upstream) as raw:
        agent = Handshake(worker, raw, sni=sni)
        agent.finish()
        agent.send(get(upstream))
        status = agent.read(b"}").split(b" ")[1]
    assert status == (b"200" if sni == "LOCALHOST" else b"400")


@pytest.mark.parametrize(
    ("extra", "step"),
    [
        *((extra, step) for extra in ("nothing", "the hello", "a request") for step in (1, 1000)),
        ("empty lines", 1000),  # some clients send them; those that come later are no TLS
    ],
)
def test_connect_in_pieces_and_what_comes_with_it(
    worker: Worker, upstream: Upstream, extra: str, step: int
) -> None:
    with worker.dial() as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        agent = Handshake(worker, raw)
        head = connect_head(f"localhost:{upstream.port}")
        hello = agent.hello()
        head += {"nothing": b"", "empty lines": b"\r\n\r\n"}.get(extra, hello)
        if extra == "a request":
            head = head[: -len(hello)] + get(upstream)
        for piece in cut(head, step):
            raw.sendall(piece)
        assert read_head(raw).startswith(b"HTTP/1.1 200")
        if extra == "a request":  # in clear text, for a place that is https
            assert read_head(raw).startswith(b"HTTP/1.1 400")
            return
        if extra != "the hello":
            raw.sendall(hello)
        agent.finish()
        agent.send(get(upstream))
        assert agent.read(b"}").startswith(b"HTTP/1.1 200")


BEGINNINGS = {
    "nothing": b"",
    "clear-text": b"GET /echo HTTP/1.1\r\nHost: localhost:%d\r\n\r\n",
    "not-http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "sslv2": b"\x80\x2e\x01\x00\x02" + b"\0" * 40,
    "half-a-record": b"\x16\x03\x01\x02\x00\x01\x00",
    "no-hello": b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
    "an-empty-record": b"\x16\x03\x01\x00\x00" * 3,
    "an-alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "an-odd-version": b"\x16\x03\x09\x00\x05\x01\x00\x00\x01\x00",
    "a-hello-of-nonsense": b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26" + b"\xff" * 38,
    "a-message-beyond-bounds": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"\0" * 16380,
    "nul": b"\0" * 100,
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_what_is_not_tls_reaches_nobody(worker: Worker, upstream: Upstream, name: str) -> None:
    visits = upstream.connections
    with connected(worker, upstream) as raw:
        said = BEGINNINGS[name].replace(b"%d", str(upstream.port).encode())
        raw.sendall(said)
        socket.socket.shutdown(raw, socket.SHUT_WR)
        answer = read_all(raw)
    assert b"200 OK" not in answer
    settle(worker)
    assert (upstream.connections, upstream.requests) == (visits, [])
    assert worker.pipeline.passages == []


@pytest.mark.parametrize("where", ["during the handshake", "after it", "behind a request"])
def test_garbage_in_tls(worker: Worker, upstream: Upstream, where: str) -> None:
    garbage = b"\x17\x03\x03\x00\x20" + b"g" * 32
    with connected(worker, upstream) as raw:
        agent = Handshake(worker, raw)
        if where == "during the handshake":
            raw.sendall(agent.hello() + garbage)
        else:
            agent.finish(get(upstream) if where == "behind a request" else b"")
            raw.sendall(garbage)
            socket.socket.shutdown(raw, socket.SHUT_WR)
        read_all(raw)  # it ends
    settle(worker)
    assert len(worker.pipeline.raw) <= (where == "behind a request")


def test_half_a_handshake_has_an_end(upstream: Upstream, tmp_path: Path, lane: str) -> None:
    quick = Timeouts(head=0.3)
    with Worker(tmp_path, upstream.ca_file, timeouts=quick, express=lane == "express") as worker:
        for more in (b"", b"\x16", b"\x16\x03\x01"):
            with connected(worker, upstream) as raw:
                raw.sendall(more)
                assert read_all(raw) == b""
        with connected(worker, upstream) as raw:
            raw.sendall(Handshake(worker, raw).hello())
            raw.settimeout(5)
            read_all(raw)  # our half of it, and then the end


def test_a_connect_that_is_too_long_is_refused(worker: Worker, upstream: Upstream) -> None:
    with worker.dial() as raw:
        raw.sendall(connect_head(f"localhost:{upstream.port}", "X: " + "a" * 70_000))
        assert b"HTTP/1.1 400" in read_all(raw)


@pytest.mark.parametrize("credentials", [[], ["Basic Ym90Om5v"], [CREDENTIALS, CREDENTIALS]])
def test_a_stranger_is_challenged(
    worker: Worker, upstream: Upstream, credentials: list[str]
) -> None:
    lines = [f"Proxy-Authorization: {value}" for value in credentials]
    head = "\r\n".join([f"CONNECT localhost:{upstream.port} HTTP/1.1", *lines, "", ""])
    with worker.dial() as raw:
        raw.sendall(head.encode())
        answer = read_head(raw)
    assert answer.startswith(b"HTTP/1.1 407")
    assert b"proxy-authenticate" in answer.lower()


@dataclass
class Counted:
    """Who is told of agents' connections."""

    open: int = 0
    ever: int = 0

    def opened(self) -> None:
        self.open += 1
        self.ever += 1

    def closed(self) -> None:
        self.open -= 1


def test_a_connection_counts_once_whoever_serves_it(worker: Worker, upstream: Upstream) -> None:
    counted = worker.engine._traffic = Counted()
    place = f"localhost:{upstream.port}"
    with worker.dial():  # the door alone
        wait_until(lambda: counted.open == 1)
    with worker.dial() as raw:  # handed over at the door
        assert exchange(raw, "GET / HTTP/1.1\nHost: x")[0] == 407
    with worker.tls(place) as tls:  # the line
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
    with worker.tls(place) as tls:  # handed over by the line
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
        chunks = f"POST /echo HTTP/1.1\nHost: {place}\nTransfer-Encoding: chunked"
        assert exchange(tls, chunks, b"0\r\n\r\n")[0] == 200
        assert len(worker.engine._connections) == 1
    with worker.tls(place, alpn=["h2"]):  # handed over behind its hello
        pass
    wait_until(lambda: counted.open == 0)
    assert counted.ever == worker.engine.accepted == 5
    assert worker.engine._passed_on == set()


def test_a_decision_about_a_tunnel_that_comes_too_late(worker: Worker, upstream: Upstream) -> None:
    """The agent has left meanwhile: nobody serves nobody."""
    going: list[asyncio.Event] = []
    outcomes: list[object] = [RuntimeError(), None]

    async def tunnel(*_: object) -> object:
        going.append(asyncio.Event())
        await going[-1].wait()
        if (outcome := outcomes.pop()) is not None:
            raise outcome  # type: ignore[misc]
        return None

    worker.pipeline.tunnel = tunnel  # type: ignore[method-assign]
    for count in (1, 2):
        with connected(worker, upstream) as raw:
            raw.sendall(Handshake(worker, raw).hello())
            wait_until(lambda: len(going) == count)  # noqa: B023
        time.sleep(0.05)
        worker._loop.call_soon_threadsafe(going[-1].set)
        settle(worker)
    assert worker.pipeline.raw == []
