"""Header fields: from the wire's bytes to the lines that go upstream, or refused.

What only concerns this hop, or what only a proxy may say, is taken out; what could be read in two
ways raises Ambiguous. Sentences name headers but never show a value: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from rules.errors import Ambiguous
from rules.hosts import shown
from rules.request import Headers

MAX_HEADERS = 200
MAX_HEADER_BYTES = 65_536
MAX_CLAIM = 500
"""Characters of Keybroker-Reason that are kept."""

# Narrower than a token (RFC 9110 5.6.2): CGI-like servers turn `_`, `.` and other signs into `-`,
# so that a second spelling of a name would exist.
_NAME = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,126}[A-Za-z0-9])?")
_VALUE = re.compile(rb"[\t -~]*")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")
_TOKEN = re.compile(r"[A-Za-z0-9-]+")


class _Kind(Enum):
    SINGLE = 1  # goes upstream; at most one line
    LIST = 2  # goes upstream; a comma-separated list by its definition, may have several lines
    DROPPED = 3  # taken out
    READ = 4  # taken out and read here; at most one line
    READ_LIST = 5  # taken out and read here


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Whatever is in no table goes upstream and stands once: most servers take the first of two lines,
# some the last, and some join them.
_LISTS = _names(
    """accept accept-charset accept-encoding accept-language access-control-request-headers allow
    baggage cache-control cdn-loop content-language if-match if-none-match link pragma prefer
    sec-websocket-extensions sec-websocket-protocol tracestate vary warning"""
)
_DROPPED = _names(
    """cf-connecting-ip client-ip forwarded http2-settings keep-alive te trailer trailers
    true-client-ip via x-client-ip x-cluster-client-ip x-real-ip x-remote-addr
    x-remote-ip"""
)
_DROPPED_PREFIXES = ("proxy-", "x-forwarded-", "keybroker-")
_READ = _names("content-length expect host keybroker-reason transfer-encoding upgrade")
_REFUSED = {
    **dict.fromkeys(
        ("x-http-method-override", "x-method-override", "x-http-method", "x-original-method"),
        "send the request with the method you mean",
    ),
    **dict.fromkeys(
        ("x-original-url", "x-original-uri", "x-rewrite-url", "x-override-url"),
        "send the request to the path you mean",
    ),
    **dict.fromkeys(
        ("x-host", "x-original-host", "x-http-host-override"),
        "send the request to the host you mean",
    ),
}
# A Connection header may name its own hop's fields. Naming one of these would have it taken out
# between the decision and the upstream.
_END_TO_END = _LISTS | _names(
    """api-key apikey authorization cookie date from host idempotency-key keybroker-reason origin
    private-token range referer soapaction user-agent x-api-key x-auth-token"""
)
_END_TO_END_PREFIXES = ("content-", "if-", "sec-", "access-control-", "x-amz-", "x-goog-")
_OWN_HOP = _names("close http2-settings keep-alive te trailer transfer-encoding upgrade")


@dataclass(slots=True)
class Fields:
    """What a header section says: the lines that go upstream, and what was read of the others."""

    kept: Headers
    host: str | None
    upgrade: str | None
    claim: str | None
    respond_async: bool
    length: int | None
    """The Content-Length, where there is one."""


@dataclass(slots=True)
class _Sorted:
    kept: list[tuple[str, str]] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    connection: list[str] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def read_headers(
    raw: Sequence[tuple[bytes, bytes]], *, http_version: str, body_length: int | None
) -> Fields:
    """The header section in canonical form.

    `http_version` is `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`; `body_length` is in bytes and must be what
    the framing announces (None: the body has not been read). Raises Ambiguous.
    """
    fields = _sort(raw, http2=http_version == "HTTP/2")
    length = _check_framing(fields.read, http_version, body_length)
    tokens = _connection_tokens(fields.connection)
    kept = fields.kept
    if tokens - _OWN_HOP:
        kept = [(n, v) for n, v in kept if n not in tokens]
    expect = fields.read.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise Ambiguous("The Expect header asks for more than `100-continue`; leave it out.")
    respond_async = False
    if "prefer" in fields.seen:
        kept, respond_async = _take_respond_async(kept)
    claim = fields.read.get("keybroker-reason") or None
    return Fields(
        kept=tuple(kept),
        host=fields.read.get("host"),
        upgrade=_upgrade(fields.read.get("upgrade"), tokens),
        claim=claim[:MAX_CLAIM] if claim else None,
        respond_async=respond_async,
        length=length,
    )


def _sort(raw: Sequence[tuple[bytes, bytes]], *, http2: bool) -> _Sorted:
    if len(raw) > MAX_HEADERS:
        raise Ambiguous(f"The request has more than {MAX_HEADERS} header lines; send fewer.")
    fields = _Sorted()
    kept, seen, size = fields.kept, fields.seen, 0
    cookie_at = 0
    for raw_name, raw_value in raw:
        size += len(raw_name) + len(raw_value)
        if size > MAX_HEADER_BYTES:
            raise Ambiguous(f"The headers are larger than {MAX_HEADER_BYTES} bytes; send less.")
        name, kind = _classify(raw_name)
        if not _VALUE.fullmatch(raw_value):
            raise Ambiguous(_odd_value(name, raw_value))
        value = raw_value.strip(b" \t").decode("ascii")
        if kind is _Kind.SINGLE and name not in seen:
            seen.add(name)
            if name == "cookie":
                cookie_at = len(kept)
                fields.cookies.append(value)
            kept.append((name, value))
        elif kind is _Kind.LIST:
            seen.add(name)
            kept.append((name, value))
        elif kind is _Kind.READ and name not in seen:
            seen.add(name)
            fields.read[name] = value
        elif kind is _Kind.READ_LIST:
            fields.connection.append(value)
        elif name == "cookie" and http2:
            fields.cookies.append(value)
        elif kind is not _Kind.DROPPED:
            raise Ambiguous(f"The header {name} stands twice; send it once.")
    if len(fields.cookies) > 1:
        # HTTP/2 may split Cookie for compression; the pieces are one header (RFC 9113 8.2.3).
        kept[cookie_at] = ("cookie", "; ".join(filter(None, fields.cookies)))
    return fields


@lru_cache(maxsize=4096)
def _classify(raw: bytes) -> tuple[str, _Kind]:
    if not _NAME.fullmatch(raw):
        raise Ambiguous(_odd_name(raw))
    name = raw.decode("ascii").lower()
    if name in _REFUSED:
        raise Ambiguous(f"The header {name} would override the request; {_REFUSED[name]}.")
    if name == "connection":
        return name, _Kind.READ_LIST
    if name in _READ:
        return name, _Kind.READ
    if name in _DROPPED or name.startswith(_DROPPED_PREFIXES):
        return name, _Kind.DROPPED
    return name, _Kind.LIST if name in _LISTS else _Kind.SINGLE


def _check_framing(read: dict[str, str], http_version: str, body_length: int | None) -> int | None:
    """The Content-Length."""
    length = read.get("content-length")
    coding = read.get("transfer-encoding")
    if length is not None and coding is not None:
        raise Ambiguous("The request has both Content-Length and Transfer-Encoding; send one.")
    if coding is not None:
        if http_version != "HTTP/1.1":
            raise Ambiguous(f"Transfer-Encoding has no place in {http_version}; leave it out.")
        if coding != "chunked":
            raise Ambiguous("The Transfer-Encoding is not exactly `chunked`; send Content-Length.")
    if length is not None:
        if not _LENGTH.fullmatch(length):
            raise Ambiguous("The Content-Length is no plain decimal number; send the digits once.")
        if body_length is not None and int(length) != body_length:
            raise Ambiguous(
                f"The Content-Length does not match the body of {body_length} bytes; send its "
                "length in bytes."
            )
    return None if length is None else int(length)


def _connection_tokens(values: list[str]) -> frozenset[str]:
    if not values:
        return frozenset()
    tokens = set()
    for part in ",".join(values).split(","):
        token = part.strip(" \t").lower()
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise Ambiguous("The Connection header is no list of header names; leave it out.")
        if token in _END_TO_END or token.startswith(_END_TO_END_PREFIXES):
            raise Ambiguous(
                f"The Connection header names {shown(token)}, which belongs to the upstream; name "
                "only `close`, `keep-alive` or `upgrade`."
            )
        tokens.add(token)
    return frozenset(tokens)


def _upgrade(value: str | None, connection: frozenset[str]) -> str | None:
    if value is None:
        return None
    if value.lower() != "websocket":
        raise Ambiguous(
            "The Upgrade header asks for something other than `websocket`; leave it out."
        )
    if "upgrade" not in connection:
        raise Ambiguous("There is an Upgrade header without `Connection: upgrade`; send both.")
    return "websocket"


def _take_respond_async(kept: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bool]:
    """Takes the preference `respond-async` (RFC 7240 4.1) out; the others stay as they came."""
    found = False
    remaining: list[tuple[str, str]] = []
    for name, value in kept:
        if name == "prefer" and "respond-async" in value.lower():
            preferences = _split_list(value)
            others = [p for p in preferences if p.lower() != "respond-async"]
            if len(others) < len(preferences):
                found = True
                if others:
                    remaining.append((name, ", ".join(others)))
                continue
        remaining.append((name, value))
    return remaining, found


def _split_list(value: str) -> list[str]:
    """The elements of a comma-separated list, commas inside quoted strings aside."""
    parts, start, quoted, escaped = [], 0, False, False
    for at, character in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(value[start:at])
            start = at + 1
    if quoted:
        raise Ambiguous("The Prefer header has a quote that does not end; close it.")
    parts.append(value[start:])
    return [part.strip(" \t") for part in parts if part.strip(" \t")]


def _odd_name(raw: bytes) -> str:
    name = shown(raw.decode("latin-1"))
    if b"_" in raw:
        return f"The header name {name} holds `_`, which servers confuse with `-`; write `-`."
    if not raw or raw.startswith((b" ", b"\t")):
        return (
            "A header line begins with white space or has no name; write each header on one line."
        )
    return (
        f"The header name {name} is odd; a name is 1 to 128 letters, digits and hyphens, with no "
        "space before the colon."
    )


def _odd_value(name: str, raw: bytes) -> str:
    if b"\r" in raw or b"\n" in raw:
        return f"The header {name} holds a line break; write it on one line."
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        return f"The header {name} holds a control byte; leave it out."
    return f"The header {name} is not ASCII; percent-encode its text."
