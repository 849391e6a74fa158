"""A TLS connection as a transport of plain text: what each side sees of the other."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from proxy.express.handover import Decrypted
from tests.proxy.express.test_secure import Pair, Wire
from tests.proxy.harness import Worker, exchange, read_all
from tests.support.upstream import Upstream


class Below(Wire):
    """The agent's transport."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None
        self.reading = True
        self.aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def abort(self) -> None:
        self.aborted = True

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 1)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return 7


class Above(asyncio.Protocol):
    """Who reads the plain text."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.told: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(f"lost {exc!r}")


class Handed(Pair):
    """A connection that was handed over after its handshake."""

    def __init__(self) -> None:
        super().__init__()
        self.shake()
        self.below = Below()
        self.wire = self.ours._transport = self.below
        self.transport = Decrypted(self.below, self.ours)
        self.above = Above()
        self.transport.set_protocol(self.above)


@pytest.fixture
def handed() -> Handed:
    return Handed()


def test_it_stands_between(handed: Handed) -> None:
    assert handed.below.protocol is handed.transport
    assert handed.transport.get_protocol() is handed.above
    assert handed.transport.get_extra_info("peername") == ("127.0.0.1", 1)
    assert handed.transport.get_extra_info("sslcontext", "none") == "none"
    assert handed.transport.get_write_buffer_size() == 7
    assert handed.transport.can_write_eof()


def test_plain_text_both_ways(handed: Handed) -> None:
    data = handed.said(b"question")
    handed.transport.data_received(data[:9])
    assert handed.above.heard == []
    handed.transport.data_received(data[9:])
    assert handed.above.heard == [b"question"]
    handed.transport.write(bytearray(b"answer"))
    handed.transport.write(b"")
    assert handed.heard() == b"answer"


def test_flow_control_goes_through(handed: Handed) -> None:
    handed.transport.pause_writing()
    handed.transport.resume_writing()
    assert handed.above.told == ["pause", "resume"]
    handed.transport.pause_reading()
    assert not handed.transport.is_reading()
    handed.transport.resume_reading()
    assert handed.transport.is_reading()


def test_an_end_of_tls_closes_behind_what_came_with_it(handed: Handed) -> None:
    data = handed.said(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        handed.theirs.unwrap()
    handed.transport.data_received(data + handed.outgoing.read())
    assert handed.above.heard == [b"last"]
    assert handed.transport.is_closing()
    handed.transport.connection_lost(None)
    assert handed.above.told == ["lost None"]


def test_so_does_the_end_of_tcp(handed: Handed) -> None:
    assert not handed.transport.eof_received(), "which has asyncio close"


def test_garbage_aborts(handed: Handed) -> None:
    handed.transport.data_received(b"\x17\x03\x03\x00\x20" + b"g" * 32)
    assert handed.below.aborted
    assert handed.above.heard == []


def test_closing_says_goodbye_once_and_takes_no_more(handed: Handed) -> None:
    handed.transport.write(b"last")
    handed.transport.close()
    handed.transport.close()
    handed.transport.write(b"too late")
    assert handed.heard() == b"last"
    assert handed.theirs.read(1) == b"", "an end, and no error"
    assert handed.below.closed


def test_our_side_may_end_first(handed: Handed) -> None:
    handed.transport.write_eof()
    assert handed.below.ended
    assert not handed.transport.is_closing()
    handed.transport.data_received(handed.said(b"and this"))
    assert handed.above.heard == [b"and this"]
    handed.transport.close()
    handed.transport.write_eof()
    assert handed.heard() == b""


def test_aborting_does_not(handed: Handed) -> None:
    handed.transport.abort()
    assert handed.below.aborted
    assert handed.below.written == []


@pytest.mark.e2e
def test_who_was_handed_over_stays_so(worker: Worker, upstream: Upstream) -> None:
    """Chunks, plain calls, a WebSocket's refusal and the end: all by the full engine."""
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
        chunks = f"POST /echo HTTP/1.1\nHost: {place}\nTransfer-Encoding: chunked"
        assert exchange(tls, chunks, b"2\r\nok\r\n0\r\n\r\n")[0] == 200
        [served] = worker.engine._connections
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}")[0] == 200
        assert [served] == [*worker.engine._connections]
        assert exchange(tls, f"GET /echo HTTP/1.1\nHost: {place}\nConnection: close")[0] == 200
        assert read_all(tls) == b""
    assert [r.connection for r in upstream.requests][1:] == [upstream.requests[1].connection] * 3
