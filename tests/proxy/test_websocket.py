"""WebSockets through the engine: bytes through the passage, and one result however it ends."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable

import pytest

from tests.proxy.harness import Worker, exchange, read_all, wait_until
from tests.support.upstream import Conversation, Received, Reply, Upstream
from tests.support.upstream_routes import built_in

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HELLO = b"\x81\x85\0\0\0\0hello"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


def open_socket(worker: Worker, upstream: Upstream, path: str = "/ws") -> ssl.SSLSocket:
    place = f"localhost:{upstream.port}"
    tls = worker.tls(place)
    status, head, _ = exchange(
        tls,
        f"GET {path} HTTP/1.1\nHost: {place}\nConnection: Upgrade\nUpgrade: websocket\n"
        f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}",
    )
    assert status == 101
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return tls


def talk(upstream: Upstream, path: str, say: Callable[[Conversation], None]) -> None:
    def route(request: Received) -> Reply:
        reply = built_in(
            Received(request.method, "/ws", request.version, request.headers, request.body)
        )
        reply.takeover = say
        return reply

    upstream.answer(path, route)


def read(tls: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = tls.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def ended(worker: Worker) -> list[str]:
    [passage] = worker.pipeline.passages
    wait_until(lambda: any(t.startswith(("completed", "failed")) for t in passage.told))
    return [told for told in passage.told if told.startswith(("completed", "failed"))]


def test_frames_pass_through_the_passage_and_the_end_is_the_result(
    worker: Worker, upstream: Upstream
) -> None:
    with open_socket(worker, upstream) as tls:
        for _ in range(3):
            tls.sendall(HELLO)
            assert read(tls, 7) == b"\x81\x05hello"
        [passage] = worker.pipeline.passages
        assert passage.told == ["head 101"]
        tls.sendall(CLOSE)
        assert read_all(tls) == b"\x88\x02\x03\xe8"
    assert ended(worker) == ["completed"]
    assert passage.sent_frames == HELLO * 3 + CLOSE
    assert passage.received.endswith(b"\x81\x05hello" * 3 + b"\x88\x02\x03\xe8")


def test_frames_that_come_with_the_switch_are_not_lost(worker: Worker, upstream: Upstream) -> None:
    def first(request: Received) -> Reply:
        head = built_in(
            Received(request.method, "/ws", request.version, request.headers, request.body)
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.headers)
        return Reply(raw=f"HTTP/1.1 101 Go\r\n{lines}\r\n".encode() + b"\x81\x02hi")

    upstream.answer("/first", first)
    with open_socket(worker, upstream, "/first") as tls:
        assert read_all(tls) == b"\x81\x02hi"
    assert ended(worker) == ["completed"]


@pytest.mark.parametrize("side", ["agent", "upstream"])
def test_what_the_passage_refuses_ends_both_sides(
    worker: Worker, upstream: Upstream, side: str
) -> None:
    heard = bytearray()
    over = threading.Event()

    def say(conversation: Conversation) -> None:
        if side == "upstream":
            conversation.write(b"\xff\xff")
        while more := conversation.read(100):
            heard.extend(more)
        over.set()

    talk(upstream, "/odd", say)
    with open_socket(worker, upstream, "/odd") as tls:
        if side == "agent":
            tls.sendall(b"\xff\xff")
        assert read_all(tls) == b"\x88\x02\x03\xea"
    assert over.wait(5)
    assert heard[:2] == b"\x88\x82" and len(heard) == 8
    [told] = ended(worker)
    assert told == "failed sent=True: The WebSocket was closed: odd."


def test_an_agent_that_vanishes_ends_it(worker: Worker, upstream: Upstream) -> None:
    over = threading.Event()

    def say(conversation: Conversation) -> None:
        while conversation.read(100):
            pass
        over.set()

    talk(upstream, "/listen", say)
    with open_socket(worker, upstream, "/listen"):
        pass
    assert over.wait(5)
    assert ended(worker) == ["completed"]


def test_a_revoked_agents_socket_is_closed_and_recorded(worker: Worker, upstream: Upstream) -> None:
    with open_socket(worker, upstream) as tls:
        tls.sendall(HELLO)
        assert read(tls, 7) == b"\x81\x05hello"
        [agent] = {c.watched for c in worker.engine._connections}
        assert agent is not None
        worker.pipeline.forgotten.add(agent)
        assert read_all(tls) == b""
    assert ended(worker) == ["completed"]


def test_many_large_frames_pass_and_nothing_is_kept(worker: Worker, upstream: Upstream) -> None:
    block = b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)

    def say(conversation: Conversation) -> None:
        for _ in range(8):
            conversation.write(block)

    talk(upstream, "/flood", say)
    with open_socket(worker, upstream, "/flood") as tls:
        assert len(read_all(tls)) == 8 * len(block)
    assert ended(worker) == ["completed"]
