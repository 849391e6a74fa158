"""Who came, and where to: told once, and every call in the tunnel is held against it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.model import Client
from rules.request import RawRequest
from tests.proxy.harness import (
    CREDENTIALS,
    Worker,
    connect_head,
    exchange,
    read_head,
    read_response,
    refused,
)
from tests.support.upstream import Upstream

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["express", "core"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(worker: Worker, upstream: Upstream, path: str = "/echo") -> tuple[int, bytes, bytes]:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        return exchange(tls, f"GET {path} HTTP/1.1\nHost: localhost:{upstream.port}")


def code(head: bytes) -> str:
    lines = head.decode("latin-1").lower().split("\r\n")
    return next((v[16:] for v in lines if v.startswith("keybroker-code: ")), "")


def test_a_raising_authentication_sends_nothing(worker: Worker, upstream: Upstream) -> None:
    def authenticate(values: object) -> Client:
        raise OSError("no store")

    worker.pipeline.authenticate = authenticate  # type: ignore[method-assign]
    with worker.dial() as raw:
        raw.sendall(connect_head(f"localhost:{upstream.port}"))
        assert read_response(raw)[0] == 500
    with worker.dial() as raw:
        answer = exchange(raw, f"GET http://localhost:{upstream.port}/ HTTP/1.1\nHost: x")
        assert answer[0] == 500
    assert upstream.requests == []
    assert worker.pipeline.raw == []


@pytest.mark.parametrize("value", [None, "bot", ("bot", "t1")])
def test_authentication_that_gives_no_client_opens_nothing(
    worker: Worker, upstream: Upstream, value: Any
) -> None:
    worker.pipeline.authenticate = lambda _: value  # type: ignore[method-assign]
    with worker.dial() as raw:
        raw.sendall(connect_head(f"localhost:{upstream.port}"))
        assert read_response(raw)[0] == 500


def test_a_raising_tunnel_decision_means_no_tunnel(worker: Worker, upstream: Upstream) -> None:
    async def tunnel(*_: object) -> object:
        raise RuntimeError

    worker.pipeline.tunnel = tunnel  # type: ignore[method-assign]
    assert call(worker, upstream)[0] == 200  # decrypted and decided as any other call
    assert len(worker.pipeline.raw) == 1


# -- authentication


def test_connect_without_credentials_is_challenged_and_may_retry(
    worker: Worker, upstream: Upstream
) -> None:
    with worker.dial() as raw:
        raw.sendall(b"CONNECT localhost:%d HTTP/1.1\r\n\r\n" % upstream.port)
        status, head, body = read_response(raw)
        assert (status, code(head)) == (407, "agent_unauthenticated")
        assert b'proxy-authenticate: basic realm="keybroker"' in head.lower()
        assert b"agent_unauthenticated" in body
        raw.sendall(connect_head(f"localhost:{upstream.port}"))
        assert read_head(raw).startswith(b"HTTP/1.1 200")


def test_each_plain_request_needs_exactly_one_credential(
    worker: Worker, upstream: Upstream
) -> None:
    with Upstream(tls=False) as plain, worker.dial() as raw:
        target = f"GET http://localhost:{plain.port}/echo HTTP/1.1\nHost: localhost:{plain.port}"
        given = f"\nProxy-Authorization: {CREDENTIALS}"
        assert exchange(raw, target)[0] == 407
        assert exchange(raw, target + given)[0] == 200
        assert exchange(raw, target)[0] == 407
        assert exchange(raw, target + given + given)[0] == 407
        assert exchange(raw, target + given)[0] == 200
        assert len(plain.requests) == 2
        assert [r.connection for r in plain.requests] == [1, 1]
        assert all(r.header("proxy-authorization") is None for r in plain.requests)
        assert all(r.target == "/echo" for r in plain.requests)


# -- what the core is told


def test_the_raw_request_is_as_it_was_on_the_wire(worker: Worker, upstream: Upstream) -> None:
    async def script(client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
        return refused("policy_denied")

    worker.pipeline.script = script
    place = f"localhost:{upstream.port}"
    with worker.tls(place) as tls:
        exchange(tls, f"get /A%2e/../b?X=%41 HTTP/1.1\nHOST: {place}\nX-y:  z ")
        exchange(tls, f"GET https://OTHER:1/x HTTP/1.1\nHost: {place}")
        exchange(tls, f"POST /t HTTP/1.1\nHost: {place}\nContent-Length: 3", b"a=b")
    first, second, third = worker.pipeline.raw
    assert first == RawRequest(
        scheme="https",
        connect=("localhost", upstream.port),
        sni="localhost",
        authority=None,
        method="get",
        target="/A%2e/../b?X=%41",
        headers=((b"HOST", place.encode()), (b"X-y", b"z")),
        body=b"",
    )
    assert (second.authority, second.target) == ("OTHER:1", "/x")
    assert third.body == b"a=b"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("sni", "expected"), [("other.localhost", "other.localhost"), (None, None)]
)
def test_the_sni_is_told(
    worker: Worker, upstream: Upstream, sni: str | None, expected: str | None
) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(worker.ca_file))
    context.check_hostname = False
    raw = worker.connect(f"localhost:{upstream.port}")
    with context.wrap_socket(raw, server_hostname=sni) as tls:
        status, head, _ = exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{upstream.port}")
    assert worker.pipeline.raw[0].sni == expected
    assert (status, code(head)) == ((400, "request_ambiguous") if sni else (404, ""))


@pytest.mark.parametrize(
    "head",
    [
        "GET http://localhost:{port}/ HTTP/1.1\nHost: localhost:{port}",
        "GET /x HTTP/1.1\nHost: elsewhere.example",
        "GET / HTTP/1.1\nHost: localhost:{port}\nHost: localhost:{port}",
        "GET / HTTP/1.1",
        "CONNECT elsewhere.example:443 HTTP/1.1\nHost: localhost:{port}",
        "PRI * HTTP/2.0",
    ],
)
def test_another_place_inside_the_tunnel_is_refused_there(
    worker: Worker, upstream: Upstream, head: str
) -> None:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        status, answer, _ = exchange(tls, head.format(port=upstream.port))
    assert (status, code(answer)) == (400, "request_ambiguous")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "head",
    [
        "GET https://localhost:{port}/echo HTTP/1.1\nHost: localhost:{port}",
        "GET ftp://localhost:{port}/echo HTTP/1.1\nHost: localhost:{port}",
        "GET /echo HTTP/1.1\nHost: localhost:{port}",
        "GET http://localhost:{port}/echo HTTP/1.1\nHost: elsewhere.example",
        "GET http://user@localhost:{port}/echo HTTP/1.1\nHost: localhost:{port}",
        "GET http://localhost:{port}/echo HTTP/1.1",
    ],
)
def test_odd_plain_requests_are_refused(worker: Worker, upstream: Upstream, head: str) -> None:
    with worker.dial() as raw:
        credentials = f"\nProxy-Authorization: {CREDENTIALS}"
        status, answer, _ = exchange(raw, head.format(port=upstream.port) + credentials)
    assert (status, code(answer)) == (400, "request_ambiguous")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT localhost HTTP/1.1",
        "CONNECT localhost:0 HTTP/1.1",
        "CONNECT localhost:99999 HTTP/1.1",
        "CONNECT localhost:0443 HTTP/1.1",
        "CONNECT user@localhost:443 HTTP/1.1",
        "CONNECT localhost.:443 HTTP/1.1",
        "CONNECT 0x7f.1:443 HTTP/1.1",
        "CONNECT [[::1]]:443 HTTP/1.1",
        "CONNECT bücher.example:443 HTTP/1.1",
        "CONNECT localhost:443 HTTP/1.1\nHost: elsewhere.example:443",
        "CONNECT localhost:443 HTTP/1.1\nContent-Length: 5",
        "CONNECT localhost:443 HTTP/1.1\nTransfer-Encoding: chunked",
        "connect localhost:443 HTTP/1.1",
    ],
)
def test_a_malformed_connect_is_refused(worker: Worker, upstream: Upstream, head: str) -> None:
    with worker.dial() as raw:
        raw.settimeout(3)
        status, answer, _ = exchange(raw, head + f"\nProxy-Authorization: {CREDENTIALS}")
    assert (status, code(answer)) == (400, "request_ambiguous")
