"""One contract test for each trap of mitmproxy's HTTP layer that stream.py stands in for.

If one of these fails after an upgrade, the trap has moved: read stream.py before changing the test.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

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
def test_responses_are_not_limited_in_size(upstream: Upstream, tls: ssl.SSLSocket) -> None:
    """Stock applies body_size_limit to downloads as well."""
    for query in ("mb=3", "mb=3&chunked"):
        assert len(exchange(tls, get(f"/download?{query}", upstream))[2]) == 3 << 20


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
