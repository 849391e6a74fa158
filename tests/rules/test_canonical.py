"""Canonical or refused: one destination, one method, one path, or a sentence that helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rules.canonical import canonicalise, needs_body
from rules.errors import Ambiguous
from rules.request import RawRequest, Request
from tests.support.raw import as_raw

TUNNELLED = RawRequest(
    scheme="https",
    connect=("api.stripe.com", 443),
    sni="api.stripe.com",
    authority=None,
    method="POST",
    target="/v1/refunds?expand=charge",
    headers=((b"Host", b"api.stripe.com"), (b"Accept", b"*/*"), (b"Content-Length", b"8")),
    body=b"amount=1",
)
HTTP2 = replace(
    TUNNELLED,
    authority="api.stripe.com",
    headers=((b"accept", b"*/*"),),
    http_version="HTTP/2.0",
)
PLAIN = RawRequest(
    scheme="http",
    connect=None,
    sni=None,
    authority="a.example",
    method="GET",
    target="/x",
    headers=((b"Host", b"a.example"),),
    body=b"",
)


def refusal(raw: RawRequest, **changes: Any) -> str:
    with pytest.raises(Ambiguous) as caught:
        canonicalise(replace(raw, **changes))
    sentence = caught.value.sentence
    assert sentence.isascii() and sentence.isprintable() and sentence.endswith(".")
    return sentence


def with_host(host: str) -> dict[str, object]:
    return {"headers": ((b"Host", host.encode("latin-1")), (b"Content-Length", b"8"))}


def test_a_request_in_a_tunnel() -> None:
    request = canonicalise(TUNNELLED)
    assert request == Request(
        method="POST",
        scheme="https",
        host="api.stripe.com",
        port=443,
        path="/v1/refunds",
        query="expand=charge",
        headers=(("accept", "*/*"),),
        body=b"amount=1",
    )


def test_http2_and_http1_give_the_same_request() -> None:
    assert canonicalise(HTTP2) == canonicalise(TUNNELLED)
    assert canonicalise(replace(HTTP2, http_version="HTTP/2")) == canonicalise(TUNNELLED)


def test_a_plain_request_in_absolute_form() -> None:
    assert canonicalise(PLAIN).url == "http://a.example/x"


def test_names_are_folded_and_default_ports_are_understood() -> None:
    raw = replace(
        TUNNELLED,
        connect=("API.Stripe.com", 443),
        sni="api.STRIPE.com",
        authority="Api.Stripe.Com:443",
        headers=((b"host", b"api.stripe.com:443"),),
    )
    assert canonicalise(raw).authority == "api.stripe.com"


def test_an_ipv6_upstream() -> None:
    raw = replace(TUNNELLED, connect=("::1", 8443), sni=None, headers=((b"Host", b"[::1]:8443"),))
    assert canonicalise(raw).authority == "[::1]:8443"


def test_an_empty_query_is_not_the_same_as_none() -> None:
    assert canonicalise(replace(PLAIN, target="/x?")).target == "/x?"
    assert canonicalise(PLAIN).target == "/x"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"connect": ("evil.example", 443)}, "CONNECT names evil.example:443 but"),
        ({"connect": ("api.stripe.com", 8443)}, "same host and port"),
        ({"sni": "evil.example"}, "the TLS server name names evil.example:443"),
        ({"sni": "api.stripe.com."}, "ends in a dot"),
        (with_host("evil.example"), "Host names evil.example:443"),
        (with_host("api.stripe.com:8443"), "Host names api.stripe.com:8443"),
        (with_host("api.stripe.com:80"), "same host and port"),
        (with_host("api.stripe.com, evil.example"), "space"),
        (with_host("user@api.stripe.com"), "user information"),
        (with_host(""), "empty"),
        ({"headers": ()}, "no Host header"),
        ({"authority": "evil.example"}, "the URL names evil.example:443"),
        ({"authority": ""}, "empty"),
        ({"connect": ("[[::1]]", 443)}, "one pair of brackets"),
        ({"connect": ("127.1", 443)}, "IPv4"),
        ({"connect": ("api.stripe.com", 0)}, "CONNECT port"),
        ({"connect": ("api.stripe.com", -1)}, "CONNECT port"),
        ({"connect": ("api.stripe.com", 65536)}, "CONNECT port"),
        ({"connect": None}, "open one with CONNECT"),
        ({"scheme": "http"}, "clear text inside a CONNECT tunnel"),
        ({"scheme": "ftp"}, "neither http nor https"),
    ],
)
def test_the_destination_is_named_alike_everywhere(changes: dict[str, Any], reason: str) -> None:
    assert reason in refusal(TUNNELLED, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authority": "evil.example"}, ":authority names evil.example:443"),
        ({"authority": None}, "no :authority"),
        ({"headers": ((b"host", b"evil.example"),)}, "Host names evil.example:443"),
    ],
)
def test_the_destination_over_http2(changes: dict[str, Any], reason: str) -> None:
    assert reason in refusal(HTTP2, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authority": None}, "send the whole URL"),
        ({"authority": "b.example"}, "The URL names b.example:80 but Host names a.example:80"),
        ({"headers": ()}, "no Host header"),
        ({"sni": "a.example"}, "came over TLS"),
        ({"scheme": "https"}, "open one with CONNECT"),
    ],
)
def test_the_destination_of_a_plain_request(changes: dict[str, Any], reason: str) -> None:
    assert reason in refusal(PLAIN, **changes)


def test_http_1_0_needs_its_host_too() -> None:
    assert canonicalise(replace(PLAIN, http_version="HTTP/1.0")).host == "a.example"
    assert "no Host" in refusal(PLAIN, http_version="HTTP/1.0", headers=())


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/3", "http/1.1", ""])
def test_other_versions_are_not_spoken(version: str) -> None:
    assert "HTTP version" in refusal(PLAIN, http_version=version)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "PROPFIND", "M-SEARCH"]
)
def test_a_method_is_upper_case_letters(method: str) -> None:
    assert canonicalise(replace(PLAIN, method=method)).method == method


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("get", "write GET"),
        ("Delete", "write DELETE"),
        ("TRACE", "never forwarded"),
        ("TRACK", "never forwarded"),
        ("CONNECT", "never forwarded"),
        ("PRI", "never forwarded"),
        ("trace", "write TRACE"),
        ("", "odd"),
        ("GET ", "odd"),
        ("GET\n", "odd"),
        ("GET\t/", "odd"),
        ("G\u0130T", "odd"),
        ("-GET", "odd"),
        ("A" * 33, "odd"),
        ("\u017fET", "odd"),
    ],
)
def test_other_methods_are_refused(method: str, reason: str) -> None:
    assert reason in refusal(PLAIN, method=method)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("*", "no resource"),
        ("", "begin with"),
        ("x", "begin with"),
        ("http://a.example/x", "begin with"),
        ("/a/../b", "`..`"),
        ("/a#b", "fragment"),
        ("/a?b#c", "fragment"),
        ("/a?b=%zz", "escape"),
        ("/" + "a" * 20_000, "longer than"),
    ],
)
def test_an_odd_target_is_refused(target: str, reason: str) -> None:
    assert reason in refusal(PLAIN, target=target)


def test_trailers_are_refused() -> None:
    assert "trailers" in refusal(TUNNELLED, has_trailers=True)


UPGRADE = (
    (b"Host", b"a.example"),
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
)


def test_a_websocket_is_asked_for() -> None:
    request = canonicalise(replace(PLAIN, headers=UPGRADE))
    assert request.upgrade == "websocket"
    assert request.headers == (
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )


@pytest.mark.parametrize(
    "changes", [{"method": "POST"}, {"http_version": "HTTP/1.0"}, {"body": b"x"}]
)
def test_a_websocket_is_asked_for_in_one_way(changes: dict[str, Any]) -> None:
    assert "WebSocket" in refusal(PLAIN, headers=UPGRADE, **changes)


HOSTS = st.sampled_from(["api.stripe.com", "API.stripe.com", "a.example", "::1", "127.0.0.1", ""])
PORTS = st.sampled_from([443, 80, 8443, 0, -1, 70_000])
PATH_PIECES = [
    "a",
    "B",
    "/",
    ".",
    "..",
    "%20",
    "%2E",
    "%c3",
    "%C3%A9",
    ";",
    "*",
    "é",
    "?",
    "_method",
]
RAW_PIECES = st.lists(st.sampled_from(PATH_PIECES), max_size=6).map("".join)
TARGETS = st.one_of(RAW_PIECES, RAW_PIECES.map(lambda t: "/" + t), st.text(max_size=20))
HEADER_LINES = st.tuples(
    st.sampled_from(
        [
            b"Host",
            b"Cookie",
            b"Connection",
            b"Upgrade",
            b"Content-Type",
            b"Prefer",
            b"X-A",
            b"Accept",
            b"Keybroker-Reason",
            b"Content-Length",
            b"Transfer-Encoding",
            b"X_B",
            b"Expect",
        ]
    )
    | st.binary(max_size=5),
    st.sampled_from(
        [
            b"api.stripe.com",
            b"a.example:80",
            b"upgrade",
            b"websocket",
            b"respond-async, b",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=b",
            b"chunked",
            b"0",
            b" a\t",
        ]
    )
    | st.binary(max_size=8),
)
ANY_RAW = st.builds(
    RawRequest,
    scheme=st.sampled_from(["http", "https"]),
    connect=st.none() | st.tuples(HOSTS | st.text(max_size=8), PORTS | st.integers()),
    sni=st.none() | HOSTS | st.text(max_size=8),
    authority=st.none() | HOSTS | st.text(max_size=8),
    method=st.sampled_from(["GET", "POST", "get", "TRACE"]) | st.text(max_size=4),
    target=TARGETS,
    headers=st.lists(HEADER_LINES, max_size=5).map(tuple),
    body=st.sampled_from([b"", b"_method=x", b"a=%"]) | st.binary(max_size=10),
    http_version=st.sampled_from(["HTTP/1.1", "HTTP/2.0", "HTTP/1.0", "x"]),
    has_trailers=st.booleans(),
)


@st.composite
def likely_requests(draw: st.DrawFn) -> RawRequest:
    """Requests that name their destination alike, so that most of them have a canonical form."""
    host = draw(st.sampled_from(["api.stripe.com", "a.example", "[::1]", "127.0.0.1"]))
    port = draw(st.sampled_from([443, 80, 8443]))
    https = draw(st.booleans())
    authority = f"{host}:{port}"
    text = draw(st.text(alphabet="aB.é€ <#?@", max_size=6))
    path = "/x" + quote(text, safe="!$&'()*+,=:@")
    query = draw(st.sampled_from(["", "?", "?a=b%2fc", "?q=a+b&&"]))
    lines = draw(
        st.lists(
            st.sampled_from(
                [
                    (b"Accept", b"a"),
                    (b"X-A", b" 1\t"),
                    (b"Cookie", b"a=b"),
                    (b"Prefer", b'respond-async , wait=1, x="a,b"'),
                    (b"Connection", b"close, x-hop"),
                    (b"X-Hop", b"1"),
                    (b"Keybroker-Reason", b"why not"),
                    (b"X-Forwarded-For", b"1.2.3.4"),
                    (b"Proxy-Authorization", b"Basic x"),
                ]
            ),
            max_size=6,
            unique=True,
        )
    )
    http2 = https and draw(st.booleans())
    if not http2:
        lines.insert(draw(st.integers(0, len(lines))), (b"Host", authority.encode()))
    return RawRequest(
        scheme="https" if https else "http",
        connect=(host, port) if https else None,
        sni=draw(st.sampled_from([None, host])) if https else None,
        authority=authority if http2 or not https else None,
        method=draw(st.sampled_from(["GET", "POST", "DELETE"])),
        target=path + query,
        headers=tuple(lines),
        # Shorter than what a form could say that replaces the method.
        body=draw(st.binary(max_size=6)),
        http_version="HTTP/2" if http2 else "HTTP/1.1",
    )


@given(ANY_RAW)
@example(replace(PLAIN, target="/\udcff"))
@example(replace(PLAIN, method="\udcff"))
@example(replace(PLAIN, authority="\udcff"))
def test_canonicalise_returns_or_is_ambiguous(raw: RawRequest) -> None:
    sentence = ""
    try:
        canonicalise(raw)
    except Ambiguous as error:
        sentence = error.sentence
    assert sentence.isascii() and sentence.isprintable()


@given(likely_requests())
def test_a_canonical_request_is_its_own_canonical_form(raw: RawRequest) -> None:
    request = canonicalise(raw)
    assert canonicalise(as_raw(request)) == request
    assert request.target == raw.target
    assert Request.from_json(request.to_json()) == replace(request, respond_async=False)


def test_a_websocket_request_is_its_own_canonical_form() -> None:
    request = canonicalise(replace(PLAIN, headers=UPGRADE))
    assert canonicalise(as_raw(request)) == request


GATEWAY = replace(
    TUNNELLED,
    connect=None,
    sni=None,
    gateway="API.stripe.com",
    headers=((b"Content-Length", b"8"),),
)


def test_at_the_gateway_the_path_alone_says_where_a_call_goes() -> None:
    request = canonicalise(GATEWAY)
    assert replace(request, via="proxy") == replace(canonicalise(TUNNELLED), headers=())
    assert request.via == "gateway"
    assert Request.from_json(request.to_json()).via == "gateway"
    assert request.encode() == replace(request, via="proxy").encode()
    assert canonicalise(replace(GATEWAY, gateway="[2001:db8::1]:8443")).host == "2001:db8::1"
    assert canonicalise(replace(GATEWAY, http_version="HTTP/2")).port == 443


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "http"},
        {"connect": ("api.stripe.com", 443)},
        {"sni": "api.stripe.com"},
        {"authority": "api.stripe.com"},
        with_host("api.stripe.com"),
    ],
)
def test_at_the_gateway_nothing_else_names_a_place(changes: dict[str, Any]) -> None:
    assert "name it nowhere else" in refusal(GATEWAY, **changes)


@pytest.mark.parametrize("host", ["", "a@b", "a.", "127.1", "a:0", "a%2eb", "[a]", "a,b", "a\\b"])
def test_at_the_gateway_hosts_have_one_spelling(host: str) -> None:
    assert refusal(GATEWAY, gateway=host)


UNREAD = replace(
    TUNNELLED,
    headers=((b"Host", b"api.stripe.com"), (b"Content-Length", b"900000000")),
    body=b"",
    unread=True,
)


def test_an_unread_body_is_known_by_its_length() -> None:
    request = canonicalise(UNREAD)
    assert (request.unread, request.length, request.body) == (True, 900_000_000, b"")
    headers = ((b"Host", b"api.stripe.com"), (b"Transfer-Encoding", b"chunked"))
    assert canonicalise(replace(UNREAD, headers=headers)).length is None


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"headers": (*UNREAD.headers, (b"X-HTTP-Method-Override", b"DELETE"))}, "override"),
        ({"target": "/v1/refunds?_method=DELETE"}, "override"),
        ({"headers": (*UNREAD.headers, (b"Transfer-Encoding", b"chunked"))}, "both"),
        ({"headers": (*UNREAD.headers, (b"Upgrade", b"websocket"), (b"Connection", b"upgrade"))},
         "WebSocket"),
    ],
)  # fmt: skip
def test_an_unread_request_is_no_less_strict(changes: dict[str, Any], part: str) -> None:
    assert part in refusal(UNREAD, **changes)


@pytest.mark.parametrize(
    ("content_type", "needed"),
    [
        ("application/octet-stream", False),
        ("application/x-git-receive-pack-request", False),
        ("application/grpc", False),
        ("application/json", True),
        ("Application/Vnd.X+JSON; charset=utf-8", True),
        ("application/x-www-form-urlencoded", True),
        ("multipart/form-data; boundary=b", True),
        ("multipart/related; boundary=b", True),
    ],
)
def test_forms_and_json_are_read_in_any_case(content_type: str, needed: bool) -> None:
    headers = (*UNREAD.headers, (b"Content-Type", content_type.encode()))
    assert needs_body(canonicalise(replace(UNREAD, headers=headers))) is needed


def test_a_post_that_does_not_say_what_it_is_is_read_too() -> None:
    assert needs_body(canonicalise(UNREAD))
    assert not needs_body(canonicalise(replace(UNREAD, method="PUT")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Sec-WebSocket-Version", b"8"),
        (b"Sec-WebSocket-Version", b"13, 8"),
        (b"Sec-WebSocket-Key", b"abc"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZR=="),
    ],
)
def test_a_websocket_names_its_version_and_a_key(name: bytes, value: bytes) -> None:
    headers = tuple((n, value if n == name else v) for n, v in UPGRADE)
    assert "Sec-WebSocket-Key of 16 bytes" in refusal(PLAIN, headers=headers)
    without = tuple(pair for pair in UPGRADE if pair[0] != name)
    assert "Sec-WebSocket-Key of 16 bytes" in refusal(PLAIN, headers=without)
