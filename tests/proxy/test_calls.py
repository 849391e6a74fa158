"""Law 1 through every hook of a call: whatever a stage does, only what was lifted goes out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from typing import Any

import pytest

from broker.errors import Refusal
from broker.model import Client
from proxy.calls import ResponseRefused
from rules.canonical import canonicalise
from rules.request import RawRequest, Request
from tests.proxy.harness import (
    CREDENTIALS,
    FakeAnswer,
    FakeHead,
    FakePassage,
    Worker,
    exchange,
    read_all,
    read_response,
    refused,
    wait_until,
)
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(worker: Worker, upstream: Upstream, path: str = "/echo") -> tuple[int, bytes, bytes]:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        return exchange(tls, f"GET {path} HTTP/1.1\nHost: localhost:{upstream.port}")


def code(head: bytes) -> str:
    lines = head.decode("latin-1").lower().split("\r\n")
    return next((v[16:] for v in lines if v.startswith("keybroker-code: ")), "")


class Raises:
    """Has every part of a passage, and each one fails."""

    call = "call-1"
    refused = False

    def __init__(self, request: Request) -> None:
        self.request = dataclasses.replace(request, path="/é")

    head = feed = finish = completed = lambda *_: 1 / 0

    async def failed(self, sentence: str, *, sent: bool) -> Any:
        raise ZeroDivisionError


def unsendable(request: Request) -> Any:
    return FakePassage(dataclasses.replace(request, path="/\u20ac"))


def without_request(request: Request) -> Any:
    return FakePassage(None)  # type: ignore[arg-type]


NONSENSE: list[Any] = [
    None,
    True,
    {"status": 200},
    "allow",
    Exception("returned, not raised"),
    FakeAnswer(99),
    FakeAnswer(101),
    FakeAnswer("200"),  # type: ignore[arg-type]
    FakeAnswer(200, (("a", "b\r\nc: d"),)),
    FakeAnswer(200, (), "text"),  # type: ignore[arg-type]
    FakePassage(None),  # type: ignore[arg-type]
    FakePassage("GET / HTTP/1.1"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("outcome", NONSENSE, ids=repr)
def test_nonsense_from_the_pipeline_sends_nothing(
    worker: Worker, upstream: Upstream, outcome: Any
) -> None:
    async def script(*_: object) -> object:
        return outcome

    worker.pipeline.script = script
    status, head, body = call(worker, upstream)
    assert (status, code(head)) == (500, "internal_error")
    assert json.loads(body)["code"] == "internal_error"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "error", [RuntimeError("secret-in-message"), asyncio.CancelledError(), MemoryError()], ids=repr
)
def test_a_raising_pipeline_sends_nothing(
    worker: Worker, upstream: Upstream, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(*_: object) -> object:
        raise error

    worker.pipeline.script = script
    with caplog.at_level(logging.DEBUG):
        status, head, _ = call(worker, upstream)
    assert (status, code(head)) == (500, "internal_error")
    assert upstream.requests == []
    assert "secret-in-message" not in caplog.text
    assert "fault in the request hook" in caplog.text


def test_a_hanging_pipeline_sends_nothing_and_learns_that_the_agent_left(
    worker: Worker, upstream: Upstream
) -> None:
    async def script(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
        await gone.wait()
        return await worker.pipeline.let_through(client, raw, gone)

    worker.pipeline.script = script
    with worker.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % upstream.port)
        tls.settimeout(0.3)
        with pytest.raises(TimeoutError):
            tls.recv(1)
    wait_until(lambda: bool(worker.pipeline.passages and worker.pipeline.passages[0].told))
    # The passage came all the same: it is told that certainly nothing was sent.
    assert worker.pipeline.passages[0].told == [
        "failed sent=False: The agent hung up before anything was sent."
    ]
    assert upstream.requests == []


@pytest.mark.parametrize("kind", [unsendable, Raises, without_request])
def test_a_passage_that_cannot_be_said_sends_nothing(
    worker: Worker, upstream: Upstream, kind: Any
) -> None:
    worker.pipeline.make_passage = kind
    status, _, _ = call(worker, upstream)
    assert status in (500, 502)
    assert upstream.requests == []


# -- the response


class BadHead(FakePassage):
    def head(self, *_: object) -> FakeHead:
        raise ValueError("reflected-secret")


class SplittingHead(FakePassage):
    def head(self, status: int, reason: str, headers: Any) -> FakeHead:
        return FakeHead(200, "OK", (("x", "a\r\nset-cookie: b"),))


class NonsenseHead(FakePassage):
    def head(self, *_: object) -> Any:
        return None


@pytest.mark.parametrize("kind", [BadHead, SplittingHead, NonsenseHead])
@pytest.mark.parametrize("path", ["/reflect?as=header", "/status/404", "/download?mb=3"])
def test_nothing_of_a_response_passes_uncleared(
    worker: Worker, upstream: Upstream, kind: Any, path: str
) -> None:
    worker.pipeline.make_passage = kind
    status, head, body = call(worker, upstream, path)
    assert (status, code(head)) == (502, "response_refused")
    assert json.loads(body)["code"] == "response_refused"
    assert b"x-reflected" not in head.lower()
    assert worker.pipeline.passages[0].told[-1].startswith("failed sent=True")


class Answered(FakePassage):
    def head(self, status: int, reason: str, headers: Any) -> FakeHead:
        return FakeHead(status, reason, headers, refused("response_refused", "encoding"))


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
@pytest.mark.parametrize("path", ["/download?mb=3", "/sse?n=100&interval=0.2", "/status/404"])
def test_an_answer_replaces_the_response_and_its_body(
    worker: Worker, upstream: Upstream, path: str, alpn: str
) -> None:
    worker.pipeline.make_passage = Answered
    with worker.h2_client() if alpn == "h2" else worker.h1_client() as client:
        response = client.get(upstream.url + path)
        assert response.status_code == 502
        assert response.json()["detail"] == "encoding"
        # The connection lives on, and the next call uses it.
        worker.pipeline.make_passage = FakePassage
        assert client.get(upstream.url + "/echo").status_code == 200
    wait_until(lambda: worker.pipeline.passages[0].told[-2:] == ["finish", "completed"])


class BadFeed(FakePassage):
    def feed(self, chunk: bytes) -> bytes:
        raise ValueError("reflected-secret")


class BadFinish(FakePassage):
    def finish(self) -> bytes:
        raise ValueError("reflected-secret")


class RefusedInMidBody(FakePassage):
    def feed(self, chunk: bytes) -> bytes:
        self.refused = True
        return b""


@pytest.mark.parametrize("kind", [BadFeed, BadFinish, RefusedInMidBody])
@pytest.mark.parametrize("path", ["/sse?n=3&interval=0.01", "/download?mb=1"])
def test_a_body_that_cannot_be_passed_on_breaks_off(
    worker: Worker, upstream: Upstream, kind: Any, path: str
) -> None:
    worker.pipeline.make_passage = kind
    with worker.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n\r\n".encode())
        received = read_all(tls)  # the connection closes: no end of the body is pretended
    assert not received.endswith(b"0\r\n\r\n")
    assert worker.pipeline.passages[0].told[-1].startswith("failed sent=True")
    assert len(worker.pipeline.passages[0].told) == 2


def test_completed_may_fail_without_harm(worker: Worker, upstream: Upstream) -> None:
    class Unrecorded(FakePassage):
        async def completed(self) -> None:
            raise OSError("disk full")

    worker.pipeline.make_passage = Unrecorded
    with worker.tls(f"localhost:{upstream.port}") as tls:
        for _ in range(2):
            head = f"GET /echo HTTP/1.1\nHost: localhost:{upstream.port}"
            assert exchange(tls, head)[0] == 200


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_the_body_of_a_stranger_is_not_awaited(worker: Worker, framing: str) -> None:
    """Whoever can reach the port could else fill the memory, body limit by body limit."""
    with worker.dial() as raw:
        head = "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n" + framing
        raw.sendall(head.encode() + b"\r\n\r\n" + b"%x\r\n%s" % (500_000, b"a" * 100_000))
        raw.settimeout(5)
        status, answer, _ = read_response(raw)
    assert (status, code(answer)) == (407, "agent_unauthenticated")
    assert b"connection: close" in answer.lower()
    assert worker.pipeline.raw == []


def test_a_stranger_with_a_small_body_may_retry(worker: Worker) -> None:
    """Clients that wait for the challenge send the whole request first."""
    with Upstream(tls=False) as plain, worker.dial() as raw:
        head = f"POST http://localhost:{plain.port}/echo HTTP/1.1\nHost: localhost:{plain.port}"
        head += "\nContent-Length: 3"
        assert exchange(raw, head, b"abc")[0] == 407
        assert exchange(raw, head + f"\nProxy-Authorization: {CREDENTIALS}", b"abc")[0] == 200
        assert [request.body for request in plain.requests] == [b"abc"]


def test_hop_by_hop_headers_of_the_response_are_removed(worker: Worker, upstream: Upstream) -> None:
    headers = (
        ("Connection", "close, X-Private"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Upgrade", "h2c"),
        ("X-Kept", "1"),
    )
    upstream.answer("/hop", Reply(headers=headers, body=b"ok"))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        place = f"localhost:{upstream.port}"
        _, head, body = exchange(tls, f"GET /hop HTTP/1.1\nHost: {place}")
        names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]}
        assert names == {b"x-kept", b"content-length"}
        assert body == b"ok"
        # `close` was the upstream's business with us: the agent's connection lives on.
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200


def test_the_request_is_made_from_the_passage_alone(worker: Worker, upstream: Upstream) -> None:
    """As for a stored request: another method, place and body than the agent's own."""
    with Upstream(ca=upstream.ca) as other:
        stored = Request(
            "PUT", "https", "localhost", other.port, "/echo", "a=1", (("x-a", "1"),), b"stored"
        )

        async def script(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
            canonicalise(raw)
            await worker.egress.check("localhost", other.port)
            return FakePassage(stored)

        worker.pipeline.script = script
        with Upstream(tls=False) as internal, worker.dial() as raw:
            place = f"localhost:{internal.port}"
            status, _, body = exchange(
                raw,
                f"POST http://{place}/v1/x HTTP/1.1\nHost: {place}\nX-Mine: 1\nContent-Length: 2"
                f"\nProxy-Authorization: {CREDENTIALS}",
                b"{}",
            )
            assert internal.requests == []
        assert status == 200
        sent = other.requests[0]
        assert json.loads(body)["body"] == "stored"
        assert (sent.method, sent.target, sent.sni) == ("PUT", "/echo?a=1", "localhost")
        assert dict(sent.headers) == {
            "host": f"localhost:{other.port}",
            "x-a": "1",
            "content-length": "6",
        }
        stored = dataclasses.replace(stored, method="HEAD", body=b"")
        with worker.tls(f"localhost:{upstream.port}") as tls:
            head = f"POST /v1/x HTTP/1.1\nHost: localhost:{upstream.port}\nContent-Length: 0"
            assert exchange(tls, head)[2] == b""  # and no wait for the body that HEAD announces
            assert exchange(tls, head)[2] == b""


def test_an_upstream_that_switches_unasked_is_refused(worker: Worker, upstream: Upstream) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw"
    upstream.answer("/switch", Reply(raw=switching))
    status, head, _ = call(worker, upstream, "/switch")
    assert (status, code(head)) == (502, "response_refused")


def test_refusals_keep_their_type() -> None:
    assert issubclass(ResponseRefused, Exception)
    assert not issubclass(ResponseRefused, Refusal)
