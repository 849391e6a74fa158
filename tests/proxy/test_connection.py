"""A connection: HTTP, or TLS with HTTP in it, and nothing else gets anywhere."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.proxy.harness import (
    FakeAnswer,
    Worker,
    read_all,
    read_response,
)
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_certificate_no_call(worker: Worker, upstream: Upstream) -> None:
    def leaf(host: str) -> Any:
        raise OSError("disk")

    worker.authority.leaf = leaf  # type: ignore[method-assign]
    raw = worker.connect(f"localhost:{upstream.port}")
    with raw:
        raw.sendall(client_hello())
        assert read_all(raw) == b""
    assert upstream.requests == []


def client_hello() -> bytes:
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_refusal_that_claims_success_opens_no_tunnel(worker: Worker, upstream: Upstream) -> None:
    worker.pipeline.refusal_answer = lambda *_: FakeAnswer(200)  # type: ignore[method-assign]
    with worker.dial() as raw:
        raw.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % upstream.port)
        assert read_response(raw)[0] == 500


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET\t/\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: localhost:%d\r\n\r\n",
        b"\x00\x01\x02\x03\x04\x05\x06\x07\r\n\r\n",
        b"EHLO x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("port", [0, 53])
def test_what_is_not_tls_in_a_tunnel_goes_nowhere(
    worker: Worker, upstream: Upstream, said: bytes, port: int
) -> None:
    """The stock engine passes raw TCP on, and DNS on port 53."""
    place = f"localhost:{port or upstream.port}"
    connections = upstream.connections
    with worker.connect(place) as raw:
        raw.sendall(said.replace(b"%d", str(upstream.port).encode()))
        raw.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in read_all(raw)
    assert upstream.requests == []
    assert upstream.connections == connections
