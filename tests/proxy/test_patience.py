"""Upstreams that stall, each at another stage: the call ends in time and says where it stood."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.exchange import Exchange, Wire
from proxy.patience import Timeouts, overdue_sentence
from tests.proxy.harness import RawH2, Worker, exchange, read_all, wait_until
from tests.support.upstream import Reply, Upstream

QUICK = Timeouts(head=30, idle=1, connect=0.3, tls=0.3, first_byte=0.3)


# --- the clocks of one exchange ------------------------------------------------------------------


def at(**changes: object) -> Exchange:
    made = Exchange(Wire(b"GET", b"", b"", b"/", b"HTTP/1.1"), moved=100.0)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def overdue(made: Exchange, now: float) -> str | None:
    return made.overdue(now, first_byte=5, idle=50)


def test_waiting_for_a_decision_has_no_clock() -> None:
    assert overdue(at(), 10_000.0) is None


@pytest.mark.parametrize(
    ("changes", "limit", "stage"),
    [
        ({"sent": True}, 50, "upload"),
        ({"sent": True, "asked": True}, 5, "first_byte"),
        ({"sent": True, "asked": True, "headed": True}, 50, "idle"),
    ],
)
def test_each_stage_has_its_own(changes: dict[str, object], limit: int, stage: str) -> None:
    made = at(**changes)
    assert overdue(made, 100.0 + limit) is None
    assert overdue(made, 100.1 + limit) == stage
    assert overdue(made, 100.1 + limit) is None, "said once"
    assert str(limit) in overdue_sentence(stage, Timeouts(first_byte=5, idle=50))


@pytest.mark.parametrize("over", ["finished", "settled"])
def test_what_is_over_has_none(over: str) -> None:
    assert overdue(at(sent=True, asked=True, headed=True, **{over: True}), 10_000.0) is None


# --- real upstreams that stall -------------------------------------------------------------------

e2e = pytest.mark.e2e


@contextlib.contextmanager
def staller(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does `talk` with whoever connects, and then holds the connection open."""
    held: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(20)
                held.append(connection)
                threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            talk(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        for connection in held:
            connection.close()


@pytest.fixture
def quick(tmp_path: Path, shared_upstream: Upstream) -> Iterator[Worker]:
    with Worker(tmp_path, shared_upstream.ca_file, timeouts=QUICK) as worker:
        yield worker


@pytest.fixture
def server(shared_upstream: Upstream) -> ssl.SSLContext:
    return shared_upstream.ca.server_context(["localhost"])


def ask(worker: Worker, port: int) -> tuple[int, str, str]:
    """Status, sentence, and what the passage was told."""
    with worker.tls(f"localhost:{port}") as tls:
        status, _, body = exchange(tls, f"GET /x HTTP/1.1\nHost: localhost:{port}")
    told = worker.pipeline.passages[-1].told
    wait_until(lambda: told != [])
    return status, json.loads(body)["detail"], told[-1]


@e2e
def test_a_connection_that_is_not_accepted(tmp_path: Path, shared_upstream: Upstream) -> None:
    with socket.socket() as full, Worker(
        tmp_path, shared_upstream.ca_file, timeouts=QUICK
    ) as worker:  # fmt: skip
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with contextlib.ExitStack() as fillers:
            for _ in range(4):  # the kernel answers as long as its queue has room
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(("127.0.0.1", port))
            time.sleep(0.1)
            status, sentence, told = ask(worker, port)
    assert status == 502
    assert "did not accept a connection within 0.3 s" in sentence
    assert told.startswith("failed sent=False")


@e2e
def test_a_handshake_that_does_not_come(quick: Worker) -> None:
    with staller(lambda connection: None) as port:
        status, sentence, told = ask(quick, port)
    assert status == 502
    assert "did not complete the TLS handshake in 0.3 s" in sentence
    assert told.startswith("failed sent=False"), "an approval would stay good"


@e2e
def test_an_upstream_that_takes_the_request_and_never_answers(
    quick: Worker, server: ssl.SSLContext
) -> None:
    def talk(connection: socket.socket) -> None:
        with server.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            assert tls.recv(1) == b"", "the proxy hangs up"

    with staller(talk) as port:
        status, sentence, told = ask(quick, port)
    assert status == 502
    assert "did not begin to answer within 0.3 s" in sentence
    assert told.startswith("failed sent=True"), "it may have taken effect"


@e2e
def test_a_head_that_dribbles(quick: Worker, server: ssl.SSLContext) -> None:
    def talk(connection: socket.socket) -> None:
        with server.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                tls.sendall(b"X-A: b\r\n")
                time.sleep(0.05)

    with staller(talk) as port:
        status, sentence, _ = ask(quick, port)
    assert status == 502
    assert "did not begin to answer within 0.3 s" in sentence


@e2e
def test_a_body_that_stands_still(quick: Worker, server: ssl.SSLContext) -> None:
    def talk(connection: socket.socket) -> None:
        with server.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
            tls.recv(1)

    with staller(talk) as port, quick.tls(f"localhost:{port}") as tls:
        tls.sendall(f"GET /x HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        assert read_all(tls).endswith(b"begun"), "and the connection is closed"
    told = quick.pipeline.passages[-1].told
    wait_until(lambda: told[-1].startswith("failed sent=True"))
    assert "sent nothing for 1 s in the middle of its response" in told[-1]


@e2e
def test_one_slow_stream_does_not_end_the_others(tmp_path: Path) -> None:
    with Upstream(http2=True) as upstream:
        upstream.answer("/slow", lambda _: time.sleep(2) or Reply())
        timeouts = Timeouts(first_byte=0.5)
        with Worker(tmp_path, upstream.ca_file, timeouts=timeouts) as worker:
            authority = f"localhost:{upstream.port}"
            with worker.tls(authority, alpn=("h2",)) as tls:
                h2 = RawH2(tls, authority)
                first = h2.request("/echo")
                assert h2.wait(first) == 200
                slow = h2.request("/slow")
                assert h2.wait(slow) == 502
                assert b"did not begin to answer" in h2.bodies[slow]
                assert h2.wait(h2.request("/echo")) == 200


@e2e
def test_a_slow_answer_in_time_is_delivered(tmp_path: Path, upstream: Upstream) -> None:
    """Longer than `idle`: while a call is at its upstream, the connection counts as busy."""
    timeouts = Timeouts(idle=1, first_byte=30)
    with Worker(tmp_path, upstream.ca_file, timeouts=timeouts) as worker:
        authority = f"localhost:{upstream.port}"
        with worker.tls(authority) as tls:
            status, _, _ = exchange(tls, f"GET /slow?s=3 HTTP/1.1\nHost: {authority}")
        assert status == 200


@e2e
def test_a_connection_without_a_call_is_closed(quick: Worker, upstream: Upstream) -> None:
    with quick.connect(f"localhost:{upstream.port}") as raw:
        assert read_all(raw) == b""
