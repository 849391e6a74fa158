"""Connections to upstreams: made to who proves to be there, kept while they are in step."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from pathlib import Path

import pytest

from broker.model import Client
from proxy import pages
from proxy.dialing import PinningLoop, Pins
from proxy.express.upstream import NoUpstream, Upstream
from proxy.patience import Timeouts
from proxy.tls import Tls
from rules.request import RawRequest, Request
from tests.proxy.express.both import Both, Peer, Visit, answers, says
from tests.proxy.harness import FakePassage, FakePipeline, Worker, exchange, wait_until
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.upstream import Certificate
from tests.support.upstream import Upstream as Server

pytestmark = pytest.mark.e2e

GET = b"GET / HTTP/1.1\r\nHost: PLACE\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("certificate", ["expired", "self-signed", "wrong-name"])
def test_an_upstream_that_cannot_prove_who_it_is(
    tmp_path: Path, lane: str, certificate: Certificate
) -> None:
    with (
        Server(certificate=certificate) as server,
        Worker(tmp_path, server.ca_file, express=lane == "express") as worker,
    ):
        place = f"localhost:{server.port}"
        with worker.tls(place) as tls:
            for _ in range(2):
                status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: {place}")
                assert (status, pages.UNVERIFIED.encode() in body) == (502, True)
        assert server.requests == []
        told = [passage.told for passage in worker.pipeline.passages]
        assert told == [[f"failed sent=False: {pages.UNVERIFIED}"]] * 2


def speaks_first(visit: Visit) -> None:
    visit.write(OK.replace(b"ok", b"no"))
    answers(OK)(visit)


def test_what_was_said_unasked_is_no_answer(lanes: Both) -> None:
    """With the end of the handshake, or between it and the request: the full engine may take it."""
    express, _ = lanes.outcomes(speaks_first, says(GET))
    if express.statuses == [502]:
        assert express.told == ((f"failed sent=False: {pages.NOT_SET_UP}",),)
        assert express.arrived == (b"",)


class NoTls:
    """An upstream that is something else than TLS, or leaves."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(self._said)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
)
def test_an_upstream_without_tls(worker: Worker, lane: str, said: bytes) -> None:
    """The full engine does not tell it from one that cannot be reached at all."""
    sentence = pages.NOT_SET_UP if lane == "express" else pages.NO_CONNECTION
    with NoTls(said) as port, worker.tls(f"localhost:{port}") as tls:
        status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{port}")
        assert (status, sentence.encode() in body) == (502, True)
    assert worker.pipeline.passages[0].told == [f"failed sent=False: {sentence}"]


def test_an_upstream_where_nobody_listens(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with worker.tls(f"localhost:{port}") as tls:
        for _ in range(2):
            status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{port}")
            assert (status, pages.NO_CONNECTION.encode() in body) == (502, True)
    told = [passage.told for passage in worker.pipeline.passages]
    assert told == [[f"failed sent=False: {pages.NO_CONNECTION}"]] * 2


def test_an_agent_that_leaves_while_its_upstream_is_dialled(worker: Worker) -> None:
    dialled = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with worker.tls(f"localhost:{port}") as tls:
            tls.sendall(GET.replace(b"PLACE", f"localhost:{port}".encode()))
            connection, _ = listener.accept()  # and no TLS
            dialled.set()
        with connection:
            connection.settimeout(5)
            wait_until(lambda: worker.pipeline.gone[0].is_set())
            connection.close()
        wait_until(lambda: bool(worker.pipeline.passages[0].told))
    assert worker.pipeline.passages[0].told == [f"failed sent=False: {pages.GONE_UNSENT}"]


# -- a request that is not the agent's own: one from the store


def stored(port: int, **changes: object) -> Request:
    made = Request("GET", "https", "localhost", port, "/stored", None, (("x-a", "1"),), b"")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def passages_of(*requests: Request) -> object:
    """Whatever the agent asks for, these requests are its calls."""
    rest = list(requests)

    def setup(pipeline: FakePipeline) -> None:
        turn = iter(rest)

        async def script(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
            request = next(turn)
            await pipeline.egress.check(request.host, request.port)
            pipeline.passages.append(FakePassage(request))
            return pipeline.passages[-1]

        pipeline.script = script

    return setup


STORED = {
    # The agent's method, the stored request's, the upstream's answer: what the agent then has.
    "put-for-post": ("POST", {"method": "PUT", "body": b"stored"}, OK, b"ok"),
    "head-for-post": ("POST", {"method": "HEAD"}, OK[:-2], b""),
    "get-for-head": ("HEAD", {}, OK, b""),
    "chunks-for-head": (
        "HEAD",
        {},
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"",
    ),
    "204-for-head": ("HEAD", {"method": "DELETE"}, b"HTTP/1.1 204 No\r\n\r\n", b""),
    "no-length-for-post": ("POST", {"method": "POST"}, b"HTTP/1.1 200 OK\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("name", STORED)
def test_a_stored_request(lanes: Both, name: str) -> None:
    method, changes, reply, body = STORED[name]
    ask = GET.replace(b"GET", method.encode())
    with Peer(lanes.ca, answers(reply, then="close")) as other:
        setup = passages_of(stored(other.port, **changes))
        outcome = lanes.same(
            answers(OK), says(ask, methods=[method]), methods=[method], setup=setup
        )  # type: ignore[arg-type]
        assert [(r.status, r.body) for r in outcome.replies] == [
            (204 if b" 204 " in reply else 200, body)
        ]
        assert all(r.whole for r in outcome.replies)
        assert outcome.arrived == (), "nothing for the place that the tunnel leads to"
        assert outcome.told[0][-1] == "completed"
        first, second = (bytes(visit.heard) for visit in other.visits)
        assert first == second
        assert first.startswith(f"{changes.get('method', 'GET')} /stored HTTP/1.1\r\n".encode())


def test_a_connection_is_for_one_place(worker: Worker, upstream: Server) -> None:
    """Calls of one agent's connection that go to other places, and back."""
    with Server(ca=upstream.ca) as other, Server(tls=False) as clear:
        here = stored(upstream.port, path="/echo")
        there = stored(other.port, path="/echo")
        renamed = stored(upstream.port, path="/echo", host="127.0.0.1")
        plain = stored(clear.port, path="/echo", scheme="http")
        passages_of(here, here, there, renamed, plain, here)(worker.pipeline)  # type: ignore[operator]
        with worker.tls(f"localhost:{upstream.port}") as tls:
            for _ in range(6):
                assert exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{upstream.port}")[0] == 200
        at = [(r.header("host"), r.sni) for r in upstream.requests]
        assert at == [
            (f"localhost:{upstream.port}", "localhost"),
            (f"localhost:{upstream.port}", "localhost"),
            (f"127.0.0.1:{upstream.port}", None),
            (f"localhost:{upstream.port}", "localhost"),
        ]
        connections = [r.connection for r in upstream.requests]
        assert connections[0] == connections[1] != connections[2]
        assert connections[2] != connections[3]
        assert [r.header("host") for r in other.requests] == [f"localhost:{other.port}"]
        assert [r.header("host") for r in clear.requests] == [f"localhost:{clear.port}"]


def test_no_connection_outlives_its_agent(worker: Worker, upstream: Server) -> None:
    left = threading.Event()

    def talk(visit: Visit) -> None:
        visit.request()
        visit.write(OK)
        visit.stay()
        left.set()

    with Peer(upstream.ca, talk) as peer:
        with worker.tls(f"localhost:{peer.port}") as tls:
            assert exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{peer.port}")[0] == 200
            assert not left.is_set()
        assert left.wait(5)


def test_agents_do_not_share_connections(worker: Worker, upstream: Server) -> None:
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as one, worker.tls(place) as two:
        for tls in (one, two, one, two):
            assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
    first, second, third, fourth = (r.connection for r in upstream.requests)
    assert (first, second) == (third, fourth)
    assert first != second


# -- by itself


class Told:
    """An asker that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def on_head(self, response: object) -> None:
        self.said.append("head")

    def on_data(self, data: bytes) -> None:
        self.said.append(data)

    def on_end(self, trailers: object) -> None:
        self.said.append("end")

    def on_break(self) -> None:
        self.said.append("break")

    def on_turn(self) -> None:
        return


def test_only_the_asker_of_now_is_told(tmp_path: Path) -> None:
    ca = ThrowawayCA()
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ca.pem)
    pins = Pins()

    async def conversation(port: int) -> tuple[Told, Told]:
        tls = Tls(None, bundle)  # type: ignore[arg-type]  # no agent is served here
        first, second = Told(), Told()
        upstream = await Upstream.connect(("https", "localhost", port), tls, Timeouts())
        upstream.ask(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n", b"GET", first)
        while "end" not in first.said:
            await asyncio.sleep(0.01)
        assert upstream.open
        upstream.ask(b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n", b"GET", second)
        while "head" not in second.said:
            await asyncio.sleep(0.01)
        upstream.abort()  # in mid-body, and nobody is told any more
        await asyncio.sleep(0.05)
        assert not upstream.open
        return first, second

    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    with Peer(ca, answers(OK, half)) as peer:
        pins.pin("localhost", peer.port, ["127.0.0.1"])
        with asyncio.Runner(loop_factory=lambda: PinningLoop(pins)) as runner:
            first, second = runner.run(conversation(peer.port))
    assert first.said == ["head", b"ok", "end"]
    assert second.said == ["head", b"half"]


def test_what_was_not_pinned_is_not_dialled(tmp_path: Path) -> None:
    ca = ThrowawayCA()
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ca.pem)
    with Peer(ca, answers(OK)) as peer:
        pins = Pins()
        pins.pin("localhost", peer.port + 1, ["127.0.0.1"])

        async def connect() -> None:
            tls = Tls(None, bundle)  # type: ignore[arg-type]
            await Upstream.connect(("https", "localhost", peer.port), tls, Timeouts())

        with (
            asyncio.Runner(loop_factory=lambda: PinningLoop(pins)) as runner,
            pytest.raises(NoUpstream, match=pages.NO_CONNECTION),
        ):
            runner.run(connect())
        assert peer.visits == []
