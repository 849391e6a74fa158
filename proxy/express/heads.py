"""Heads of requests: the plainest kind as it comes from an agent, and as it goes upstream. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from proxy.http1 import MAX_HEAD
from proxy.translate import sent_fields
from rules.request import Request

MOST_BODY = 1024 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Python strips a vertical tab and a form feed from a value as if they were blanks.
_HEAD = re.compile(
    rb"("
    + _TOKEN
    + rb") (/[!-\xff]*) HTTP/1\.1\r\n((?:"
    + _TOKEN
    + rb":[^\r\n\x00\x0b\x0c]*\r\n)*)\r\n"
)
_FIELD = re.compile(rb"([^:\r\n]+):([^\r\n]*)\r\n")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,9}")
_BEYOND = frozenset(
    (
        b"expect",
        b"http2-settings",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers that ask for more than a plain exchange of two messages."""


@dataclass(frozen=True, slots=True)
class PlainHead:
    """A request's head as it arrived, of which everything is plain."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    length: int
    """Bytes of the body."""
    size: int
    """Bytes of the head itself."""
    close: bool
    """The agent will not use its connection again."""


def plain_head(data: bytes) -> PlainHead | None:
    """The head that `data` begins with; None if it is not whole or not plain."""
    found = _HEAD.match(data)
    if found is None or found.end() > MAX_HEAD:
        return None
    method, target, lines = found.groups()
    fields = tuple([(name, value.strip()) for name, value in _FIELD.findall(lines)])
    length, close = 0, False
    seen = False
    for name, value in fields:
        lower = name.lower()
        if lower in _BEYOND:
            return None
        if lower == b"content-length":
            if seen or not _LENGTH.fullmatch(value):
                return None
            seen, length = True, int(value)
        elif lower == b"connection":
            option = value.lower()
            if option not in (b"close", b"keep-alive"):
                return None
            close = close or option == b"close"
        elif lower == b"content-type" and value[:16].lower() == b"application/grpc":
            return None
    if length > MOST_BODY or method.upper() == b"CONNECT":
        return None
    return PlainHead(method, target, fields, length, found.end(), close)


def request_head(request: Request) -> bytes:
    """The head of exactly `request`, with `sent_fields`.

    Raises ValueError for what would not be one head, or has a body without a length;
    UnicodeEncodeError for a target that is not ASCII or a header that is not Latin-1.
    """
    if request.unread and request.length is None:
        raise ValueError("a body without a length")
    fields = sent_fields(request)
    first = f"{request.method} {request.target} HTTP/1.1\r\n"
    rest = "".join([f"{name}: {value}\r\n" for name, value in fields]) + "\r\n"
    if first.count("\n") != 1 or rest.count("\n") != len(fields) + 1:
        raise ValueError("a line break inside the head")
    if first.count("\r") != 1 or rest.count("\r") != len(fields) + 1:
        raise ValueError("a line break inside the head")
    return first.encode("ascii") + rest.encode("latin-1")
