"""What was said last arrives, whatever the other side does, and nobody keeps us from leaving."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from proxy import parting
from proxy.parting import MOST, PartingWriter
from tests.proxy.harness import Worker, read_all
from tests.support.upstream import Upstream

WORD = b"that is too much"


async def part_from(peer: Callable[[socket.socket], None]) -> PartingWriter:
    """Says the word to `peer`, closes, and waits for the end."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
    writer = PartingWriter(transport, protocol, reader, loop)
    talking = loop.run_in_executor(None, peer, theirs)
    writer.write(WORD)
    writer.close()
    assert writer.is_closing()
    writer.close()
    await writer.wait_closed()
    await talking
    theirs.close()
    return writer


async def test_who_reads_the_end_and_leaves_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parting, "LINGER", 1000)
    heard = []

    def leave(peer: socket.socket) -> None:
        heard.append(read_all(peer))
        peer.close()

    await part_from(leave)
    assert heard == [WORD]


async def test_who_stays_is_left() -> None:
    heard = []
    writer = await part_from(lambda peer: heard.append(read_all(peer)))
    assert heard == [WORD]
    assert writer.transport.is_closing()


async def test_who_never_stops_sending_is_left() -> None:
    sent = 0

    def send(peer: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while sent < 8 * MOST:
                sent += peer.send(bytes(65536))

    await part_from(send)
    assert sent < 8 * MOST


async def test_what_broke_off_ends_in_a_reset_and_in_nothing_else() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), 10)
        ours, _ = listener.accept()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
    writer = PartingWriter(transport, protocol, reader, loop)
    writer.break_off()
    writer.break_off()
    assert writer.is_closing()
    writer.close()
    await writer.wait_closed()
    with peer, pytest.raises(ConnectionResetError):
        peer.recv(1)


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("how", ["tunnel", "plain"])
def test_the_refusal_of_an_upload_is_read_by_who_reads_late(
    express: bool, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It sends all that it has before it looks, as many clients do."""
    with (
        Upstream() as upstream,
        Worker(
            tmp_path_factory.mktemp("worker"),
            upstream.ca_file,
            body_limit=100_000,
            express=express,
        ) as worker,
    ):
        place = f"localhost:{upstream.port}"
        target = "/upload" if how == "tunnel" else f"http://{place}/upload"
        head = f"POST {target} HTTP/1.1\r\nHost: {place}\r\nContent-Length: 1000000\r\n"
        if how == "plain":
            head += "Proxy-Authorization: Basic Ym90OnRva2Vu\r\n"
        with worker.tls(place) if how == "tunnel" else worker.dial() as agent:
            agent.sendall(head.encode() + b"\r\n")
            for _ in range(20):
                time.sleep(0.01)
                agent.sendall(bytes(50_000))
            answer = read_all(agent)
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        assert b"body_too_large" in answer
        assert upstream.requests == []
