"""HTTP/1 as mitmproxy speaks it, where that is not enough. Put in by `proxy.compat.install`.

The agent's side is bounded, timed and strict about heads; the upstream's skips informational
responses and is bounded; both know trailers, which stock crashes on.
"""

from __future__ import annotations

import re
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseProtocolError,
    ResponseTrailers,
)

from proxy import pages
from proxy.http2 import Commands, Drained, StopSending
from proxy.truncation import CutOff

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, and of whatever else must be kept before it makes sense; also of a
body that is kept though its head was refused, so that the sender is still there for the answer."""
MAX_RESPONSE_HEAD = 256 * 1024
MAX_INFORMATIONAL = 32


def connection_close(version: str | bytes, headers: http.Headers) -> bool:
    """Whether a message is the last one on its connection (RFC 9112 9.3, 9.6).

    Stock compares the options letter by letter, and waits for who said `Close` and means it.
    """
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    if "close" in options or "keep-alive" in options:
        return "close" in options
    return version not in ("HTTP/1.1", b"HTTP/1.1", "HTTP/2.0", b"HTTP/2.0")


def assembled(response: http.Response) -> bytes:
    """A response of our own as it goes over HTTP/1."""
    assembled: bytes = http1.assemble_response(response)  # type: ignore[no-untyped-call]
    return assembled


class _Reader:
    """A body reader that puts trailers aside: the stock one crashes on them, and hangs."""

    def __init__(self, inner: _http1.TBodyReader) -> None:
        self._inner = inner
        self.trailers: list[tuple[bytes, bytes]] = []

    def __call__(self, buffer: ReceiveBuffer) -> h11.Event | None:
        return self._without_trailers(self._inner(buffer))

    def read_eof(self) -> h11.Event | None:
        return self._without_trailers(self._inner.read_eof())

    def _without_trailers(self, event: Any) -> h11.Event | None:
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.trailers = list(event.headers)
            return h11.EndOfMessage()
        return event  # type: ignore[no-any-return]


# Python strips a vertical tab and a form feed from a value as if they were blanks.
_HEAD_END = re.compile(rb"\n\r?\n")
_STRICT_HEAD = re.compile(
    rb"[!-~]+ [!-\xff]+ HTTP/1\.[01]\r\n(?:[!-9;-~]+:[^\r\n\x00\x0b\x0c]*\r\n)*\r\n", re.DOTALL
)


class _Http1Trailers(_http1.Http1Connection):
    """Trailers over HTTP/1.1, which stock knows in neither direction (RFC 9112 7.1.2)."""

    _reader: _Reader
    _outgoing: http.Headers | None = None

    @property
    def body_reader(self) -> Any:
        return self._reader

    @body_reader.setter
    def body_reader(self, reader: _http1.TBodyReader) -> None:
        self._reader = _Reader(reader)

    def read_body(self, event: events.Event) -> Commands:
        for command in super().read_body(event):
            if (
                isinstance(command, ReceiveHttp)
                and isinstance(command.event, self.ReceiveEndOfMessage)
                and self._reader.trailers
            ):
                trailers = http.Headers(self._reader.trailers)
                kind = RequestTrailers if isinstance(self, Http1Server) else ResponseTrailers
                yield ReceiveHttp(kind(command.event.stream_id, trailers))
            yield command

    def _send(self, event: HttpEvent, message: http.Message | None) -> Commands:
        """As stock, and trailers at the end of a chunked body; elsewhere they have no place."""
        if isinstance(event, RequestTrailers | ResponseTrailers):
            if message is not None and "chunked" in message.headers.get("transfer-encoding", ""):
                self._outgoing = event.trailers
            return
        if isinstance(event, RequestEndOfMessage | ResponseEndOfMessage) and self._outgoing:
            lines = b"".join(b"%s: %s\r\n" % pair for pair in self._outgoing.fields)
            self._outgoing = None
            yield commands.SendData(self.conn, b"0\r\n" + lines + b"\r\n")
            is_request = isinstance(event, RequestEndOfMessage)
            yield from self.mark_done(request=is_request, response=not is_request)
            return
        yield from super().send(event)


class Http1Server(_Http1Trailers, _http1.Http1Server):
    """The agent's side of HTTP/1: bounded, timed and strict about the head."""

    _awaited: int | None = None
    """The stream id of a head that has begun to arrive."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup):
            if self.state == self.read_headers and self._awaited == self.stream_id:
                yield from self._refuse(pages.HEAD_TOO_SLOW)
            return
        yield from super()._handle_event(event)
        # Stock keeps whatever comes while a call is held, or a chunk header that never ends.
        if (
            isinstance(event, events.DataReceived)
            and self.state not in (self.passthrough, self.done)
            and len(self.buf) > MAX_HEAD
        ):
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(
                RequestProtocolError(self.stream_id, "", ErrorCode.CLIENT_DISCONNECTED)
            )

    def send(self, event: HttpEvent) -> Commands:
        # Of a request that was answered early the rest is read and dropped, as closing at once
        # could take the answer away from an agent that still writes.
        if not isinstance(event, StopSending | Drained):
            yield from self._send(event, self.response)

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        # Stock goes on to what was pipelined, on a connection that we have closed already.
        if self.state != self.done:
            yield from super().mark_done(request=request, response=response)

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        if isinstance(event, events.DataReceived):
            head = bytes(self.buf)
            while head.startswith(b"\r\n"):  # RFC 9112 2.2; stock drops it and then waits for more
                self.buf.maybe_extract_at_most(2)
                head = head[2:]
            end = _HEAD_END.search(head)
            if (end.end() if end else len(head)) > MAX_HEAD:
                yield from self._refuse(pages.HEAD_TOO_LONG)
                return
            if end is None:
                if head and self._awaited != self.stream_id:
                    self._awaited = self.stream_id
                    yield commands.RequestWakeup(self.context.options.head_timeout)
                return
            if not _STRICT_HEAD.fullmatch(head, 0, end.end()):
                yield from self._refuse(pages.ODD_HEAD)
                return
        refused = False
        for command in super().read_headers(event):
            # Stock shows a head that it has refused to the stream, which then answers once more.
            if not (refused and isinstance(command, ReceiveHttp)):
                yield command
            refused = refused or isinstance(command, commands.CloseConnection)

    def _refuse(self, sentence: str) -> Commands:
        response = pages.page("request_ambiguous", sentence)
        response.headers["connection"] = "close"
        yield commands.SendData(self.conn, assembled(response))
        yield commands.CloseConnection(self.conn)
        self.state = self.done


INFORMATIONAL = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r\n]")


class Http1Client(_Http1Trailers, _http1.Http1Client):
    """The upstream's side of HTTP/1: skips 1xx (stock loses the real response), bounds heads, and
    a cut connection is no end of a body."""

    _skipped = 0

    def _handle_event(self, event: events.Event) -> Commands:
        for command in super()._handle_event(event):
            yield command
            # Stock goes on after an odd head, and tells of the same failure when the upstream has
            # closed as well; the exchange is over by then, and the second telling is a fault.
            if type(command) is commands.CloseConnection:
                self.state = self.done
        if (
            isinstance(event, events.DataReceived)
            and self.state not in (self.passthrough, self.done)
            and len(self.buf) > MAX_RESPONSE_HEAD
        ):
            yield from self._break("too much before it made sense")

    def send(self, event: HttpEvent) -> Commands:
        if isinstance(event, RequestHeaders):
            self._skipped = 0
            # Without this a body of unknown length, which HTTP/2 allows, would have no end.
            if not event.end_stream and "content-length" not in event.request.headers:
                event.request.headers["transfer-encoding"] = "chunked"
        yield from self._send(event, self.request)

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        if isinstance(event, events.DataReceived) and self.request:
            while (start := bytes(self.buf)[:16]).startswith(b"\r\n") or INFORMATIONAL.match(start):
                if self.buf.maybe_extract_lines() is None:
                    return
                self._skipped += 1
                if self._skipped > MAX_INFORMATIONAL:
                    yield from self._break("too many informational responses")
                    return
        yield from super().read_headers(event)

    def read_body(self, event: events.Event) -> Commands:
        if isinstance(event, CutOff) and not self.response_done:
            yield from self._break("cut off")
        else:
            yield from super().read_body(event)

    def _break(self, why: str) -> Commands:
        self.state = self.done
        yield commands.CloseConnection(self.conn)
        if self.stream_id is not None:
            yield ReceiveHttp(
                ResponseProtocolError(self.stream_id, why, ErrorCode.GENERIC_SERVER_ERROR)
            )
