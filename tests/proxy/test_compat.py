"""One contract test for each trap of mitmproxy that compat.py stands in for.

If one of these fails after an upgrade, the trap has moved: read compat.py before changing the test.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mitmproxy.proxy
import pytest
from mitmproxy import version

from proxy import compat, pages
from rules.request import RawRequest
from tests.proxy.harness import (
    CREDENTIALS,
    FakePassage,
    RawH2,
    Worker,
    exchange,
    read_all,
    read_head,
    read_response,
    refused,
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


@pytest.fixture
def h2(worker: Worker) -> Iterator[httpx.Client]:
    with worker.h2_client() as client:
        yield client


# -- without a connection


def test_only_the_pinned_minor_version_is_accepted() -> None:
    compat.check_version("12.2.3")
    compat.check_version("12.2.99")
    for other in ("12.3.0", "12.20.0", "13.0.0", "11.0.2", "12.2"):
        with pytest.raises(compat.EngineMismatch, match=r"needs mitmproxy 12\.2\.x"):
            compat.check_version(other)
    assert version.VERSION.startswith(compat.SUPPORTED + ".")


def test_every_option_that_the_core_reads_is_there() -> None:
    root = Path(mitmproxy.proxy.__file__).parent
    # mode_servers is not used; quic is never layered; proxyauth belongs to SOCKS.
    files = [p for p in root.rglob("*.py") if p.name != "mode_servers.py" and "quic" not in p.parts]
    read = set()
    for file in files:
        read |= set(re.findall(r"\boptions\.([a-z_0-9]+)", file.read_text()))
    ours = {field.name for field in dataclasses.fields(compat.CoreOptions)}
    assert read - ours <= {"proxyauth", "confdir", "listen_host", "listen_port"}


def test_the_options_that_guard_the_law() -> None:
    options = compat.CoreOptions("1", 1, 1.0)
    assert options.connection_strategy == "lazy"
    assert options.stream_large_bodies is None
    assert options.rawtcp is False
    assert options.validate_inbound_headers is True


def test_install_is_idempotent() -> None:
    import mitmproxy.proxy.layers.http as http_layers

    compat.install()
    compat.install()
    assert http_layers.HttpStream is compat.Stream
    assert compat.Stream.__mro__[1].__module__ == "mitmproxy.proxy.layers.http"


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
@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expect", ["", "Expect: 100-continue"])
def test_a_large_body_is_refused(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket, framing: str, expect: str
) -> None:
    """Also after a 100 (Continue), where stock closes without an answer."""
    lines = [f"POST /echo HTTP/1.1\nHost: localhost:{upstream.port}", framing, expect]
    tls.sendall("\n".join(filter(None, lines)).replace("\n", "\r\n").encode() + b"\r\n\r\n")
    try:
        if expect and "chunked" in framing:
            assert read_head(tls).startswith(b"HTTP/1.1 100")
        if "chunked" in framing:
            for _ in range(20):
                tls.sendall(b"%x\r\n%s\r\n" % (100_000, b"a" * 100_000))
    except OSError:
        pass
    status, head, body = read_response(tls)
    assert status == 413
    assert b"keybroker-code: body_too_large" in head
    assert b"connection: close" in head
    assert b"larger than" in body
    assert worker.pipeline.raw == []
    assert upstream.requests == []


@e2e
def test_expect_is_answered_by_us_and_not_forwarded(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    head = f"POST /echo HTTP/1.1\nHost: localhost:{upstream.port}\nContent-Length: 3"
    tls.sendall((head + "\nExpect: 100-continue").replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert read_head(tls).startswith(b"HTTP/1.1 100")
    tls.sendall(b"abc")
    assert read_response(tls)[0] == 200
    assert upstream.requests[0].header("expect") is None
    assert exchange(tls, head + "\nExpect: 200-maybe", b"abc")[0] == 400


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
def test_response_trailers_do_not_reach_the_agent(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    """Stock crashes on them and hangs; they would also go past the scrubber."""
    status, _, body = exchange(tls, get("/trailers", upstream, "Authorization: Bearer s3cret"))
    assert (status, body) == (200, b"before the trailers\n")
    assert exchange(tls, get("/echo", upstream))[0] == 200


@e2e
@pytest.mark.parametrize(
    "raw",
    [
        b"s3cret is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ns3cret\r\n\r\n",
        b"HTTP/1.1 two s3cret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\ns3cret",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: s3cret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\ns3cret",
        b"HTTP/1.1 200 OK\r\nX(s3cret): 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rs3cret: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: s3cret",
        b"s3cret",
        b"",
    ],
)
def test_no_error_page_quotes_the_upstream(
    worker: Worker,
    upstream: Upstream,
    tls: ssl.SSLSocket,
    raw: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stock prints the offending bytes, a reflected credential among them, past every hook."""
    upstream.answer("/odd", Reply(raw=raw))
    with caplog.at_level(1):
        status, head, body = exchange(tls, get("/odd", upstream))
        assert status == 502
        assert b"keybroker-code: " in head
        assert b"s3cret" not in head + body
        # The agent's connection outlives the upstream's fault.
        assert exchange(tls, get("/echo", upstream))[0] == 200
    assert "s3cret" not in caplog.text
    assert "s3cret" not in str(worker.pipeline.passages[0].told)
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
def test_responses_are_not_limited_in_size(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    """Stock applies body_size_limit to downloads as well."""
    for query in ("mb=3", "mb=3&chunked"):
        assert len(exchange(tls, get(f"/download?{query}", upstream))[2]) == 3 << 20


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


@e2e
def test_head_requests_keep_the_length_and_have_no_body(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    host = f"Host: localhost:{upstream.port}"
    raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1234\r\n\r\n"
    upstream.answer("/h", Reply(raw=raw))
    for _ in range(2):
        tls.sendall(f"HEAD /h HTTP/1.1\r\n{host}\r\n\r\n".encode())
        assert b"content-length: 1234" in read_response(tls, "HEAD")[1].lower()

    async def deny(*_: object) -> object:
        return refused("policy_denied")

    worker.pipeline.script = deny
    tls.sendall(f"HEAD /echo HTTP/1.1\r\n{host}\r\n\r\n".encode())
    assert read_response(tls, "HEAD")[0] == 403
    assert exchange(tls, get("/echo", upstream))[0] == 403


@e2e
def test_an_upstream_that_breaks_off_is_not_completed(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    tls.sendall(get("/reset", upstream).replace("\n", "\r\n").encode() + b"\r\n\r\n")
    received = read_all(tls)
    assert b"Content-Length: 1000" in received
    assert received.endswith(b"so far so good, ")
    told = worker.pipeline.passages[0].told
    assert told == ["head 200", "failed sent=True: The response broke off while it was delivered."]


# -- connections to upstreams


@e2e
def test_connections_are_reused_past_the_sixth_request(
    upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    """Stock with a rewritten server address: the sixth request waits for ever."""
    for _ in range(8):
        assert exchange(tls, get("/echo", upstream))[0] == 200
    assert {r.connection for r in upstream.requests} == {upstream.requests[0].connection}


@e2e
def test_an_upstream_that_closes_is_dialled_again(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    """The header that says so is taken off for the agent, and must still count for us."""
    upstream.answer("/close", lambda _: Reply(headers=[("Connection", "close")], body=b"bye"))
    for _ in range(8):
        assert exchange(tls, get("/close", upstream))[::2] == (200, b"bye")
    assert len({r.connection for r in upstream.requests}) == 8


@e2e
def test_http2_agent_with_http1_upstream_past_the_sixth_request(
    upstream: Upstream, h2: httpx.Client
) -> None:
    for _ in range(8):
        response = h2.post(upstream.url + "/echo", content=b"x")
        assert response.http_version == "HTTP/2"
        assert response.json()["version"] == "HTTP/1.1"
    sent = upstream.requests[-1]
    assert sent.values("host") == [f"localhost:{upstream.port}"]


@e2e
def test_http2_both_ways_on_one_connection(worker: Worker, tmp_path: Path) -> None:
    with Upstream(http2=True) as upstream, Worker(tmp_path, upstream.ca_file) as other:
        with other.h2_client() as client:
            for _ in range(8):
                response = client.get(upstream.url + "/trailers")
                assert response.content == b"before the trailers\n"
        assert {r.connection for r in upstream.requests} == {1}
        assert other.pipeline.raw[0].authority == f"localhost:{upstream.port}"
        assert other.pipeline.raw[0].http_version == "HTTP/2"


@e2e
def test_an_empty_data_frame_in_mid_body_is_not_the_end(tmp_path: Path) -> None:
    """Stock calls the streaming function with b"" for it, as it does at the end."""
    with Upstream(http2=True) as upstream, Worker(tmp_path, upstream.ca_file) as worker:
        upstream.answer("/gaps", Reply(body=iter([b"one", b"", b"two", b"", b"three"])))
        with worker.h2_client() as client:
            assert client.get(upstream.url + "/gaps").content == b"onetwothree"
        assert worker.pipeline.passages[0].told == ["head 200", "finish", "completed"]


@e2e
def test_a_chunk_that_becomes_empty_does_not_end_a_chunked_body(
    worker: Worker, upstream: Upstream, tls: ssl.SSLSocket
) -> None:
    """Stock writes a chunk of size 0 for it, which is the end of the body."""

    class Holding(FakePassage):
        def feed(self, chunk: bytes) -> bytes:
            self.received += chunk
            return b""

        def finish(self) -> bytes:
            super().finish()
            return bytes(self.received)

    worker.pipeline.make_passage = Holding
    status, _, body = exchange(tls, get("/sse?n=3&interval=0.01", upstream))
    assert (status, body.count(b"data: ")) == (200, 3)


@e2e
def test_an_http2_reset_is_noticed_while_the_call_is_held(
    worker: Worker, upstream: Upstream
) -> None:
    """Stock looks only after the request hook has returned."""

    async def hold(client: object, raw: object, gone: object) -> object:
        await gone.wait()  # type: ignore[attr-defined]
        return await worker.pipeline.let_through(client, raw, gone)  # type: ignore[arg-type]

    worker.pipeline.script = hold
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=["h2"]) as tls:
        agent = RawH2(tls, place)
        held = agent.request("/echo")
        wait_until(lambda: bool(worker.pipeline.gone))
        agent.h2.reset_stream(held, 8)
        agent.flush()
        wait_until(lambda: worker.pipeline.gone[0].is_set())
        # Nothing went out, and the connection serves the next stream.
        worker.pipeline.script = worker.pipeline.let_through
        assert agent.wait(agent.request("/echo?second")) == 200
    assert [r.target for r in upstream.requests] == ["/echo?second"]
    assert worker.pipeline.passages[0].told[0].startswith("failed sent=False")


@e2e
def test_held_streams_do_not_block_others(worker: Worker, upstream: Upstream) -> None:
    release = threading.Event()

    async def script(client: object, raw: RawRequest, gone: asyncio.Event) -> object:
        while raw.target == "/echo?held" and not release.is_set():
            await asyncio.sleep(0.01)
        return await worker.pipeline.let_through(client, raw, gone)  # type: ignore[arg-type]

    worker.pipeline.script = script
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=["h2"]) as tls:
        agent = RawH2(tls, place)
        held = agent.request("/echo?held")
        for _ in range(3):
            assert agent.wait(agent.request("/echo")) == 200
        assert held not in agent.done
        release.set()
        assert agent.wait(held) == 200
    assert upstream.requests[-1].target == "/echo?held"


@e2e
def test_odd_http2_requests_reach_nobody(worker: Worker, upstream: Upstream) -> None:
    place = f"localhost:{upstream.port}"
    odd: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        ("elsewhere.example", ()),
        (place, (("host", "elsewhere.example"),)),
        (place, (("x", "a" * 70_000),)),
        (place, (("transfer-encoding", "chunked"),)),
        (place, (("content-length", "5"),)),
        (place, (("connection", "close"),)),
        (place, (("X-Upper", "1"),)),
        (place, (("x-split", "a\r\nb: c"),)),
        ("", ()),
    ]
    for authority, extra in odd:
        with worker.tls(place, alpn=["h2"]) as tls:
            agent = RawH2(tls, authority)
            assert agent.wait(agent.request("/echo", *extra)) in (0, 400), extra
    assert upstream.requests == []


@e2e
@pytest.mark.parametrize("certificate", ["expired", "self-signed", "wrong-name"])
def test_a_bad_certificate_is_not_called(tmp_path: Path, certificate: str) -> None:
    with (
        Upstream(certificate=certificate) as upstream,  # type: ignore[arg-type]
        Worker(tmp_path, upstream.ca_file) as worker,
        worker.tls(f"localhost:{upstream.port}") as tls,
    ):
        for _ in range(2):
            status, head, body = exchange(tls, get("/echo", upstream))
            assert (status, b"keybroker-code: upstream_unreachable" in head) == (502, True)
        assert upstream.requests == []
        assert worker.pipeline.passages[0].told == [
            "failed sent=False: The upstream's certificate could not be verified."
        ]
        assert b"certificate" in body


@e2e
def test_nobody_there_is_told_as_not_sent(worker: Worker, upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with worker.tls(f"localhost:{port}") as tls:
        host = f"localhost:{port}"
        for _ in range(2):
            status, _, _ = exchange(tls, f"GET / HTTP/1.1\nHost: {host}")
            assert status == 502
    assert worker.pipeline.passages[0].told == [
        "failed sent=False: No connection to the upstream could be made."
    ]


@e2e
def test_plain_http_has_no_tls_and_keeps_its_target(worker: Worker) -> None:
    with Upstream(tls=False) as plain, worker.dial() as raw:
        target = f"http://localhost:{plain.port}/echo?a=1"
        head = f"GET {target} HTTP/1.1\nHost: localhost:{plain.port}"
        status, _, body = exchange(raw, head + f"\nProxy-Authorization: {CREDENTIALS}")
        assert (status, b'"/echo?a=1"' in body) == (200, True)
        told = worker.pipeline.raw[0]
        assert (told.scheme, told.connect) == ("http", None)
        assert told.authority == f"localhost:{plain.port}"


def test_pages_are_fixed_text() -> None:
    for status in (400, 413, 502, 500):
        page = compat._page_for(status)
        assert page.headers["keybroker-code"] in page.text  # type: ignore[operator]
    assert pages.CHALLENGE == b'Basic realm="keybroker"'
