"""Responses as they come from an upstream over HTTP/1, judged as the full engine judges them. Pure.

The judgement of heads and lengths is mitmproxy's, the reading of bodies h11's, in both engines;
heads of the plainest kind, which all read alike, are spared it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy.layers.http._http1 import make_body_reader

from proxy.http1 import INFORMATIONAL, MAX_INFORMATIONAL, MAX_RESPONSE_HEAD, connection_close
from proxy.translate import Fields


class Unreadable(ValueError):
    """What came is not a response that everybody would read alike, or not a whole one."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the length of a response depends on besides its own head."""

    method: str


class ReplyReader:
    """The responses on one connection, one after another: `begin`, `head`, then `body` until it
    says so."""

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._asked = _Asked("")
        self._body: Any = None
        self._response: http.Response | None = None
        self._skipped = 0
        self._until_eof = False
        self._stays = False
        """The head was plain, and says nothing of the connection."""
        self.trailers: Fields = []
        """Those behind a body that has ended."""

    def begin(self, method: bytes) -> None:
        """A request was sent. Raises Unreadable if something lies there already."""
        if self._buffer:
            raise Unreadable("a response before its request")
        self._asked = _Asked(method.decode("latin-1"))
        self._body = self._response = None
        self._skipped, self.trailers = 0, []

    def take(self, data: bytes) -> None:
        """More bytes came."""
        self._buffer += data

    def head(self) -> http.Response | None:
        """The response's head, once it is whole; informational ones are skipped."""
        if not self._buffer:
            return None
        while (start := bytes(self._buffer)[:16]).startswith(b"\r\n") or INFORMATIONAL.match(start):
            if self._buffer.maybe_extract_lines() is None:
                self._check_bounds()
                return None
            self._skipped += 1
            if self._skipped > MAX_INFORMATIONAL:
                raise Unreadable("too many informational responses")
        lines = self._buffer.maybe_extract_lines()
        if not lines:
            self._check_bounds()
            return None
        asked: Any = self._asked
        try:
            response = http1.read_response_head([bytes(line) for line in lines])
            plain = size = _plain_size(response) if self._asked.method in _PLAIN else None
            if plain is None:
                size = http1.expected_http_body_size(asked, response)
                validate_headers(response)
        except (ValueError, IndexError) as error:
            raise Unreadable("an odd head") from error
        self._body = make_body_reader(size)
        self._until_eof = size == -1
        self._stays = plain is not None
        self._response = response
        return response

    def body(self) -> bytes | None:
        """The next part of the body; empty at its end, None if it has yet to come."""
        return self._part(lambda: self._body(self._buffer))

    def parts(self) -> tuple[bytes, bool | Unreadable]:
        """All of the body that is here, joined (of many small chunks each would otherwise cost as
        much as a large one), and whether it has ended, or is odd behind that."""
        parts: list[bytes] = []
        while True:
            try:
                part = self.body()
            except Unreadable as odd:
                return b"".join(parts), odd
            if not part:
                return b"".join(parts), part is not None
            parts.append(part)

    def eof(self) -> bytes | None:
        """As `body`, when nothing more will come. Raises Unreadable if that is too early."""
        if self._body is None:
            raise Unreadable("no response")
        part = self.body()
        return part if part is not None else self._part(self._body.read_eof)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow, once the body is over."""
        response = self._response
        if response is None or self._until_eof or self._buffer:
            return False
        if self._stays:
            return True
        return not connection_close(response.http_version, response.headers)

    def _part(self, read: Any) -> bytes | None:
        while True:
            try:
                event = read()
            except h11.ProtocolError as error:
                raise Unreadable("an odd body") from error
            if event is None:
                self._check_bounds()
                return None
            if isinstance(event, h11.EndOfMessage):
                self.trailers = list(event.headers)
                return b""
            if event.data:
                return bytes(event.data)

    def _check_bounds(self) -> None:
        """Raises Unreadable if too much waits to make sense."""
        if len(self._buffer) > MAX_RESPONSE_HEAD:
            raise Unreadable("too much before it made sense")


_PLAIN = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
"""Methods whose responses have the length that they say."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")


def _plain_size(response: http.Response) -> int | None:
    """Bytes of the body, if the head says so in the plainest way; None: it is to be judged.

    In one look what mitmproxy takes four for: most heads are plain, and each call has one.
    """
    if response.status_code < 200 or response.status_code in (204, 304):
        return None
    if response.data.http_version != b"HTTP/1.1":
        return None
    size = None
    for name, value in response.headers.fields:
        lower = name.lower()
        if not _NAME.fullmatch(name) or lower in (b"transfer-encoding", b"connection"):
            return None
        if lower == b"content-length":
            if size is not None or not _LENGTH.fullmatch(value):
                return None
            size = int(value)
    return size
