"""Between mitmproxy's messages and the core's values. Pure; what cannot be said exactly raises."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from urllib.parse import quote

from mitmproxy import http

from broker.frames import accept_of
from proxy.exchange import Wire
from proxy.gateway import Claim
from proxy.ports import Answer, Head
from rules.errors import Ambiguous
from rules.hosts import parse_authority
from rules.request import Headers, RawRequest, Request, Scheme

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""RFC 9110 7.6.1, and what a proxy keeps to itself."""

_FOLD = re.compile(r"\r?\n[ \t]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile("[\x00\r\n]")
EXPECTS_BODY = frozenset(("POST", "PUT", "PATCH"))
"""Methods whose request says `Content-Length: 0` when it has no body (RFC 9110 8.6)."""


Fields = list[tuple[bytes, bytes]]


class UnsafeHead(ValueError):
    """A response head that would not mean the same to everyone who reads it."""


def connect_target(request: http.Request, wire: Wire) -> tuple[str, int]:
    """The canonical host and port that a CONNECT asks for. Raises Ambiguous."""
    if wire.method != b"CONNECT":
        raise Ambiguous("The method is CONNECT in odd letters; write CONNECT.")
    if wire.version == b"HTTP/2.0":
        # A connection has one tunnel here, and HTTP/2 would have many on it.
        raise Ambiguous("CONNECT is understood over HTTP/1.1 only; offer http/1.1 to the proxy.")
    text = _ascii(wire.authority)
    host, port = parse_authority(text, 0)
    if not port:
        raise Ambiguous("CONNECT needs a host and a port, as in `CONNECT api.example.com:443`.")
    named = request.headers.get_all("host")
    if len(named) > 1 or any(parse_authority(_plain(h), port) != (host, port) for h in named):
        raise Ambiguous("The Host header of CONNECT names another place than its target.")
    lengths = request.headers.get_all("content-length")
    if "transfer-encoding" in request.headers or any(length != "0" for length in lengths):
        raise Ambiguous("CONNECT has no body; leave out its length.")
    return host, port


def raw_request(
    flow: http.HTTPFlow,
    wire: Wire,
    connect: tuple[str, int] | None,
    sni: str | None,
    *,
    unread: bool = False,
) -> RawRequest:
    """What arrived, as the core wants it; `unread`: its body has yet to come.

    Raises Ambiguous where RawRequest cannot say it.
    """
    request = flow.request
    scheme: Scheme = "https" if flow.client_conn.tls_established else "http"
    if wire.scheme and wire.scheme != scheme.encode():
        raise Ambiguous(
            f"The target says {_shown(wire.scheme)}:// but the request came by {scheme}. "
            "For https send CONNECT and TLS."
        )
    return RawRequest(
        scheme=scheme,
        connect=connect,
        sni=sni,
        authority=_ascii(wire.authority) if wire.authority else None,
        method=_ascii(wire.method),
        target=_ascii(wire.path),
        headers=request.headers.fields,
        body=request.raw_content or b"",
        http_version=_version(wire),
        has_trailers=bool(request.trailers),
        unread=unread,
    )


def gateway_request(
    flow: http.HTTPFlow, wire: Wire, claim: Claim, *, unread: bool = False
) -> RawRequest:
    """A request to the gateway, as the core wants it: only its path says where it goes."""
    return RawRequest(
        scheme="https",
        connect=None,
        sni=None,
        authority=None,
        method=_ascii(wire.method),
        target=claim.target,
        headers=claim.headers,
        body=flow.request.raw_content or b"",
        http_version=_version(wire),
        has_trailers=bool(flow.request.trailers),
        gateway=claim.authority,
        unread=unread,
    )


def sent_fields(request: Request) -> list[tuple[str, str]]:
    """Host first, then exactly the fields of `request`, and Content-Length made from its body.

    Without the length of an unread body there is none, and whoever sends it frames it.
    """
    authority = request.authority
    if not authority.isascii():
        raise ValueError("an authority that is not ASCII")
    fields = [("host", authority), *request.headers]
    if request.unread:
        if request.length is not None:
            fields.append(("content-length", str(request.length)))
    elif request.body or request.method in EXPECTS_BODY:
        fields.append(("content-length", str(len(request.body))))
    return fields


def upstream_request(request: Request, received: http.Request) -> http.Request:
    """Exactly `request`, with `sent_fields`.

    A new message: mitmproxy goes on using the received one for the agent's side of the connection.
    """
    http2 = received.is_http2
    host, *rest = sent_fields(request)
    # HTTP/2 has a pseudo-header for Host.
    named = rest if http2 else [host, *rest]
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named]
    if request.unread and "expect" in received.headers:
        fields.append((b"expect", b"100-continue"))  # for mitmproxy, which answers and drops it
    if takes_trailers(received.headers) and not request.upgrade:
        fields += [(b"te", b"trailers")] + ([] if http2 else [(b"connection", b"te")])
    if request.upgrade:
        fields += [(b"connection", b"upgrade"), (b"upgrade", request.upgrade.encode("ascii"))]
    return http.Request(
        request.host,
        request.port,
        request.method.encode("ascii"),
        request.scheme.encode("ascii"),
        # HTTP/1 gets origin form; HTTP/2 its pseudo-header.
        request.authority.encode("ascii") if http2 else b"",
        request.target.encode("ascii"),
        # With an HTTP/2 agent the version stays, or mitmproxy keeps HTTP/1 connections to the
        # upstream open that it will never use again, and the sixth request waits for ever.
        b"HTTP/2.0" if http2 else b"HTTP/1.1",
        http.Headers(fields),
        None if request.unread else request.body,
        None,
        received.timestamp_start,
        received.timestamp_end,
    )


def takes_trailers(headers: http.Headers) -> bool:
    """Whether a request says `TE: trailers` (RFC 9110 10.1.4)."""
    tokens = (t.partition(";")[0].strip().lower() for t in headers.get("te", "").split(","))
    return "trailers" in tokens


def answer_response(answer: Answer, wire: Wire, *, close: bool = False) -> http.Response:
    """Keybroker's own answer. Raises if it is not one (a status that is not final, say)."""
    if not isinstance(answer.status, int) or not 200 <= answer.status <= 599:
        raise ValueError("not a final status")
    body = bytes(memoryview(answer.body))
    fields = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in _checked(answer.headers)
        if name.lower() not in ("content-length", "transfer-encoding", "connection")
    ]
    status = answer.status
    if wire.grpc and status != 200:
        fields = [pair for pair in fields if pair[0].lower() != b"content-type"]
        fields += _grpc_status(status, body)
        # Of any other status Go and Java clients show the number alone, without the sentence.
        status, body = 200, b""
    if status not in (204, 304):
        fields.append((b"content-length", b"%d" % len(body)))
    if close and wire.version != b"HTTP/2.0":
        fields.append((b"connection", b"close"))
    shown = b"" if wire.method == b"HEAD" or status in (204, 304) else body
    reason = reason_phrase(status)
    return http.Response(b"HTTP/1.1", status, reason, http.Headers(fields), shown, None, 0.0, None)


def reason_phrase(status: int) -> bytes:
    """The registered one (RFC 9110 section 15). Where CONNECT is refused it is all that many
    clients show: Go prints it alone."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


_GRPC = {
    202: 14,
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    407: 16,
    409: 10,
    413: 8,
    429: 8,
    502: 14,
    503: 14,
}
"""Statuses of HTTP as those of gRPC; others are INTERNAL. 202 and 503 say that people are asked, so
UNAVAILABLE: try again later."""


def _grpc_status(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """The answer as a gRPC client reads it: a response of trailers only, with the sentence.

    Source: gRPC over HTTP/2, Responses (Trailers-Only has `:status` 200 like any other).
    """
    try:
        detail = str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = ""
    return [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % _GRPC.get(status, 13)),
        # gRPC over HTTP/2, Percent-Encoded.
        (b"grpc-message", quote(detail, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()),
    ]


def received_head(response: http.Response) -> tuple[int, str, Headers]:
    """Status, reason and end-to-end headers of the upstream's response. Raises UnsafeHead."""
    fields, options = [], ""
    for name, value in response.headers.fields:
        text = value.decode("latin-1")
        if "\n" in text:
            text = _FOLD.sub(" ", text)
        fields.append((name.decode("latin-1"), text))
        if name.lower() == b"connection":
            options += "," + text
    dropped = _HOP_BY_HOP
    if options:
        dropped = dropped.union(token.strip().lower() for token in options.split(","))
    kept = tuple([pair for pair in fields if pair[0].lower() not in dropped])
    reason = response.data.reason.decode("latin-1")
    return response.status_code, reason, _checked(kept)


def delivered_response(
    head: Head, wire: Wire, method: bytes, *, close: bool = False
) -> http.Response:
    """The response to deliver, framed for the agent's connection. Raises UnsafeHead, ValueError.

    `method`: of the request that was sent.

    A new message: mitmproxy judges the upstream's connection by the one received.
    """
    reason, fields = delivered_head(head, wire, method, close=close)
    return http.Response(
        b"HTTP/1.1", head.status, reason, http.Headers(fields), None, None, 0.0, None
    )


def delivered_head(
    head: Head, wire: Wire, method: bytes, *, close: bool = False
) -> tuple[bytes, Fields]:
    """Reason phrase and fields of that response. Raises likewise."""
    if head.status != 101 and not 200 <= head.status <= 599:
        raise UnsafeHead("not a final status")
    fields, has_length = [], False
    for name, value in _checked(head.headers):
        lower = name.lower()
        if lower not in _HOP_BY_HOP:
            fields.append((name.encode("latin-1"), value.encode("latin-1")))
            has_length = has_length or lower == "content-length"
    http1 = wire.version != b"HTTP/2.0"
    if head.status == 101:
        # The request that was sent may have had another key than this agent's: one from a store.
        fields = [pair for pair in fields if pair[0].lower() != b"sec-websocket-accept"]
        accept = accept_of(wire.websocket_key).encode()
        fields += [(b"sec-websocket-accept", accept)]
        fields += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    elif head.status in (204, 304) or wire.method == b"HEAD":
        pass
    elif method == b"HEAD":
        # The agent asked by another method (for a stored request): it waits for a body.
        fields = [pair for pair in fields if pair[0].lower() != b"content-length"]
        fields.append((b"content-length", b"0"))
    elif not has_length and http1:
        if wire.version == b"HTTP/1.1":
            fields.append((b"transfer-encoding", b"chunked"))
        else:
            close = True
    if close and http1 and head.status != 101:
        fields.append((b"connection", b"close"))
    reason = head.reason.encode("latin-1")
    if _CONTROL.search(head.reason):
        raise UnsafeHead("control bytes in the status text")
    return reason, fields


def received_trailers(trailers: http.Headers) -> Headers:
    """The trailers of the upstream's response. Raises UnsafeHead."""
    return _checked(
        tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in trailers.fields)
    )


def trailers_of(fields: Headers) -> http.Headers:
    """Trailers as the core has them. Raises UnsafeHead."""
    encoded = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in _checked(fields)]
    return http.Headers(encoded)


def _checked(headers: Headers) -> Headers:
    for name, value in headers:
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise UnsafeHead("control bytes in a header")
    return headers


def _version(wire: Wire) -> str:
    return {b"HTTP/2.0": "HTTP/2"}.get(wire.version, wire.version.decode("latin-1"))


def _ascii(data: bytes) -> str:
    """Bytes as text, each one kept: what is not ASCII is for the rules to refuse."""
    return data.decode("latin-1")


def _plain(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _shown(scheme: bytes) -> str:
    return ascii(scheme[:20].decode("latin-1"))[1:-1]
