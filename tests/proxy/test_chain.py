"""The way out through another proxy: all by CONNECT, to checked places, TLS end to end."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, Layer
from mitmproxy.proxy.tunnel import TunnelState

from proxy.chain import Chain, ChainedTunnel, Credentials, stack_to
from proxy.patience import Timeouts
from tests.proxy.harness import RawH2, Worker, connect_head, exchange, wait_until
from tests.support.connect_proxy import ConnectProxy
from tests.support.throwaway_ca import ThrowawayCA
from tests.support.upstream import Upstream

PASSWORD = "corp:pass word?"
QUICK = Timeouts(connect=0.5, tls=0.5)


# --- what is asked -------------------------------------------------------------------------------


def addresses(host: str, port: int) -> tuple[str, ...]:
    return {("a.example", 443): ("192.0.2.1", "192.0.2.2"), ("b.example", 1): ("2001:db8::1",)}.get(
        (host, port), ()
    )


CHAIN = Chain("http", "corp.example", 3128, Credentials("me", lambda: PASSWORD))


def test_it_is_asked_for_the_address_that_was_checked() -> None:
    assert CHAIN.connect("a.example", 443, addresses) == (
        b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n"
        b"Proxy-Authorization: Basic bWU6Y29ycDpwYXNzIHdvcmQ/\r\n\r\n"
    )
    assert CHAIN.connect("b.example", 1, addresses).startswith(b"CONNECT [2001:db8::1]:1 HTTP/1.1")
    with pytest.raises(LookupError):
        CHAIN.connect("a.example", 8443, addresses)


def test_by_name_it_is_asked_for_the_name() -> None:
    chain = Chain("http", "corp.example", 3128, by_name=True)
    assert chain.connect("c.example", 443, addresses) == (
        b"CONNECT c.example:443 HTTP/1.1\r\nHost: c.example:443\r\n\r\n"
    )


def test_the_password_is_in_nothing_that_is_shown() -> None:
    assert PASSWORD not in repr(CHAIN)
    assert "bWU6" not in repr(CHAIN)


class Child(Layer):
    """Notes what comes to it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.got: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        self.got.append(event)
        yield from ()


@pytest.mark.parametrize("state", [TunnelState.CLOSED, TunnelState.OPEN])
def test_what_it_sends_once_it_was_hung_up_on_goes_nowhere(state: TunnelState) -> None:
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0)
    context = Context(client, Options())
    context.server = Server(address=("a.example", 443), via=CHAIN.via)
    tunnel = stack_to(context)[0]
    assert isinstance(tunnel, ChainedTunnel)
    tunnel.child_layer = child = Child(context)
    tunnel.tunnel_state = state
    assert list(tunnel.handle_event(events.Start())) == []
    assert list(tunnel.handle_event(events.DataReceived(tunnel.tunnel_connection, b"more"))) == []
    came = [event for event in child.got if isinstance(event, events.DataReceived)]
    assert len(came) == (state is TunnelState.OPEN)


# --- through a real one --------------------------------------------------------------------------

e2e = pytest.mark.e2e


@pytest.fixture
def corp() -> Iterator[ConnectProxy]:
    with ConnectProxy("keybroker", PASSWORD) as proxy:
        yield proxy


def chain_to(proxy: ConnectProxy, password: str = PASSWORD, *, by_name: bool = False) -> Chain:
    scheme = "https" if proxy.tls else "http"
    credentials = Credentials("keybroker", lambda: password)
    return Chain(scheme, "localhost", proxy.port, credentials, by_name=by_name)


@pytest.fixture
def worker(corp: ConnectProxy, upstream: Upstream, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, upstream.ca_file, chain=chain_to(corp), timeouts=QUICK) as worker:
        yield worker


def call(worker: Worker, upstream: Upstream, path: str = "/echo") -> tuple[int, bytes]:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = f"GET {path} HTTP/1.1\nHost: localhost:{upstream.port}"
        status, _, body = exchange(tls, head)
        return status, body


@e2e
def test_a_call_leaves_through_it(worker: Worker, corp: ConnectProxy, upstream: Upstream) -> None:
    assert call(worker, upstream)[0] == 200
    assert corp.asked == [f"127.0.0.1:{upstream.port}"]
    (request,) = upstream.requests
    assert request.sni == "localhost", "TLS goes end to end, by the host's name"
    assert request.header("proxy-authorization") is None
    assert PASSWORD.encode() not in request.head


@e2e
def test_one_connection_serves_many_calls(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        for _ in range(3):
            head = f"GET /echo HTTP/1.1\nHost: localhost:{upstream.port}"
            assert exchange(tls, head)[0] == 200
    assert len(corp.asked) == 1


@e2e
def test_more_hosts_than_stock_lets_one_connection_have(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    with worker.dial() as sock:
        for number in range(8):
            head = f"GET /agents/bot/h{number}.localhost:{upstream.port}/echo HTTP/1.1\nHost: "
            head += f"localhost:{worker.port}\nKeybroker-Token: token"
            assert exchange(sock, head)[0] == 200
    assert len(corp.asked) == 8


@e2e
def test_http2_goes_through_it(corp: ConnectProxy, tmp_path: Path) -> None:
    with (
        Upstream(http2=True) as upstream,
        Worker(tmp_path, upstream.ca_file, chain=chain_to(corp)) as worker,
    ):
        authority = f"localhost:{upstream.port}"
        with worker.tls(authority, alpn=("h2",)) as tls:
            h2 = RawH2(tls, authority)
            calls = [h2.request("/echo") for _ in range(8)]
            assert [h2.wait(call) for call in calls] == [200] * 8
        assert {r.version for r in upstream.requests} == {"HTTP/2"}
        assert len(corp.asked) == 1


@e2e
def test_an_http2_agent_and_an_http1_upstream(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    authority = f"localhost:{upstream.port}"
    with worker.tls(authority, alpn=("h2",)) as tls:
        h2 = RawH2(tls, authority)
        calls = [h2.request("/slow?s=0.2") for _ in range(7)]
        assert [h2.wait(call) for call in calls] == [200] * 7


@e2e
def test_plain_http_is_tunnelled_too(corp: ConnectProxy, tmp_path: Path) -> None:
    with Upstream(tls=False) as upstream, Worker(tmp_path, chain=chain_to(corp)) as worker:
        with worker.dial() as sock:
            head = connect_head("x").decode().partition("Proxy-Auth")[2].strip()
            url = f"{upstream.url}/echo"
            status, _, _ = exchange(
                sock, f"GET {url} HTTP/1.1\nHost: localhost:{upstream.port}\nProxy-Auth{head}"
            )
        assert status == 200
        assert corp.asked == [f"127.0.0.1:{upstream.port}"]


@e2e
def test_a_websocket_goes_through_it(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    with worker.tls(f"localhost:{upstream.port}") as tls:
        head = (
            f"GET /ws HTTP/1.1\nHost: localhost:{upstream.port}\nConnection: Upgrade\n"
            "Upgrade: websocket\nSec-WebSocket-Version: 13\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        )
        assert exchange(tls, head)[0] == 101
        tls.sendall(b"\x81\x82\0\0\0\0hi")
        assert tls.recv(100).endswith(b"hi")
    assert len(corp.asked) == 1


@e2e
def test_a_tunnel_goes_through_it_undecrypted(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    worker.pipeline.tunnel_hosts.add("localhost")
    context = ssl.create_default_context(cafile=str(upstream.ca_file))
    raw = worker.connect(f"localhost:{upstream.port}")
    with context.wrap_socket(raw, server_hostname="localhost") as tls:
        status, _, _ = exchange(tls, f"GET /echo HTTP/1.1\nHost: localhost:{upstream.port}")
    assert status == 200
    assert corp.asked == [f"127.0.0.1:{upstream.port}"]
    wait_until(lambda: worker.pipeline.tunnels[0].ended != [])


@e2e
def test_by_name_the_proxy_looks_up(corp: ConnectProxy, upstream: Upstream, tmp_path: Path) -> None:
    upstream.names = (*upstream.names, "upstream.invalid")
    chain = chain_to(corp, by_name=True)
    with Worker(tmp_path, upstream.ca_file, chain=chain, timeouts=QUICK) as worker:
        with worker.tls(f"upstream.invalid:{upstream.port}") as tls:
            exchange(tls, f"GET /echo HTTP/1.1\nHost: upstream.invalid:{upstream.port}")
        assert corp.asked == [f"upstream.invalid:{upstream.port}"], "this machine was not asked"
        with worker.tls("10.0.0.1:443") as tls:
            status, _, body = exchange(tls, "GET / HTTP/1.1\nHost: 10.0.0.1")
        assert (status, b"egress_refused" in body) == (403, True)


@e2e
def test_an_https_proxy_is_verified(upstream: Upstream, tmp_path: Path) -> None:
    ca = ThrowawayCA("Corporate CA")
    trusted = tmp_path / "corp.pem"
    trusted.write_bytes(ca.pem)
    with ConnectProxy("keybroker", PASSWORD, tls=ca.server_context(["localhost"])) as corp:
        for number, proxy_ca in enumerate((trusted, None)):
            folder = tmp_path / str(number)
            folder.mkdir()
            chain = chain_to(corp)
            with Worker(folder, upstream.ca_file, chain=chain, proxy_ca=proxy_ca) as worker:
                status, body = call(worker, upstream)
                assert status == (200 if proxy_ca else 502)
        assert "TLS with the egress proxy failed" in json.loads(body)["detail"]
        assert len(corp.asked) == 1, "the password was not shown to who could not be verified"


def sentence(worker: Worker, upstream: Upstream) -> str:
    status, body = call(worker, upstream)
    assert status == 502, body
    told = worker.pipeline.passages[-1].told
    wait_until(lambda: told != [])
    assert told[-1].startswith("failed sent=False"), "an approval stays good"
    assert upstream.requests == []
    found: str = json.loads(body)["detail"]
    return found


@e2e
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (407, "does not accept Keybroker's credentials (407)"),
        (403, "does not let this host be called (403)"),
        (502, "could not reach the host (502)"),
        (301, "could not reach the host (301)"),
    ],
)
def test_its_refusals_are_told(
    worker: Worker, corp: ConnectProxy, upstream: Upstream, status: int, words: str
) -> None:
    corp.refuse = status
    said = sentence(worker, upstream)
    assert words in said
    assert "corp" not in said.lower().replace("egress", ""), "nothing of what it wrote"
    corp.refuse = None
    assert call(worker, upstream)[0] == 200


@e2e
def test_a_wrong_password(corp: ConnectProxy, upstream: Upstream, tmp_path: Path) -> None:
    with Worker(tmp_path, upstream.ca_file, chain=chain_to(corp, "wrong")) as worker:
        assert "credentials (407)" in sentence(worker, upstream)


@e2e
def test_a_password_that_cannot_be_read(
    corp: ConnectProxy, upstream: Upstream, tmp_path: Path
) -> None:
    chain = Chain("http", "localhost", corp.port, Credentials("me", (tmp_path / "no").read_text))
    with Worker(tmp_path, upstream.ca_file, chain=chain) as worker:
        assert "its password cannot be read" in sentence(worker, upstream)
    assert corp.asked == []


@e2e
def test_one_that_says_nothing(worker: Worker, corp: ConnectProxy, upstream: Upstream) -> None:
    corp.mute = True
    assert "The egress proxy did not answer in time" in sentence(worker, upstream)


@e2e
@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\n\r\nforged", b"\x16\x03\x03"])
def test_what_it_says_before_the_upstream_does_is_refused(
    worker: Worker, corp: ConnectProxy, upstream: Upstream, extra: bytes
) -> None:
    corp.extra = extra
    status, body = call(worker, upstream)
    assert status == 502
    assert b"forged" not in body
    assert upstream.requests == []


@e2e
def test_one_that_is_not_there(upstream: Upstream, tmp_path: Path) -> None:
    with ConnectProxy() as gone:
        chain = chain_to(gone)
    with Worker(tmp_path, upstream.ca_file, chain=chain) as worker:
        assert "The egress proxy could not be reached" in sentence(worker, upstream)


@e2e
def test_a_stalled_handshake_behind_it(corp: ConnectProxy, tmp_path: Path) -> None:
    with (
        ConnectProxy() as deaf,  # takes the connection, and no TLS
        Upstream() as upstream,
        Worker(tmp_path, upstream.ca_file, chain=chain_to(corp), timeouts=QUICK) as worker,
        worker.tls(f"localhost:{deaf.port}") as tls,
    ):
        status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: localhost:{deaf.port}")
        assert status == 502
        assert b"did not complete the TLS handshake in 0.5 s" in body


@e2e
def test_agents_cannot_call_it_themselves(
    worker: Worker, corp: ConnectProxy, upstream: Upstream
) -> None:
    for host in ("localhost", "127.0.0.1", "other.localhost"):
        with worker.tls(f"{host}:{corp.port}") as tls:
            status, _, body = exchange(tls, f"GET / HTTP/1.1\nHost: {host}:{corp.port}")
        assert status == 403
        assert b"the proxy that calls leave by" in body
    assert corp.heads == []


@e2e
def test_nothing_else_is_dialled(worker: Worker, upstream: Upstream, corp: ConnectProxy) -> None:
    """The upstream's address is no pin: a dial past the proxy is refused by the loop."""
    assert call(worker, upstream)[0] == 200
    assert not worker.egress.pins.holds("127.0.0.1", upstream.port)
    assert worker.egress.pins.holds("127.0.0.1", corp.port)


@e2e
def test_a_failure_is_not_remembered(tmp_path: Path, upstream: Upstream) -> None:
    """On one agent connection, without a proxy: the upstream comes back, and so do its answers."""
    with Worker(tmp_path, upstream.ca_file) as worker, Upstream(ca=upstream.ca) as late:
        port = late.port
        late.__exit__(None, None, None)
        with worker.dial() as sock:
            head = f"GET /agents/bot/localhost:{port}/echo HTTP/1.1\nHost: localhost:{worker.port}"
            head += "\nKeybroker-Token: token"
            assert exchange(sock, head)[0] == 502
            with Upstream(ca=upstream.ca, port=port):
                assert exchange(sock, head)[0] == 200
