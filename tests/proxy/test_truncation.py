"""A body that lasts as long as its connection is whole only if the upstream itself ended it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import pages
from proxy.chain import Chain
from tests.proxy.express.both import Peer, Talk, Visit, answers
from tests.proxy.harness import CREDENTIALS, RawH2, Worker, read_all, wait_until
from tests.support.connect_proxy import ConnectProxy
from tests.support.throwaway_ca import ThrowawayCA

pytestmark = pytest.mark.e2e

GARBAGE = b"\x17\x03\x03\x00\x20" + b"g" * 32
OPEN_END = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf of it"
WHOLE, BROKEN = "completed", f"failed sent=True: {pages.BROKE_OFF}"


@pytest.fixture(scope="module")
def ca() -> ThrowawayCA:
    return ThrowawayCA()


@pytest.fixture
def bundle(ca: ThrowawayCA, tmp_path: Path) -> Path:
    file = tmp_path / "upstream-ca.pem"
    file.write_bytes(ca.pem)
    return file


@pytest.fixture
def worker(bundle: Path, tmp_path: Path, lane: str) -> Iterator[Worker]:
    with Worker(tmp_path, bundle, express=lane == "express") as worker:
        yield worker


class InMemory:
    """The upstream's TLS where a test can reach into it."""

    def __init__(self, ca: ThrowawayCA, visit: Visit) -> None:
        self._visit = visit
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ca.server_context(["localhost"])
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._through(self._tls.do_handshake)

    def _through(self, step: Callable[[], object]) -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                step()
                self._visit.write(self._outgoing.read())
                return
            self._visit.write(self._outgoing.read())
            self._incoming.write(self._visit.connection.recv(65536))

    def answer(self, data: bytes) -> None:
        """Waits for a request, and says so."""
        self._through(lambda: self._tls.read(65536))
        self._tls.write(data)
        self._visit.write(self._outgoing.read())

    def alert(self) -> None:
        """A fatal one."""
        self._incoming.write(GARBAGE)
        with contextlib.suppress(ssl.SSLError):
            self._tls.read(1)
        self._visit.write(self._outgoing.read())


def alerting(ca: ThrowawayCA) -> Talk:
    def talk(visit: Visit) -> None:
        tls = InMemory(ca, visit)
        tls.answer(OPEN_END)
        tls.alert()

    return talk


def ask(worker: Worker, port: int) -> bytes:
    """Everything that an agent gets for one call, until the proxy closes."""
    with worker.tls(f"localhost:{port}") as tls:
        tls.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        tls.settimeout(0.5)
        got = b""
        with contextlib.suppress(TimeoutError):
            while data := tls.recv(65536):
                got += data
    return got


def told(worker: Worker) -> str:
    """What the one passage was told at its end."""
    [passage] = worker.pipeline.passages
    wait_until(lambda: passage.told[-1].split(" ")[0] in ("completed", "failed"))
    return passage.told[-1]


@pytest.mark.parametrize("lane", ["express", "core"])
@pytest.mark.parametrize(
    ("then", "end"), [("close", WHOLE), ("fin", BROKEN), ("garbage", BROKEN), ("alert", BROKEN)]
)
def test_over_tls(worker: Worker, ca: ThrowawayCA, then: str, end: str) -> None:
    talk = alerting(ca) if then == "alert" else answers(OPEN_END, then=then)
    with Peer(ca, talk, tls=then != "alert") as peer:
        got = ask(worker, peer.port)
        assert told(worker) == end
    assert b"half of it" in got
    assert got.endswith(b"\r\n0\r\n\r\n") == (end == WHOLE), got


@pytest.mark.parametrize("lane", ["express", "core"])
@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["length", "chunks", "no body"],
)
def test_what_says_its_own_end_needs_none_of_tls(
    worker: Worker, ca: ThrowawayCA, whole: bytes
) -> None:
    with Peer(ca, answers(whole, then="fin")) as peer:
        ask(worker, peer.port)
        assert told(worker) == WHOLE


@pytest.mark.parametrize("lane", ["core"])  # the express lane is in tunnels alone, over TLS
@pytest.mark.parametrize(("then", "end"), [("close", "completed"), ("reset", "failed")])
def test_over_plain_tcp(worker: Worker, ca: ThrowawayCA, then: str, end: str) -> None:
    """An end of TCP is all the end that there is, but a reset is none."""
    with Peer(ca, answers([OPEN_END, b" and more"], then=then), tls=False) as peer:
        place = f"localhost:{peer.port}"
        lines = [f"GET http://{place}/ HTTP/1.1", f"Host: {place}"]
        lines += [f"Proxy-Authorization: {CREDENTIALS}", "Connection: close"]
        with worker.dial() as raw:
            raw.sendall("\r\n".join([*lines, "", ""]).encode())
            got = read_all(raw)
        assert told(worker).split(" ")[0] == end
    assert got.endswith(b"\r\n0\r\n\r\n") == (end == "completed"), got


@pytest.mark.parametrize("lane", ["core"])
@pytest.mark.parametrize(("then", "status"), [("close", 200), ("fin", 0)])
def test_an_http2_agent_is_told_by_a_reset(
    worker: Worker, ca: ThrowawayCA, then: str, status: int
) -> None:
    with Peer(ca, answers(OPEN_END, then=then)) as peer:
        place = f"localhost:{peer.port}"
        with worker.tls(place, alpn=["h2"]) as tls:
            agent = RawH2(tls, place)
            stream = agent.request("/")
            assert agent.wait(stream) == status
            assert agent.bodies[stream] == b"half of it"
        assert told(worker) == (WHOLE if status else BROKEN)


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("then", "end"), [("close", WHOLE), ("fin", BROKEN)])
def test_through_another_proxy_it_is_the_upstreams_end_that_counts(
    ca: ThrowawayCA, bundle: Path, tmp_path: Path, proxy_tls: bool, then: str, end: str
) -> None:
    with ConnectProxy(tls=ca.server_context(["localhost"]) if proxy_tls else None) as corp:
        chain = Chain("https" if proxy_tls else "http", "localhost", corp.port)
        with (
            Worker(tmp_path, bundle, chain=chain) as worker,
            Peer(ca, answers(OPEN_END, then=then)) as peer,
        ):
            ask(worker, peer.port)
            assert told(worker) == end


@pytest.mark.parametrize("lane", ["express", "core"])
@pytest.mark.parametrize("then", ["close", "fin"])
def test_an_agent_of_http_1_0_is_told_by_a_reset(
    worker: Worker, ca: ThrowawayCA, then: str
) -> None:
    """It knows no chunks, so that a whole body ends with its connection, too."""
    with Peer(ca, answers(OPEN_END, then=then)) as peer:
        place = f"localhost:{peer.port}"
        with worker.tls(place) as tls:
            tls.sendall(f"GET / HTTP/1.0\r\nHost: {place}\r\n\r\n".encode())
            assert was_reset(tls) == (then == "fin")
        assert told(worker) == (BROKEN if then == "fin" else WHOLE)


@pytest.mark.parametrize("lane", ["core"])
@pytest.mark.parametrize("then", ["close", "reset"])
def test_over_plain_tcp_as_well(worker: Worker, ca: ThrowawayCA, then: str) -> None:
    with Peer(ca, answers([OPEN_END, b" and more"], then=then), tls=False) as peer:
        place = f"localhost:{peer.port}"
        lines = [f"GET http://{place}/ HTTP/1.0", f"Proxy-Authorization: {CREDENTIALS}"]
        with worker.dial() as raw:
            raw.sendall("\r\n".join([*lines, f"Host: {place}", "", ""]).encode())
            reset = was_reset(raw)
        end = told(worker)
        # What a reset overtakes is lost, and then there is nothing to break off.
        assert reset == (end == BROKEN) and (end == WHOLE) == (then == "close")


def was_reset(connection: socket.socket) -> bool:
    """How a connection ends that is read to its end, below any TLS."""
    connection.settimeout(10)
    try:
        while socket.socket.recv(connection, 65536):
            pass
    except ConnectionResetError:
        return True
    return False
