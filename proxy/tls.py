"""TLS on both sides: our certificate for the agent, verification of the upstream's.

The upstream is verified against one CA bundle and the name of the host that is dialled, always.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from proxy.ports import Authority, Leaf
from rules.errors import Ambiguous
from rules.hosts import parse_host

_CIPHERS = b":".join(
    (
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-CHACHA20-POLY1305",
        b"ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""For TLS 1.2; those of TLS 1.3 are all good. Mozilla's intermediate list without plain DHE."""

HTTP1 = (b"http/1.1",)
_HTTP = (b"h2", *HTTP1)
_MOST_LEAVES = 1000

_Parsed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]


class TlsFiles(ValueError):
    """The CA bundle cannot be used; the sentence says which."""


class Tls:
    """Makes the TLS connections for one engine; its contexts are shared by all of them."""

    def __init__(
        self,
        authority: Authority,
        ca_bundle: Path | None,
        *,
        proxy: tuple[str, int] | None = None,
        proxy_bundle: Path | None = None,
    ) -> None:
        """`ca_bundle`: PEM file that upstreams are verified against; None is certifi's.

        `proxy`: (host, port) of the proxy on the way out, and `proxy_bundle` likewise for it; None
        is `ca_bundle`.
        """
        self._proxy = proxy
        self._authority = authority
        self._parsed: dict[str, tuple[Leaf, _Parsed]] = {}
        self._server = _context(SSL.TLS_SERVER_METHOD)
        self._server.set_alpn_select_callback(_choose)
        self._client = _verifying(ca_bundle)
        self._to_proxy = self._client if proxy_bundle is None else _verifying(proxy_bundle)

    def for_agent(self, data: TlsData) -> None:
        """Sets `data.ssl_conn` with a certificate for the name that the agent asked for."""
        server = data.context.server.address
        if server is None:
            raise ValueError("TLS without CONNECT")
        data.ssl_conn = self.with_agent(data.context.client.sni, server[0])

    def for_upstream(self, data: TlsData) -> None:
        """Sets `data.ssl_conn`, which verifies the certificate for the host that is dialled."""
        server, client = data.conn, data.context.client
        address: tuple[str, int] = server.address  # type: ignore[attr-defined]
        # mitmproxy fills this from the agent's own SNI; the name that counts is the one dialled.
        server.sni = address[0]
        to_proxy = address == self._proxy
        server.alpn_offers = _HTTP if client.alpn == b"h2" and not to_proxy else HTTP1
        data.ssl_conn = self.with_upstream(address, server.alpn_offers)

    def with_agent(self, sni: str | None, host: str) -> SSL.Connection:
        """Our side of TLS with an agent that asked for `sni` in a tunnel to `host`."""
        certificate, key = self._leaf(_name(sni, host))
        connection = SSL.Connection(self._server)
        connection.use_certificate(certificate)
        connection.use_privatekey(key)
        connection.set_accept_state()
        return connection

    def with_upstream(
        self, place: tuple[str, int], offers: Sequence[bytes] = HTTP1
    ) -> SSL.Connection:
        """Our side of TLS with whatever is at `place`, which must prove to be it."""
        connection = SSL.Connection(self._to_proxy if place == self._proxy else self._client)
        _verify_name(connection, place[0])
        connection.set_alpn_protos(list(offers))
        connection.set_connect_state()
        return connection

    def _leaf(self, host: str) -> _Parsed:
        leaf = self._authority.leaf(host)
        known, parsed = self._parsed.get(host, (None, None))
        if parsed is None or known is not leaf:
            key = serialization.load_pem_private_key(leaf.key_pem, None)
            if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
                raise TypeError("unexpected kind of key")
            parsed = (x509.load_pem_x509_certificate(leaf.cert_pem), key)
            if len(self._parsed) >= _MOST_LEAVES:
                self._parsed.clear()
            self._parsed[host] = (leaf, parsed)
        return parsed


def _name(sni: str | None, host: str) -> str:
    """The name to certify: the SNI even if it is another one, so that the refusal can be read."""
    try:
        return parse_host(sni) if sni else host
    except Ambiguous:
        return host


def _verifying(ca_bundle: Path | None) -> SSL.Context:
    context = _context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER)
    bundle = str(ca_bundle or certifi.where())
    try:
        context.load_verify_locations(bundle)
    except SSL.Error as error:
        raise TlsFiles(f"{bundle} holds no usable CA certificates (PEM)") from error
    return context


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_cipher_list(_CIPHERS)
    return context


def _choose(_: SSL.Connection, offered: list[bytes]) -> Any:
    """HTTP/2 where the agent offers it: the server's order counts (RFC 7301 3.2).

    Some clients that want HTTP/2 name it last (httpx through a proxy).
    """
    return next((p for p in _HTTP if p in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


def _verify_name(connection: SSL.Connection, host: str) -> None:
    # pyOpenSSL has no public call for this; mitmproxy's own addon does the same.
    lib = SSL._lib  # type: ignore[attr-defined]
    param = lib.SSL_get0_param(connection._ssl)
    lib.X509_VERIFY_PARAM_set_hostflags(
        param,
        lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
        | getattr(lib, "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT", 0),
    )
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("ascii")
        connection.set_tlsext_host_name(name)
        done = lib.X509_VERIFY_PARAM_set1_host(param, name, len(name))
    else:
        done = lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))
    if done != 1:
        raise ValueError("the host name could not be set for verification")
