"""One destination: CONNECT, SNI, Host, absolute form and :authority name the same place, or the
call is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.attacks.stage import Got, Stage, say
from tests.support.program import basic

pytestmark = pytest.mark.e2e


def test_control(stage: Stage) -> None:
    """The tools of these attacks get through when nothing is wrong."""
    assert stage.ask(stage.get("/open/x")).status == 404
    h2 = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", stage.at()),
        (":path", "/open/y"),
    ]
    assert stage.ask_h2(h2).status == 404
    absolute = f"GET http://localhost:{stage.plain.port}/open/z HTTP/1.1\r\nHost: localhost:"
    absolute += f"{stage.plain.port}\r\nProxy-Authorization: {basic(stage.bot)}\r\n\r\n"
    assert stage.raw(absolute.encode()).status == 404
    assert [r.path for r in stage.arrived] == ["/open/x", "/open/y", "/open/z"]


@dataclass(frozen=True)
class Case:
    """A request in a tunnel. P stands for the upstream's port."""

    name: str
    connect: str = "localhost:P"
    sni: str | None = ""
    host: str = "localhost:P"
    target: str = "/open/x"
    extra: str = ""
    code: str | None = "request_ambiguous"


INSIDE = [
    Case("sni-of-another-host", sni="free.localhost"),
    Case("sni-of-no-host", sni="nowhere.example"),
    Case("sni-with-credential-connect-without", connect="free.localhost:P", sni="localhost"),
    Case("host-of-another-site", host="free.localhost:P"),
    Case("host-of-a-stranger", host="evil.example"),
    Case("host-without-port", host="localhost"),
    Case("host-with-other-port", host="localhost:443"),
    Case("host-empty", host=""),
    Case("host-with-credential-connect-without", connect="free.localhost:P", sni="free.localhost"),
    Case("host-trailing-dot", host="localhost.:P"),
    Case("host-userinfo", host="localhost@free.localhost:P"),
    Case("host-userinfo-behind", host="free.localhost:P@localhost:P"),
    Case("host-comma", host="localhost:P, free.localhost:P"),
    Case("host-space", host="localhost:P free.localhost:P"),
    Case("host-tab", host="localhost:P\tfree.localhost:P"),
    Case("host-nul", host="localhost\0.free.localhost:P"),
    Case("host-percent", host="local%68ost:P"),
    Case("host-port-zeros", host="localhost:0P"),
    Case("host-port-plus", host="localhost:+P"),
    Case("host-port-empty", host="localhost:"),
    Case("host-port-twice", host="localhost:P:P"),
    Case("host-ip-instead", host="127.0.0.1:P"),
    Case("host-bracketed", host="[localhost]:P"),
    Case("host-slash", host="localhost:P/"),
    Case("host-non-ascii", host="loc\u00e4lhost:P"),
    Case("two-hosts-other-second", extra="Host: free.localhost:P"),
    Case("two-hosts-same", extra="Host: localhost:P"),
    Case("two-hosts-by-case", extra="hOST: free.localhost:P"),
    Case("host-with-space-before-colon", extra="Host : free.localhost:P"),
    Case("host-folded", extra="X-A: b\r\n Host: free.localhost:P"),
    Case("x-forwarded-host-is-dropped", extra="X-Forwarded-Host: free.localhost:P", code=""),
    Case("forwarded-is-dropped", extra="Forwarded: host=free.localhost:P", code=""),
    Case("x-host", extra="X-Host: free.localhost:P"),
    Case("x-original-host", extra="X-Original-Host: free.localhost:P"),
    Case("host-named-by-connection", extra="Connection: host"),
    Case("absolute-form-elsewhere", target="https://free.localhost:P/open/x"),
    Case(
        "absolute-form-elsewhere-both", target="https://free.localhost:P/", host="free.localhost:P"
    ),
    Case("absolute-form-other-scheme", target="http://localhost:P/open/x"),
    Case("absolute-form-ftp", target="ftp://localhost:P/open/x"),
    Case("absolute-form-userinfo", target="https://localhost@free.localhost:P/open/x"),
    Case("absolute-form-upper-scheme", target="HTTPS://free.localhost:P/open/x"),
    Case("absolute-form-no-port", target="https://localhost/open/x"),
    Case("scheme-relative", target="//free.localhost:P/open/x"),
    Case("authority-form", target="free.localhost:P"),
    Case("target-without-slash", target="@free.localhost:P/open/x"),
    Case("target-colon", target=":80/open/x"),
    Case("target-star", target="*"),
    Case(
        "connect-no-rule",
        connect="closed.localhost:P",
        host="closed.localhost:P",
        code="policy_denied",
    ),
    Case("connect-other-port", connect="localhost:9", host="localhost:9", code="policy_denied"),
    Case(
        "connect-by-address",
        connect="127.0.0.1:P",
        host="127.0.0.1:P",
        sni=None,
        code="policy_denied",
    ),
    Case("connect-ipv6", connect="[::1]:P", host="[::1]:P", sni=None, code="policy_denied"),
    Case(
        "tunnel-host-with-other-sni",
        connect="opaque.localhost:P",
        host="opaque.localhost:P",
        sni="localhost",
    ),
    Case("sni-left-out-host-elsewhere", sni=None, host="free.localhost:P"),
    Case(
        "subdomain-of-a-host", connect="x.localhost:P", host="x.localhost:P", code="policy_denied"
    ),
]


@pytest.mark.parametrize("case", INSIDE, ids=lambda c: c.name)
def test_inside_the_tunnel(stage: Stage, case: Case) -> None:
    port = str(stage.upstream.port)
    lines = [f"GET {case.target} HTTP/1.1", f"Host: {case.host}", case.extra]
    request = _with_port("\r\n".join([*filter(None, lines), "", ""]), port)
    got = stage.ask(
        request.encode("latin-1"), authority=_with_port(case.connect, port), sni=case.sni
    )
    if case.code == "":
        assert got.status == 404, got.data
        assert len(stage.arrived) == 1
    else:
        stage.held(got, case.code)


def _with_port(text: str, port: str) -> str:
    """`:P` and its odd relatives; a capital P elsewhere stays."""
    for mark in (":P", ":0P", ":+P"):
        text = text.replace(mark, mark[:-1] + port)
    return text


OUTSIDE = [
    ("connect-userinfo", "bot@localhost:P"),
    ("connect-userinfo-pair", "localhost:P@free.localhost:P"),
    ("connect-trailing-dot", "localhost.:P"),
    ("connect-no-port", "localhost"),
    ("connect-port-0", "localhost:0"),
    ("connect-port-65536", "localhost:65536"),
    ("connect-port-zeros", "localhost:0P"),
    ("connect-port-plus", "localhost:+P"),
    ("connect-port-negative", "localhost:-1"),
    ("connect-port-hex", "localhost:0x1bb"),
    ("connect-port-empty", "localhost:"),
    ("connect-absolute", "https://localhost:P/"),
    ("connect-path", "localhost:P/open/x"),
    ("connect-query", "localhost:P?x"),
    ("connect-decimal", "2130706433:P"),
    ("connect-hex", "0x7f000001:P"),
    ("connect-octal", "0177.0.0.1:P"),
    ("connect-short", "127.1:P"),
    ("connect-zeros", "127.0.0.01:P"),
    ("connect-zone", "[::1%25lo]:P"),
    ("connect-zone-raw", "[::1%lo]:P"),
    ("connect-double-brackets", "[[::1]]:P"),
    ("connect-half-bracket", "[::1:P"),
    ("connect-bare-ipv6", "::1:P"),
    ("connect-bracketed-name", "[localhost]:P"),
    ("connect-percent", "local%68ost:P"),
    ("connect-underscore-comma", "localhost,free.localhost:P"),
    ("connect-empty", ":P"),
    ("connect-dots", "localhost..:P"),
    ("connect-non-ascii", "loc\u00e4lhost:P"),
    ("connect-full-width", "\uff4cocalhost:P"),
    ("connect-nul", "localhost\0:P"),
    ("connect-backslash", "localhost\\.free.localhost:P"),
    ("connect-hash", "localhost#.free.localhost:P"),
    ("connect-too-long", "a" * 300 + ":P"),
]


@pytest.mark.parametrize(("name", "authority"), OUTSIDE, ids=[name for name, _ in OUTSIDE])
def test_at_connect(stage: Stage, name: str, authority: str) -> None:
    """A malformed authority is answered at CONNECT itself; none opens a tunnel."""
    authority = _with_port(authority, str(stage.upstream.port))
    auth = f"Proxy-Authorization: {basic(stage.bot)}"
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{auth}\r\n\r\n"
    stage.held(stage.raw(head.encode("utf-8")), "request_ambiguous")


CONNECT_HEADS = [
    ("host-elsewhere", "CONNECT localhost:P HTTP/1.1\r\nHost: free.localhost:P\r\nA"),
    (
        "two-hosts",
        "CONNECT localhost:P HTTP/1.1\r\nHost: localhost:P\r\nHost: free.localhost:P\r\nA",
    ),
    ("lower-case", "connect localhost:P HTTP/1.1\r\nHost: localhost:P\r\nA"),
    (
        "with-a-length",
        "CONNECT localhost:P HTTP/1.1\r\nHost: localhost:P\r\nContent-Length: 5\r\nA",
    ),
    (
        "chunked",
        "CONNECT localhost:P HTTP/1.1\r\nHost: localhost:P\r\nTransfer-Encoding: chunked\r\nA",
    ),
    ("bare-lf", "CONNECT localhost:P HTTP/1.1\nHost: localhost:P\nA"),
    ("two-spaces", "CONNECT  localhost:P HTTP/1.1\r\nHost: localhost:P\r\nA"),
    ("folded-host", "CONNECT localhost:P HTTP/1.1\r\nHost:\r\n localhost:P\r\nA"),
    ("version-9", "CONNECT localhost:P HTTP/9.9\r\nHost: localhost:P\r\nA"),
]


@pytest.mark.parametrize(("name", "head"), CONNECT_HEADS, ids=[name for name, _ in CONNECT_HEADS])
def test_the_head_of_connect(stage: Stage, name: str, head: str) -> None:
    head = _with_port(head[:-1], str(stage.upstream.port))
    head += f"Proxy-Authorization: {basic(stage.bot)}\r\n\r\n"
    stage.held(stage.raw(head.encode(), answers=1, patience=3), "request_ambiguous")


CLEAR = [
    ("http-in-connect", b"GET /open/x HTTP/1.1\r\nHost: localhost:P\r\n\r\n"),
    ("absolute-in-connect", b"GET http://localhost:P/open/x HTTP/1.1\r\nHost: localhost:P\r\n\r\n"),
    (
        "https-url-in-connect",
        b"GET https://localhost:P/open/x HTTP/1.1\r\nHost: localhost:P\r\n\r\n",
    ),
    ("connect-in-connect", b"CONNECT free.localhost:P HTTP/1.1\r\nHost: free.localhost:P\r\n\r\n"),
    ("ssh", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ("tab-instead-of-space", b"GET\t/open/x HTTP/1.1\r\n\r\n"),
    ("binary", bytes(range(256))),
    ("smtp", b"EHLO localhost\r\n"),
    ("h2-prior-knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    (
        "h2c-upgrade",
        b"GET /open/x HTTP/1.1\r\nHost: localhost:P\r\nUpgrade: h2c\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ),
    ("tls-alert-first", b"\x15\x03\x01\x00\x02\x02\x28"),
    ("tls-of-another-age", b"\x16\x02\x00\x00\x05hello"),
    ("half-a-client-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("dns", b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x07example\x00"),
    ("proxy-protocol", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
    ("one-byte", b"\x16"),
]


@pytest.mark.parametrize(("name", "data"), CLEAR, ids=[name for name, _ in CLEAR])
def test_not_tls_in_the_tunnel(stage: Stage, name: str, data: bytes) -> None:
    """There is no raw tunnel: what is neither TLS nor HTTP gets nowhere."""
    data = data.replace(b":P", b":%d" % stage.upstream.port)
    with stage.connect(stage.at()) as sock:
        stage.held(say(sock, data, patience=0.4))


H2 = [
    ("authority-elsewhere", {":authority": "free.localhost:P"}, ()),
    ("authority-without-port", {":authority": "localhost"}, ()),
    ("authority-userinfo", {":authority": "x@localhost:P"}, ()),
    ("authority-trailing-dot", {":authority": "localhost.:P"}, ()),
    ("authority-empty", {":authority": ""}, ()),
    ("authority-missing", {":authority": None}, ()),
    ("authority-missing-host-instead", {":authority": None}, (("host", "localhost:P"),)),
    ("host-elsewhere", {}, (("host", "free.localhost:P"),)),
    ("host-twice", {}, (("host", "localhost:P"), ("host", "localhost:P"))),
    ("scheme-http", {":scheme": "http"}, ()),
    ("scheme-odd", {":scheme": "https://free.localhost:P/?"}, ()),
    ("scheme-missing", {":scheme": None}, ()),
    ("path-missing", {":path": None}, ()),
    ("path-empty", {":path": ""}, ()),
    ("path-absolute", {":path": "https://free.localhost:P/open/x"}, ()),
    ("path-star", {":path": "*"}, ()),
    ("path-with-space", {":path": "/open/x HTTP/1.1\r\nHost: free"}, ()),
    ("method-lower", {":method": "get"}, ()),
    ("method-connect", {":method": "CONNECT"}, ()),
    ("method-with-line-break", {":method": "GET /smuggled HTTP/1.1\r\nX: y\r\n\r\nGET"}, ()),
    ("pseudo-behind-regular", {}, ((":authority", "free.localhost:P"),)),
    ("pseudo-twice", {}, ((":path", "/open/private/x"),)),
    ("pseudo-unknown", {}, ((":protocol", "websocket"),)),
]


@pytest.mark.parametrize(("name", "pseudo", "extra"), H2, ids=[case[0] for case in H2])
def test_http2(
    stage: Stage, name: str, pseudo: dict[str, str | None], extra: tuple[tuple[str, str], ...]
) -> None:
    port = str(stage.upstream.port)
    whole: dict[str, str | None] = {
        ":method": "GET",
        ":scheme": "https",
        ":authority": "localhost:P",
        ":path": "/open/x",
        **pseudo,
    }
    fields = [(n, v) for n, v in (*whole.items(), *extra) if v is not None]
    got = stage.ask_h2([(n, _with_port(v, port)) for n, v in fields])
    stage.held(got)
    assert got.status == 0 or got.codes == ["request_ambiguous"], got.data


def test_http2_over_plain_proxy_port(stage: Stage) -> None:
    """HTTP/2 by prior knowledge on the proxy's own port is nothing that the proxy speaks."""
    got = stage.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), patience=2)
    stage.held(got)


PLAIN = [
    ("host-elsewhere", "GET http://localhost:Q/open/x HTTP/1.1", "Host: free.localhost:P"),
    ("host-missing", "GET http://localhost:Q/open/x HTTP/1.1", "X-A: b"),
    ("origin-form", "GET /open/x HTTP/1.1", "Host: localhost:Q"),
    ("https-url", "GET https://localhost:P/open/x HTTP/1.1", "Host: localhost:P"),
    ("userinfo", "GET http://localhost@evil.example/open/x HTTP/1.1", "Host: evil.example"),
    ("userinfo-colon", "GET http://u:p@localhost:Q/open/x HTTP/1.1", "Host: localhost:Q"),
    ("no-authority", "GET http:///open/x HTTP/1.1", "Host: localhost:Q"),
    ("backslash", "GET http:\\\\localhost:Q/open/x HTTP/1.1", "Host: localhost:Q"),
    (
        "upper-case-scheme",
        "GET HTTP://localhost:Q/open/../open/private/x HTTP/1.1",
        "Host: localhost:Q",
    ),
    ("fragment", "GET http://localhost:Q/open/x#y HTTP/1.1", "Host: localhost:Q"),
    (
        "hash-before-path",
        "GET http://localhost:Q#@free.localhost/open HTTP/1.1",
        "Host: localhost:Q",
    ),
    ("query-before-path", "GET http://localhost:Q?/open/x HTTP/1.1", "Host: localhost:Q"),
    ("ftp", "GET ftp://localhost:Q/open/x HTTP/1.1", "Host: localhost:Q"),
]


@pytest.mark.parametrize(("name", "line", "host"), PLAIN, ids=[name for name, *_ in PLAIN])
def test_plain_http(stage: Stage, name: str, line: str, host: str) -> None:
    head = "\r\n".join([line, host, f"Proxy-Authorization: {basic(stage.bot)}", "", ""])
    head = head.replace(":Q", f":{stage.plain.port}").replace(":P", f":{stage.upstream.port}")
    stage.held(stage.raw(head.encode(), patience=3), "request_ambiguous")


def test_clear_text_never_carries_the_credential(stage: Stage) -> None:
    """http:// to the very host and port of a credential: another scheme is another place."""
    for port in (stage.upstream.port, stage.plain.port):
        head = f"GET http://localhost:{port}/open/x HTTP/1.1\r\nHost: localhost:{port}\r\n"
        got = stage.raw(f"{head}Proxy-Authorization: {basic(stage.bot)}\r\n\r\n".encode())
        assert got.codes == (["policy_denied"] if port == stage.upstream.port else []), got.data
    (request,) = stage.arrived
    assert request.header("authorization") is None


def test_a_tunnel_is_for_its_own_name_only(stage: Stage) -> None:
    """The one host that is passed on undecrypted, under SNI of a host with a credential."""
    port = stage.upstream.port
    got = stage.ask(
        f"GET /open/x HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode(),
        authority=f"opaque.localhost:{port}",
        sni="localhost",
    )
    stage.held(got, "request_ambiguous")


def test_connections_do_not_share_their_destination(stage: Stage) -> None:
    """One connection after the other, and two requests on one: each is judged by itself."""
    port = stage.upstream.port
    with stage.tls() as sock:
        first = say(sock, stage.get("/open/1"))
        second = say(sock, f"GET /open/2 HTTP/1.1\r\nHost: free.localhost:{port}\r\n\r\n".encode())
    assert first.status == 404
    stage.held(Got(second.data), "request_ambiguous", arrived=1)
