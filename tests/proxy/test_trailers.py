"""Trailers in both directions and over both protocols: checked, passed on, or left out."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import h2.events
import pytest

from tests.proxy.harness import RawH2, Worker, read_all, read_head, wait_until
from tests.support.upstream import Reply, Upstream

TRAILERS = (("X-Sum", "abc"), ("X-Other", "2"))


@pytest.fixture
def streaming(worker: Worker) -> Worker:
    worker.pipeline.streaming = True
    return worker


@pytest.fixture
def h2_upstream() -> Iterator[Upstream]:
    with Upstream(http2=True) as upstream:
        yield upstream


@pytest.fixture
def to_h2(h2_upstream: Upstream, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, h2_upstream.ca_file) as worker:
        worker.pipeline.streaming = True
        yield worker


def put(upstream: Upstream, *trailers: str, framing: str = "Transfer-Encoding: chunked") -> bytes:
    head = ["PUT /upload HTTP/1.1", f"Host: localhost:{upstream.port}", framing, ""]
    end = ["5", "hello", "0", *trailers, "", ""]
    return "\r\n".join(head + end).encode()


def test_the_trailers_of_a_streamed_request_go_upstream(
    streaming: Worker, upstream: Upstream
) -> None:
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(put(upstream, "X-Sum: abc"))
        assert read_head(tls).startswith(b"HTTP/1.1 200")
    [arrived] = upstream.requests
    assert (arrived.body, arrived.trailers) == (b"hello", (("x-sum", "abc"),))


def test_a_trailer_that_is_refused_ends_the_call(streaming: Worker, upstream: Upstream) -> None:
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(put(upstream, "X-Sum: abc", "X-No: 1"))
        assert read_head(tls).startswith(b"HTTP/1.1 502")
    assert upstream.requests == []
    assert streaming.pipeline.passages[0].told[-1].startswith("failed sent=True")


def test_the_trailers_of_a_request_that_is_read_are_refused(
    worker: Worker, upstream: Upstream
) -> None:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(put(upstream, "X-Sum: abc"))
        assert read_head(tls).startswith(b"HTTP/1.1 400")
    assert upstream.requests == []


def h2_put(worker: Worker, upstream: Upstream) -> tuple[RawH2, int, ssl.SSLSocket]:
    place = f"localhost:{upstream.port}"
    tls = worker.tls(place, alpn=("h2",))
    raw = RawH2(tls, place)
    stream = raw.h2.get_next_available_stream_id()
    head = [(":method", "PUT"), (":scheme", "https"), (":authority", place), (":path", "/upload")]
    raw.h2.send_headers(stream, head)
    raw.h2.send_data(stream, b"hello")
    raw.h2.send_headers(stream, [("x-sum", "abc")], end_stream=True)
    raw.flush()
    return raw, stream, tls


@pytest.mark.parametrize("side", ["h1", "h2"])
def test_trailers_of_http2_go_upstream(
    streaming: Worker, to_h2: Worker, upstream: Upstream, h2_upstream: Upstream, side: str
) -> None:
    worker, at = (streaming, upstream) if side == "h1" else (to_h2, h2_upstream)
    raw, stream, tls = h2_put(worker, at)
    with tls:
        assert raw.wait(stream) == 200
    [arrived] = at.requests
    assert (arrived.body, arrived.trailers) == (b"hello", (("x-sum", "abc"),))


@pytest.mark.parametrize("asked", [True, False])
def test_an_http1_agent_gets_trailers_if_it_says_that_it_reads_them(
    worker: Worker, upstream: Upstream, asked: bool
) -> None:
    upstream.answer("/t", Reply(body=iter([b"body"]), trailers=TRAILERS))
    te = (
        "TE: trailers, deflate;q=0.5\r\nConnection: TE, close\r\n"
        if asked
        else "Connection: close\r\n"
    )
    with worker.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(f"GET /t HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n{te}\r\n".encode())
        body = read_all(tls).partition(b"\r\n\r\n")[2]
    lines = b"X-Sum: abc\r\nX-Other: 2\r\n" if asked else b""
    assert body.lower() == b"4\r\nbody\r\n0\r\n" + lines.lower() + b"\r\n"
    [passage] = worker.pipeline.passages
    assert "trailers came" in " ".join(passage.told)
    assert passage.told[-1] == "completed"
    assert (upstream.requests[0].header("te") == "trailers") is asked


@pytest.mark.parametrize("side", ["h1", "h2"])
def test_an_http2_agent_gets_trailers(
    worker: Worker, to_h2: Worker, upstream: Upstream, h2_upstream: Upstream, side: str
) -> None:
    used, at = (worker, upstream) if side == "h1" else (to_h2, h2_upstream)
    at.answer("/t", Reply(body=iter([b"body"]), trailers=TRAILERS))
    place = f"localhost:{at.port}"
    with used.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        stream = raw.request("/t")
        got: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in got):
            got += raw.h2.receive_data(tls.recv(65536))
            raw.flush()
    [trailers] = [event for event in got if isinstance(event, h2.events.TrailersReceived)]
    assert trailers.stream_id == stream
    assert [tuple(pair) for pair in trailers.headers or ()] == [
        (name.lower().encode(), value.encode()) for name, value in TRAILERS
    ]


def test_trailers_that_cannot_be_passed_on_safely_are_left_out(
    worker: Worker, upstream: Upstream
) -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: a\x00b\r\n\r\n"
    )
    upstream.answer("/t", Reply(raw=raw))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"GET /t HTTP/1.1\r\nHost: localhost:{upstream.port}\r\nTE: trailers\r\n"
        tls.sendall(f"{head}Connection: TE, close\r\n\r\n".encode())
        got = read_all(tls)
    assert b"\x00" not in got
    wait_until(lambda: worker.pipeline.passages[0].told[-1:] != ["finish"])
