"""Request bodies that go upstream as they come, by a call that its head decided."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.harness import RawH2, Worker, exchange, read_head, refused, wait_until
from tests.support.upstream import Conversation, Received, Upstream

MiB = 1 << 20
WAYS = [("h1", "h1"), ("h2", "h1"), ("h2", "h2")]
"""What the agent speaks and what the upstream does; an HTTP/1.1 agent is served over HTTP/1.1."""
BLOCK = bytes(range(256)) * 256


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


def blocks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield BLOCK


def digest(count: int) -> str:
    whole = hashlib.sha256()
    for block in blocks(count):
        whole.update(block)
    return whole.hexdigest()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(("agent", "side"), WAYS)
def test_a_body_larger_than_any_buffer_arrives_whole(
    streaming: Worker,
    to_h2: Worker,
    upstream: Upstream,
    h2_upstream: Upstream,
    length: bool,
    agent: str,
    side: str,
) -> None:
    worker, at = (streaming, upstream) if side == "h1" else (to_h2, h2_upstream)
    headers = {"content-length": str(48 * len(BLOCK))} if length else {}
    with worker.h1_client() if agent == "h1" else worker.h2_client() as client:
        done = client.put(at.url + "/upload", content=blocks(48), headers=headers)
    assert done.json() == {"size": 48 * len(BLOCK), "sha256": digest(48)}
    [passage] = worker.pipeline.passages
    assert passage.uploaded == 48 * len(BLOCK)
    wait_until(lambda: "completed" in passage.told)
    assert passage.told == ["sent", "head 200", "finish", "completed"]
    [arrived] = at.requests
    framed = {n.lower() for n, _ in arrived.headers} & {"content-length", "transfer-encoding"}
    if length:
        assert framed == {"content-length"}
    else:
        assert framed == ({"transfer-encoding"} if side == "h1" else set())


def test_nothing_is_read_far_ahead_while_the_head_is_decided(
    streaming: Worker, upstream: Upstream
) -> None:
    going = threading.Event()

    async def slowly() -> object:
        await asyncio.get_running_loop().run_in_executor(None, going.wait, 10)
        return refused("policy_denied")

    streaming.pipeline.begin_script = slowly
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/upload", 1 << 30))
        tls.settimeout(1)
        # What the sockets of both sides hold, and a little.
        assert _sent_until_stuck(tls) < 32 * MiB
        going.set()
    assert upstream.requests == []


def test_a_refusal_of_the_head_is_told_before_the_body_is_asked_for(
    streaming: Worker, upstream: Upstream
) -> None:
    async def no() -> object:
        return refused("policy_denied", "not this one")

    streaming.pipeline.begin_script = no
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        place = f"localhost:{upstream.port}"
        head = f"PUT /upload HTTP/1.1\nHost: {place}\nContent-Length: 9\nExpect: 100-continue"
        status, _, body = exchange(tls, head)
        assert status == 403 and b"not this one" in body
    assert upstream.requests == []


def test_a_body_is_asked_for_once_its_head_is_decided(
    streaming: Worker, upstream: Upstream
) -> None:
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/upload", 5, "Expect: 100-continue"))
        assert read_head(tls).startswith(b"HTTP/1.1 100")
        tls.sendall(b"hello")
        assert read_head(tls).startswith(b"HTTP/1.1 200")
    assert upstream.requests[0].header("expect") is None
    assert upstream.requests[0].body == b"hello"


def test_what_the_passage_refuses_goes_no_further(streaming: Worker, upstream: Upstream) -> None:
    arrived: list[bytes] = []

    def until_the_end(_: Received, connection: Conversation) -> None:
        while chunk := connection.read(65536):
            arrived.append(chunk)

    upstream.heads["/limited"] = until_the_end

    def limited(request: object) -> object:
        passage = original(request)
        passage.most = 3 * len(BLOCK)
        return passage

    original = streaming.pipeline.make_passage
    streaming.pipeline.make_passage = limited  # type: ignore[assignment]
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/limited", chunked=True))
        for block in blocks(3):
            tls.sendall(b"%x\r\n%s\r\n" % (len(block), block))
        wait_until(lambda: sum(map(len, arrived)) > 2 * len(BLOCK))
        tls.sendall(b"10000\r\n" + BLOCK)
        head = read_head(tls)
    assert head.startswith(b"HTTP/1.1 502")  # the fake's answer
    assert sum(map(len, arrived)) < 3 * len(BLOCK) + 1000
    [passage] = streaming.pipeline.passages
    assert passage.told[-1].startswith("failed sent=True")


@pytest.mark.parametrize("agent", ["h1", "h2"])
def test_an_agent_that_stops_in_the_middle_is_told_of(
    streaming: Worker, upstream: Upstream, agent: str
) -> None:
    closed = threading.Event()

    def until_the_end(_: Received, connection: Conversation) -> None:
        while connection.read(65536):
            pass
        closed.set()

    upstream.heads["/half"] = until_the_end
    place = f"localhost:{upstream.port}"
    if agent == "h1":
        with streaming.tls(place) as tls:
            tls.sendall(_put(upstream, "/half", 100_000) + b"x" * 50_000)
            upstream.wait_for(1)
    else:
        with streaming.tls(place, alpn=("h2",)) as tls:
            raw = RawH2(tls, place)
            stream = raw.h2.get_next_available_stream_id()
            raw.h2.send_headers(stream, _h2_put(place, "/half"))
            raw.h2.send_data(stream, b"x" * 10_000)
            raw.flush()
            upstream.wait_for(1)
            raw.h2.reset_stream(stream, 8)
            raw.flush()
            closed.wait(5)
    assert closed.wait(5)
    [passage] = streaming.pipeline.passages
    wait_until(lambda: bool(passage.told))
    assert passage.told == [
        "failed sent=True: The agent hung up before the response was delivered."
    ]


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_before_the_end_of_the_body_is_passed_on_whole(
    streaming: Worker, upstream: Upstream, chunked: bool
) -> None:
    def at_once(_: Received, connection: Conversation) -> None:
        body = b"3\r\nno!\r\n0\r\n\r\n" if chunked else b"no!"
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 3"
        connection.write(b"HTTP/1.1 413 Too Much\r\n" + framing + b"\r\n\r\n" + body)

    upstream.heads["/early-no"] = at_once
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/early-no", 200_000) + b"x" * 1000)
        head = read_head(tls)
        assert head.startswith(b"HTTP/1.1 413")
        end = b"0\r\n\r\n" if chunked else b"no!"
        body = b""
        while not body.endswith(end):
            body += tls.recv(100)
        # The rest is read and dropped, and the connection is good for another call.
        tls.sendall(b"x" * 199_000)
        assert exchange(tls, f"GET /status/204 HTTP/1.1\nHost: localhost:{upstream.port}")[0] == 204
    assert streaming.pipeline.passages[0].told == ["head 413", "finish", "completed"]


def test_an_answer_before_the_end_of_the_body_ends_an_http2_stream_without_error(
    streaming: Worker, upstream: Upstream
) -> None:
    upstream.heads["/early-no"] = lambda _, connection: connection.write(
        b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nno!"
    )
    place = f"localhost:{upstream.port}"
    with streaming.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        stream = raw.h2.get_next_available_stream_id()
        raw.h2.send_headers(stream, _h2_put(place, "/early-no"))
        raw.h2.send_data(stream, b"x" * 1000)
        raw.flush()
        assert raw.wait(stream) == 413
        assert bytes(raw.bodies[stream]) == b"no!"
        assert raw.wait(raw.request("/status/204")) == 204


def test_an_upstream_that_breaks_off_in_the_middle_is_a_failure(
    streaming: Worker, upstream: Upstream
) -> None:
    upstream.heads["/gone"] = lambda _, connection: None
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/gone", 200_000) + b"x" * 1000)
        assert read_head(tls).startswith(b"HTTP/1.1 502")
    [passage] = streaming.pipeline.passages
    assert passage.told[-1].startswith("failed sent=True")


@pytest.mark.parametrize(("agent", "side"), WAYS)
def test_a_slow_upstream_slows_the_agent_and_not_the_memory(
    streaming: Worker,
    to_h2: Worker,
    upstream: Upstream,
    h2_upstream: Upstream,
    agent: str,
    side: str,
) -> None:
    going = threading.Event()
    worker, at = (streaming, upstream) if side == "h1" else (to_h2, h2_upstream)
    if side == "h1":

        def slowly(_: Received, connection: Conversation) -> None:
            going.wait(20)

        at.heads["/slow-reader"] = slowly
    else:
        at.windows_open = False
    place = f"localhost:{at.port}"
    with worker.tls(place, alpn=("h2",) if agent == "h2" else ("http/1.1",)) as tls:
        tls.settimeout(1)
        if agent == "h1":
            tls.sendall(_put(at, "/slow-reader", 1 << 30))
            sent = _sent_until_stuck(tls)
        else:
            raw = RawH2(tls, place)
            stream = raw.h2.get_next_available_stream_id()
            raw.h2.send_headers(stream, _h2_put(place, "/slow-reader"))
            raw.flush()
            sent = _h2_sent_until_stuck(raw, stream)
        assert sent < 32 * MiB
        going.set()


def _sent_until_stuck(tls: ssl.SSLSocket) -> int:
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 28:
            tls.sendall(BLOCK)
            sent += len(BLOCK)
    return sent


def _h2_sent_until_stuck(raw: RawH2, stream: int) -> int:
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 28:
            room = min(raw.h2.local_flow_control_window(stream), 16384)
            if room:
                raw.h2.send_data(stream, BLOCK[:room])
                sent += room
                raw.flush()
            else:
                raw.read()
    return sent


def _put(
    upstream: Upstream, path: str, length: int = 0, *extra: str, chunked: bool = False
) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    lines = [f"PUT {path} HTTP/1.1", f"Host: localhost:{upstream.port}", framing, *extra, "", ""]
    return "\r\n".join(lines).encode()


def _h2_put(place: str, path: str) -> list[tuple[str, str]]:
    return [(":method", "PUT"), (":scheme", "https"), (":authority", place), (":path", path)]


def test_a_revoked_agents_body_is_broken_off(streaming: Worker, upstream: Upstream) -> None:
    closed = threading.Event()

    def until_the_end(_: Received, connection: Conversation) -> None:
        while connection.read(65536):
            pass
        closed.set()

    upstream.heads["/revoked"] = until_the_end
    with streaming.tls(f"localhost:{upstream.port}") as tls:
        tls.sendall(_put(upstream, "/revoked", 100_000) + b"x" * 1000)
        upstream.wait_for(1)
        [agent] = {connection.watched for connection in streaming.engine._connections}
        assert agent is not None
        streaming.pipeline.forgotten.add(agent)
        assert closed.wait(10)
    [passage] = streaming.pipeline.passages
    wait_until(lambda: bool(passage.told))
    assert passage.told[0].startswith("failed sent=True")
