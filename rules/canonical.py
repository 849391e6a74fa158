"""From the request as it came to its one canonical form, or to Ambiguous.

Total and pure: whatever the engine read, the result is one `Request` or a sentence that says
what is odd and what to write instead. Nothing is repaired; only the case of host names is folded.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from urllib.parse import unquote, unquote_plus

from rules.errors import Ambiguous
from rules.headers import Fields, read_headers
from rules.hosts import parse_authority, parse_host, shown
from rules.paths import MAX_TARGET, check_path, check_query
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

# Parameters by which frameworks replace the method or the headers of a request: Rails, Symfony and
# Laravel; ASP.NET; Google's front end.
_OVERRIDES = frozenset(
    {
        "_method",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "$httpmethod",
        "$httpheaders",
    }
)
_PARAMETER = re.compile(r"(?:^|[&;])([^=&;]+)")
_LEADING_SPACES = re.compile(r"^(?:[+ ]|%20)+")
_OVERRIDE_MARKS = ("method", "httpheaders")  # each override name holds one of these
_OVERRIDE_ESCAPES = tuple(
    (f"%{ord(form):02x}", letter)
    for letter in sorted(set("".join(_OVERRIDE_MARKS)))
    for form in (letter, letter.upper())
)
_MAX_PARAMETERS = 10_000
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_PART_NAME = re.compile(rb'(?i)name\*?[ \t]*=[ \t]*"?([^";\r\n]*)')
# Possessive: lines without end are read in one go, with nothing kept to go back to.
_PART_HEADER = re.compile(rb"(?im)^content-disposition[ \t]*:([^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*+)")
_EXTENDED = re.compile(r"(?:[A-Za-z0-9-]+'[^']*')?(.*)", re.DOTALL)
_CONTINUED = re.compile(rb"(?i)name\*[0-9]")
"""A parameter in pieces (RFC 2231 3), which form data must not have (RFC 7578 4.2)."""
_JSON_METHOD = re.compile(
    rb"\"" + b"".join(rb"(?:%c|\\u00%02x)" % (c, c) for c in b"_method") + rb"\"", re.IGNORECASE
)
_NOWHERE = (None, None, None, None)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1"})
_CHARSET = re.compile(r"(?i)charset[ \t]*=[ \t]*\"?([^\";, \t]*)")


def canonicalise(
    raw: RawRequest, *, moment: datetime | None = None, run: str | None = None
) -> Request:
    """The canonical form of a request. Raises Ambiguous, and nothing else, when there is none.

    `moment` and `run` are kept with it (see `Request`).
    """
    version = _VERSIONS.get(raw.http_version)
    if version is None:
        raise Ambiguous("The HTTP version is not spoken here; use HTTP/1.1 or HTTP/2.")
    if raw.has_trailers:
        raise Ambiguous("The request has trailers; send everything in its headers.")
    _check_method(raw.method)
    path, query = _split_target(raw.target)
    length = None if raw.unread else len(raw.body)
    fields = read_headers(raw.headers, http_version=version, body_length=length)
    host, port = _destination(raw, fields.host, version)
    if query:
        _refuse_overrides(query, "query")
    if raw.body:
        _check_form(fields, raw.body)
    headers = fields.kept
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
    kind = _media_type(request.header("content-type") or "")
    return _is_json(kind) or kind in {_FORM, _MULTIPART}


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip(" \t").lower()


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _check_method(method: str) -> None:
    if not _METHOD.fullmatch(method):
        if method.isascii() and _METHOD.fullmatch(method.upper()):
            raise Ambiguous(f"Methods are case-sensitive; write {method.upper()}.")
        raise Ambiguous(f"The method {shown(method)} is odd; use GET, POST or another known one.")
    if method in _REFUSED_METHODS:
        raise Ambiguous(f"The method {method} is never forwarded; use GET to read.")


def _split_target(target: str) -> tuple[str, str | None]:
    if len(target) > MAX_TARGET:
        raise Ambiguous(f"Path and query are longer than {MAX_TARGET} characters; send less.")
    if target == "*":
        raise Ambiguous("The target `*` names no resource; write a path.")
    path, mark, query = target.partition("?")
    check_path(path)
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


def _check_form(fields: Fields, body: bytes) -> None:
    """A form body must be readable, and must not replace the method."""
    kept = dict(fields.kept)
    content_type = kept.get("content-type", "")
    kind = _media_type(content_type)
    if _is_json(kind):
        _check_json(body)
        return
    if kind not in {_FORM, _MULTIPART}:
        return
    if kept.get("content-encoding", "identity").lower() != "identity":
        raise Ambiguous("The form is compressed; send it without Content-Encoding.")
    for charset in _CHARSET.findall(content_type):
        if charset.lower() not in _CHARSETS:
            raise Ambiguous("The form is not in UTF-8; encode its text as UTF-8.")
    if kind == _FORM:
        _refuse_overrides(body.decode("latin-1"), "form")
        return
    names = 0
    for line in _PART_HEADER.findall(body):
        if _CONTINUED.search(line):
            raise Ambiguous("The form has a part whose name comes in pieces; write it as one.")
        for name in _PART_NAME.findall(line):
            names += 1
            if names > _MAX_PARAMETERS:
                raise Ambiguous(f"The form has more than {_MAX_PARAMETERS} parts; send fewer.")
            _refuse_override(_part_name(name.decode("latin-1")), "form")


def _part_name(text: str) -> str:
    """The name as the most lenient readers see it: RFC 8187 notation, quotes, escapes undone."""
    extended = _EXTENDED.fullmatch(text)
    return unquote(extended[1] if extended else text).replace("\\", "").strip("'\"")


def _check_json(body: bytes) -> None:
    """Laravel takes the method from a member of the JSON body, too."""
    if not _JSON_METHOD.search(body):
        return
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Ambiguous("The JSON body cannot be read; send well-formed JSON.") from None
    if isinstance(document, dict):
        for name in document:
            _refuse_override(name, "JSON")


def _refuse_overrides(text: str, where: str) -> None:
    if not _may_override(text):
        return
    if text.count("&") + text.count(";") > _MAX_PARAMETERS:
        raise Ambiguous(f"The {where} has more than {_MAX_PARAMETERS} parameters; send fewer.")
    for name in _PARAMETER.findall(text):
        # The beginning is enough: no name of ours is longer, even with each letter escaped.
        _refuse_override(unquote_plus(_LEADING_SPACES.sub("", name)[:200]), where)


def _may_override(text: str) -> bool:
    """A quick look, so that a large body costs no walk over its parameters."""
    text = text.lower()
    if "%" in text:
        for escape, letter in _OVERRIDE_ESCAPES:
            text = text.replace(escape, letter)
    return any(mark in text for mark in _OVERRIDE_MARKS)


def _refuse_override(name: str, where: str) -> None:
    # PHP cuts a name at NUL and `[`, strips spaces before it, and turns `.` and space into `_`.
    plain = re.split(r"[\[\0]", name.lstrip(" "), maxsplit=1)[0].rstrip(" ")
    if plain.translate(_AS_PHP).lower() in _OVERRIDES:
        raise Ambiguous(
            f"The {where} parameter {shown(plain)} would override the request; leave it out and "
            "send the request as you mean it."
        )


_AS_PHP = str.maketrans({".": "_", " ": "_"})


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
