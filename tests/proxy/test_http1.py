"""HTTP/1 as agents and upstreams speak it: bounded, in step, and odd heads refused in our words."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import pages
from proxy.http1 import MAX_HEAD, MAX_RESPONSE_HEAD, assembled
from tests.proxy.harness import (
    Worker,
    exchange,
    read_all,
    read_response,
    wait_until,
)
from tests.support.upstream import Reply, Upstream

e2e = pytest.mark.e2e


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def get(path: str, upstream: Upstream, *lines: str) -> str:
    return "\n".join([f"GET {path} HTTP/1.1", f"Host: localhost:{upstream.port}", *lines])


@pytest.fixture
def tls(worker: Worker, upstream: Upstream) -> Iterator[ssl.SSLSocket]:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        tls.settimeout(5)
        yield tls


# -- HTTP/1 from the agent


@e2e
def test_chunked_request_trailers_are_seen(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    """Stock: NotImplementedError, and the agent waits for ever."""
    head = f"POST /echo HTTP/1.1\nHost: localhost:{upstream.port}\nTransfer-Encoding: chunked"
    status, _, body = exchange(tls, head, b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert status == 400
    assert worker.pipeline.raw[0].has_trailers
    assert worker.pipeline.raw[0].body == b"abc"
    assert b"trailers" in body
    assert upstream.requests == []
    # The connection is still in step.
    assert exchange(tls, head, b"3\r\nabc\r\n0\r\n\r\n")[0] == 200
    assert not worker.pipeline.raw[1].has_trailers
    assert upstream.requests[0].header("content-length") == "3"
    assert upstream.requests[0].header("transfer-encoding") is None


@e2e
@pytest.mark.parametrize(
    "head",
    [
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\tHTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / http/1.1\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_an_odd_head_is_refused_in_our_words(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket, head: bytes
) -> None:
    host = f"localhost:{upstream.port}".encode()
    tls.sendall(head.replace(b"Host: x", b"Host: " + host).replace(b"Host : x", b"Host : " + host))
    status, answer, body = read_response(tls)
    assert status == 400
    assert b"keybroker-code: request_ambiguous" in answer
    assert b"application/problem+json" in answer
    assert b"mitmproxy" not in answer + body
    assert upstream.requests == []


@e2e
def test_empty_lines_before_a_request_are_skipped(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    """Stock drops one and then waits for more bytes before it looks at the rest."""
    assert exchange(tls, "\n\n" + get("/echo", upstream))[0] == 200


@e2e
def test_pipelined_requests_are_answered_in_turn(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    head = get("/echo", upstream).replace("\n", "\r\n").encode() + b"\r\n\r\n"
    tls.sendall(head * 3)
    assert [read_response(tls)[0] for _ in range(3)] == [200, 200, 200]


@e2e
@pytest.mark.parametrize("step", [2_000_000, 1000])
def test_a_head_is_bounded(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket, step: int
) -> None:
    head = get("/echo", upstream).replace("\n", "\r\n").encode() + b"\r\nX: "
    answer = flood(tls, head, b"a" * step, 2_000_000)
    assert answer == b"" or b"HTTP/1.1 400" in answer
    assert worker.pipeline.raw == []


def flood(connection: socket.socket, head: bytes, filler: bytes, size: int) -> bytes:
    """Sends `size` bytes of filler, if the other side takes them; what it said before it closed."""
    try:
        connection.sendall(head)
        for _ in range(size // len(filler)):
            connection.sendall(filler)
    except OSError:
        pass
    return read_all(connection)  # which times out unless the other side has closed


@e2e
def test_ten_thousand_headers_are_refused(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    lines = [f"X{number}: a" for number in range(5000)]
    assert exchange(tls, get("/echo", upstream, *lines))[0] == 400
    assert upstream.requests == []


@e2e
def test_a_half_sent_head_is_timed_out(upstream: Upstream, tmp_path: Path) -> None:
    with Worker(tmp_path, upstream.ca_file, head_timeout=0.3) as worker:
        with worker.dial() as raw:  # nothing at all
            assert read_all(raw) == b""
        with worker.dial() as raw:  # half a CONNECT, byte by byte
            raw.sendall(b"CONNECT localhost:443 HTTP/1.1\r\nHost:")
            assert dribble(raw)
        with worker.connect(f"localhost:{upstream.port}") as raw:  # half a TLS handshake
            raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            assert dribble(raw)
        with worker.tls(f"localhost:{upstream.port}") as tls:  # half a request, after a whole one
            assert exchange(tls, get("/echo", upstream))[0] == 200
            time.sleep(0.5)  # an idle connection is left alone
            assert exchange(tls, get("/echo", upstream))[0] == 200
            tls.sendall(b"GET / HTTP/1.1\r\nHost: ")
            assert b"in time" in read_all(tls)


def dribble(connection: socket.socket) -> bool:
    """Whether the other side hangs up although a byte comes every now and then."""
    for _ in range(100):
        try:
            connection.sendall(b"a")
        except OSError:
            return True
        time.sleep(0.03)
    return False


@e2e
def test_what_arrives_during_a_hold_is_bounded(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    """Stock keeps everything that the agent sends while its call is held."""

    async def hold(client: object, raw: object, gone: object) -> object:
        await gone.wait()  # type: ignore[attr-defined]
        return None

    worker.pipeline.script = hold
    tls.sendall(get("/", upstream).replace("\n", "\r\n").encode() + b"\r\n\r\n")
    wait_until(lambda: bool(worker.pipeline.gone))
    flood(tls, b"", b"a" * 65536, 1 << 24)
    wait_until(lambda: worker.pipeline.gone[0].is_set())


@e2e
def test_nothing_behind_a_hold_is_done_once_the_connection_is_closed(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    """Stock answers the held call and goes on to the next, although nobody is there any more."""
    let_through = worker.pipeline.script

    async def hold_first(client: Any, raw: Any, gone: asyncio.Event) -> object:
        if len(worker.pipeline.raw) == 1:
            await gone.wait()
        return await let_through(client, raw, gone)

    worker.pipeline.script = hold_first
    request = get("/echo", upstream).replace("\n", "\r\n").encode() + b"\r\n\r\n"
    tls.sendall(request)
    wait_until(lambda: bool(worker.pipeline.gone))
    flood(tls, b"", request * 1000, 1 << 24)
    wait_until(lambda: worker.pipeline.gone[0].is_set())
    time.sleep(0.2)
    assert (len(worker.pipeline.raw), upstream.requests) == (1, [])


@e2e
def test_a_chunk_header_that_never_ends_is_bounded(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost:{upstream.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    flood(tls, head.encode(), b"0" * 65536, 1 << 24)
    assert upstream.requests == []


@e2e
def test_http_1_0_is_answered_and_closed(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    host = f"Host: localhost:{upstream.port}"
    tls.sendall(f"GET /sse?n=2&interval=0 HTTP/1.0\r\n{host}\r\n\r\n".encode())
    received = read_all(tls)
    assert b"transfer-encoding" not in received.lower()
    assert received.endswith(b"data: event 1\n\n")
    assert upstream.requests[0].version == "HTTP/1.1"


# -- HTTP/1 from the upstream


@e2e
@pytest.mark.parametrize(
    "early",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
        b"HTTP/1.1 100 \r\n\r\n\r\n",
    ],
)
def test_informational_responses_are_skipped(
    upstream: Upstream, tls: ssl.SSLSocket, early: bytes
) -> None:
    """Stock takes the first of them for the final response and loses the real one."""
    raw = early + b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    upstream.answer("/early-raw", Reply(raw=raw))
    assert exchange(tls, get("/early-raw", upstream))[::2] == (200, b"ok")
    assert exchange(tls, get("/early", upstream))[::2] == (200, b"after the hints\n")


@e2e
def test_informational_responses_end_some_time(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    upstream.answer("/forever", Reply(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000))
    assert exchange(tls, get("/forever", upstream))[0] == 502
    assert worker.pipeline.passages[0].told[-1].startswith("failed sent=True")


@e2e
def test_a_response_head_is_bounded(worker: Worker, upstream: Upstream, tls: ssl.SSLSocket) -> None:
    upstream.answer("/wide", Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2_000_000))
    assert exchange(tls, get("/wide", upstream))[0] == 502


@e2e
def test_a_folded_response_header_is_unfolded(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    upstream.answer(
        "/fold", Reply(raw=b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 0\r\n\r\n")
    )
    assert b"\r\nX: a b\r\n" in exchange(tls, get("/fold", upstream))[1]


@e2e
def test_a_body_without_a_length_is_framed_for_the_agent(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    upstream.answer("/eof", Reply(raw=b"HTTP/1.0 200 OK\r\n\r\nup to the end"))
    status, head, body = exchange(tls, get("/eof", upstream))
    assert (status, body) == (200, b"up to the end")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert exchange(tls, get("/echo", upstream))[0] == 200


@e2e
@pytest.mark.parametrize("status", [204, 304, 205, 404])
def test_bodyless_answers_keep_the_connection_in_step(
    upstream: Upstream, tls: ssl.SSLSocket, status: int
) -> None:
    raw = b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status
    upstream.answer(
        "/none",
        Reply(
            raw=raw.replace(b"Content-Length: 0\r\n", b"ETag: 1\r\n")
            if status in (204, 304)
            else raw
        ),
    )
    assert exchange(tls, get("/none", upstream))[0] == status
    assert exchange(tls, get("/echo", upstream))[0] == 200


# -- trailers, and pages


def test_trailers_of_a_request_have_an_end(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.streaming = True
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(MAX_HEAD // 100))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"PUT /upload HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n"
        tls.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + lines)
        assert b"200 OK" not in read_all(tls)
    assert upstream.requests == []


def test_trailers_of_a_response_have_an_end(worker: Worker, upstream: Upstream) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 100) for n in range(MAX_RESPONSE_HEAD // 100))
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + lines
    upstream.answer("/t", Reply(raw=body + b"\r\n"))
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"GET /t HTTP/1.1\r\nHost: localhost:{upstream.port}\r\nTE: trailers\r\n"
        tls.sendall(f"{head}Connection: TE, close\r\n\r\n".encode())
        got = read_all(tls)
    assert b"X-1" not in got


def test_a_page_of_ours_is_a_whole_response() -> None:
    data = assembled(pages.page("policy_denied", "no"))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403")
    assert b"content-length: %d" % len(body) in head
