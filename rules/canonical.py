"""From the request as it came to its one canonical form, or to Ambiguous.

Total and pure: whatever the engine read, the result is one `Request` or a sentence that says
what is odd and what to write instead. Nothing is repaired; only the case of host names is
folded, and that of the escape for a slash where one may stand.
"""

from __future__ import annotations

import re
from datetime import datetime

from rules import overrides
from rules.errors import Ambiguous
from rules.headers import read_headers
from rules.hosts import parse_authority, parse_host, shown
from rules.media import read_media_type
from rules.paths import ENCODED_SLASH, MAX_TARGET, check_path, check_query
from rules.request import DEFAULT_PORTS, Headers, RawRequest, Request

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
# TRACE and TRACK echo the request, injected header included; CONNECT opens tunnels; PRI begins the
# HTTP/2 preface.
_REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT", "PRI"})
_SOCKET_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")  # RFC 6455 4.1
_VERSIONS = {
    "HTTP/1.0": "HTTP/1.0",
    "HTTP/1.1": "HTTP/1.1",
    "HTTP/2": "HTTP/2",
    "HTTP/2.0": "HTTP/2",
}

_NOWHERE = (None, None, None, None)


def canonicalise(
    raw: RawRequest,
    *,
    moment: datetime | None = None,
    run: str | None = None,
    slashes: bool = False,
) -> Request:
    """The canonical form of a request. Raises Ambiguous, and nothing else, when there is none.

    `moment` and `run` are kept with it (see `Request`). `slashes` lets encoded slashes pass in the
    path, for a rulebook to say whether they may stand there.
    """
    version = _VERSIONS.get(raw.http_version)
    if version is None:
        raise Ambiguous("The HTTP version is not spoken here; use HTTP/1.1 or HTTP/2.")
    if raw.has_trailers:
        raise Ambiguous("The request has trailers; send everything in its headers.")
    _check_method(raw.method)
    path, query = _split_target(raw.target, slashes)
    length = None if raw.unread else len(raw.body)
    fields = read_headers(raw.headers, http_version=version, body_length=length)
    host, port = _destination(raw, fields.host, version)
    if query:
        overrides.check_query(query)
    headers = fields.kept
    named = dict(headers)
    media = read_media_type(named.get("content-type", ""))
    if raw.body:
        overrides.check_body(media, named.get("content-encoding", ""), raw.method, raw.body)
    if fields.upgrade is not None:
        _check_upgrade(raw, version, headers)
        # Frames must be readable; an extension is only ever an offer.
        headers = tuple(pair for pair in headers if pair[0] != "sec-websocket-extensions")
    return Request(
        method=raw.method,
        scheme=raw.scheme,
        host=host,
        port=port,
        path=path,
        query=query,
        headers=headers,
        body=raw.body,
        upgrade=fields.upgrade,
        claim=fields.claim,
        respond_async=fields.respond_async,
        via="proxy" if raw.gateway is None else "gateway",
        unread=raw.unread,
        length=fields.length if raw.unread else None,
        moment=moment,
        run=run,
    )


def needs_body(request: Request) -> bool:
    """Whether only the body can tell that there is one reading of the request: forms and JSON may
    hold a parameter that replaces the method."""
    media = read_media_type(request.header("content-type") or "")
    return overrides.is_searched(media, request.method)


def _check_method(method: str) -> None:
    if not _METHOD.fullmatch(method):
        if method.isascii() and _METHOD.fullmatch(method.upper()):
            raise Ambiguous(f"Methods are case-sensitive; write {method.upper()}.")
        raise Ambiguous(f"The method {shown(method)} is odd; use GET, POST or another known one.")
    if method in _REFUSED_METHODS:
        raise Ambiguous(f"The method {method} is never forwarded; use GET to read.")


def _split_target(target: str, slashes: bool) -> tuple[str, str | None]:
    if len(target) > MAX_TARGET:
        raise Ambiguous(f"Path and query are longer than {MAX_TARGET} characters; send less.")
    if target == "*":
        raise Ambiguous("The target `*` names no resource; write a path.")
    path, mark, query = target.partition("?")
    if slashes and "%2" in path:
        path = path.replace(ENCODED_SLASH.lower(), ENCODED_SLASH)
    check_path(path, slashes=slashes)
    if not mark:
        return path, None
    check_query(query)
    return path, query


def _destination(raw: RawRequest, host_header: str | None, version: str) -> tuple[str, int]:
    """The one place that CONNECT, server name, Host and authority all name (law 6)."""
    default_port = DEFAULT_PORTS.get(raw.scheme)
    if default_port is None:
        raise Ambiguous("The scheme is neither http nor https; use https.")
    if raw.gateway is not None:
        if raw.scheme != "https" or (raw.connect, raw.sni, raw.authority, host_header) != _NOWHERE:
            raise Ambiguous("The gateway's path names the host; name it nowhere else.")
        return parse_authority(raw.gateway, default_port)
    named: list[tuple[str, str, int]] = []
    if raw.scheme == "https":
        if raw.connect is None:
            raise Ambiguous("There is no tunnel for this https request; open one with CONNECT.")
        connect_host, connect_port = raw.connect
        if not 1 <= connect_port <= 65535:
            raise Ambiguous(f"The CONNECT port {connect_port} is odd; write 1 to 65535.")
        named.append(("CONNECT", parse_host(connect_host), connect_port))
        if raw.sni is not None:
            named.append(("the TLS server name", parse_host(raw.sni), connect_port))
    elif raw.connect is not None:
        raise Ambiguous("There is clear text inside a CONNECT tunnel; use https in it.")
    elif raw.sni is not None:
        raise Ambiguous("A plain http request came over TLS; use CONNECT and https.")
    elif raw.authority is None:
        raise Ambiguous(
            "The request names a path only; send the whole URL to the proxy, as in "
            "`GET http://host/path`."
        )
    if raw.authority is not None:
        where = ":authority" if version == "HTTP/2" else "the URL"
        named.append((where, *parse_authority(raw.authority, default_port)))
    elif version == "HTTP/2":
        raise Ambiguous("There is no :authority; send one, equal to the host of the connection.")
    if host_header is not None:
        named.append(("Host", *parse_authority(host_header, default_port)))
    elif version != "HTTP/2":
        raise Ambiguous("There is no Host header; send one, equal to the host of the URL.")
    first, host, port = named[0]
    for where, other_host, other_port in named[1:]:
        if (other_host, other_port) != (host, port):
            raise Ambiguous(
                f"{_capital(first)} names {_place(host, port)} but {where} names "
                f"{_place(other_host, other_port)}; name the same host and port everywhere."
            )
    return host, port


def _check_upgrade(raw: RawRequest, version: str, headers: Headers) -> None:
    if raw.method != "GET" or version != "HTTP/1.1" or raw.body or raw.unread:
        raise Ambiguous("A WebSocket is opened with GET over HTTP/1.1 and no body; send that.")
    named = dict(headers)
    if named.get("sec-websocket-version") != "13" or not _SOCKET_KEY.fullmatch(
        named.get("sec-websocket-key", "")
    ):
        raise Ambiguous(
            "A WebSocket is opened with `Sec-WebSocket-Version: 13` and a Sec-WebSocket-Key of 16"
            " bytes in base64; send both."
        )


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
