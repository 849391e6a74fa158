"""HTTP/2 under use and abuse: many calls at a time, resets without end, an upstream that leaves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from proxy import http2
from tests.proxy.harness import RawH2, Worker
from tests.support.upstream import Received, Reply, Upstream


@pytest.fixture
def h2_upstream() -> Iterator[Upstream]:
    with Upstream(http2=True) as upstream:
        yield upstream


@pytest.fixture
def to_h2(h2_upstream: Upstream, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, h2_upstream.ca_file) as worker:
        yield worker


def test_many_calls_of_one_http2_agent_reach_an_http1_upstream_together(
    worker: Worker, upstream: Upstream
) -> None:
    """None is answered before all twelve are there."""
    together = threading.Barrier(12)

    def wait(_: Received) -> Reply:
        together.wait(15)
        return Reply(body=b"all")

    upstream.answer("/together", wait)
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=("h2",)) as tls:
        tls.settimeout(20)
        raw = RawH2(tls, place)
        asked = [raw.request("/together") for _ in range(12)]
        assert [(raw.wait(stream), raw.bodies[stream]) for stream in asked] == [(200, b"all")] * 12


def test_an_agent_that_resets_without_end_is_sent_away(worker: Worker, upstream: Upstream) -> None:
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        with contextlib.suppress(OSError):
            for _ in range(http2.RESETS * 3):
                stream = raw.request("/slow?s=5")
                raw.h2.reset_stream(stream, 8)
                raw.flush()
        assert _code_of_goaway(raw) == 11  # ENHANCE_YOUR_CALM
    with worker.h2_client() as client:
        assert client.get(upstream.url + "/status/204").status_code == 204


def _code_of_goaway(raw: RawH2) -> int | None:
    with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
        while data := raw.tls.recv(65536):
            for event in raw.h2.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    return int(event.error_code or 0)
    return None


def test_some_resets_are_nothing_special(worker: Worker, upstream: Upstream) -> None:
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        for _ in range(50):
            stream = raw.request("/slow?s=0.2")
            raw.h2.reset_stream(stream, 8)
            raw.flush()
        assert raw.wait(raw.request("/status/204")) == 204


def test_headers_that_never_end_are_cut_off(worker: Worker, upstream: Upstream) -> None:
    """A HEADERS frame and CONTINUATION frames without END_HEADERS."""
    with worker.tls(f"localhost:{upstream.port}", alpn=("h2",)) as tls:
        RawH2(tls, f"localhost:{upstream.port}")
        tls.sendall(_frame(1, 0, 1, b"\x82\x87"))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                tls.sendall(_frame(9, 0, 1, b"\x40\x01a\x7f\xff\x00" + bytes(16_000)))
                sent += 16_000
        assert sent < 64 << 20
    assert upstream.requests == []


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def test_a_websocket_over_http2_is_not_spoken(worker: Worker, upstream: Upstream) -> None:
    """RFC 8441 needs a setting that is not announced; who sends it all the same is cut off."""
    place = f"localhost:{upstream.port}"
    with worker.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                (":authority", place), (":path", "/ws")]  # fmt: skip
        raw.h2.send_headers(raw.h2.get_next_available_stream_id(), head)
        raw.flush()
        assert _code_of_goaway(raw) == 1  # PROTOCOL_ERROR
    assert upstream.requests == []


def test_an_upstream_that_leaves_finishes_what_it_began(
    to_h2: Worker, h2_upstream: Upstream
) -> None:
    going = threading.Event()

    def slow(_: Received) -> Reply:
        def parts() -> Iterator[bytes]:
            yield b"before "
            h2_upstream.say_goodbye()
            assert going.wait(15)
            yield b"and after"

        return Reply(body=parts())

    h2_upstream.answer("/leaving", slow)
    place = f"localhost:{h2_upstream.port}"
    with to_h2.tls(place, alpn=("h2",)) as tls:
        raw = RawH2(tls, place)
        first = raw.request("/leaving")
        assert h2_upstream.left.wait(10)
        # The next one goes over a connection of its own.
        assert raw.wait(raw.request("/status/204")) == 204
        going.set()
        assert raw.wait(first) == 200
        assert bytes(raw.bodies[first]) == b"before and after"
    assert h2_upstream.requests[0].connection != h2_upstream.requests[1].connection


def test_an_allowance_comes_back_with_time() -> None:
    now = [0.0]
    allowance = http2.Allowance(2, 0.5, lambda: now[0])
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now[0] = 1.9
    assert not allowance.take()
    now[0] = 2.1
    assert allowance.take()
    now[0] = 100.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]
