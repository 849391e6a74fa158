"""Which name is certified for the agent, and which one is verified at the upstream."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from mitmproxy import connection, options, tls
from mitmproxy.proxy.context import Context
from OpenSSL import SSL

from certs.authority import Authority
from proxy.tls import Tls, TlsFiles, _name
from tests.support.throwaway_ca import ThrowawayCA


@pytest.mark.parametrize(
    ("sni", "expected"),
    [
        (None, "a.example"),
        ("B.example", "b.example"),
        ("odd..name", "a.example"),
        ("a.example", "a.example"),
    ],
)
def test_the_sni_is_certified_where_it_can_be_read(sni: str | None, expected: str) -> None:
    assert _name(sni, "a.example") == expected


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.load_or_create(tmp_path / "authority")


def handshake(client: SSL.Connection | ssl.SSLObject, server: SSL.Connection) -> None:
    """Pumps bytes between two pyOpenSSL connections; raises what the client raises."""
    assert isinstance(client, SSL.Connection)
    for _ in range(10):
        done = 0
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                done += 1
            except SSL.WantReadError:
                pass
            try:
                while True:
                    other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                pass
        if done == 2:
            return
    raise AssertionError("no handshake")


def upstream_side(pem: bytes, directory: Path) -> SSL.Connection:
    (directory / "leaf.pem").write_bytes(pem)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey_file(str(directory / "leaf.pem"))
    context.use_certificate_file(str(directory / "leaf.pem"))
    server = SSL.Connection(context)
    server.set_accept_state()
    return server


def data_for(host: str, sni: str | None = None) -> tls.TlsData:
    client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    client.sni = sni
    context = Context(client, options.Options())
    context.server = connection.Server(address=(host, 443))
    return tls.TlsData(context.server, context)


@pytest.mark.parametrize(
    ("certified", "dialled", "sni", "good"),
    [
        ("a.example", "a.example", None, True),
        ("a.example", "a.example", "b.example", True),
        ("b.example", "a.example", "b.example", False),  # the agent's SNI is not what counts
        ("*.b.example", "a.b.example", None, True),
        ("127.0.0.1", "127.0.0.1", None, True),
        ("127.0.0.2", "127.0.0.1", None, False),
    ],
)
def test_the_host_that_is_dialled_is_verified(
    tmp_path: Path, authority: Authority, certified: str, dialled: str, sni: str | None, good: bool
) -> None:
    ca = ThrowawayCA()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    data = data_for(dialled, sni)
    Tls(authority, tmp_path / "ca.pem").for_upstream(data)
    assert data.ssl_conn is not None
    server = upstream_side(ca.issue([certified]), tmp_path)
    if good:
        handshake(data.ssl_conn, server)
        assert data.conn.sni == dialled
    else:
        with pytest.raises(SSL.Error):
            handshake(data.ssl_conn, server)


def test_another_ca_is_not_trusted(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_bytes(ThrowawayCA().pem)
    data = data_for("a.example")
    Tls(authority, tmp_path / "ca.pem").for_upstream(data)
    assert data.ssl_conn is not None
    with pytest.raises(SSL.Error):
        handshake(data.ssl_conn, upstream_side(ThrowawayCA().issue(["a.example"]), tmp_path))


def test_the_agent_gets_a_key_of_the_leafs_own(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    ours = Tls(authority, None)
    for _ in range(2):  # the second time from the cache
        data = data_for("a.example")
        ours.for_agent(data)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(tmp_path / "ca.pem"))
        context.set_verify(SSL.VERIFY_PEER)
        agent = SSL.Connection(context)
        agent.set_connect_state()
        assert data.ssl_conn is not None
        handshake(agent, data.ssl_conn)
        certificate = agent.get_peer_certificate()
        assert certificate is not None


def test_tls_without_a_connect_raises(authority: Authority) -> None:
    data = data_for("a.example")
    data.context.server = connection.Server(address=None)
    with pytest.raises(ValueError):
        Tls(authority, None).for_agent(data)


def test_a_useless_bundle_is_told(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(TlsFiles, match=r"missing\.pem"):
        Tls(authority, tmp_path / "missing.pem")
