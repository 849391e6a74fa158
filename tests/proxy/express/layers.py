"""The full engine's readers of HTTP/1 by themselves, without sockets: what they make of bytes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from proxy import compat
from proxy.http1 import Http1Client, Http1Server

Fields = tuple[tuple[bytes, bytes], ...]


def _context() -> Context:
    compat.install()
    options: Any = compat.CoreOptions(body_size_limit="1048576", tcp_timeout=1, head_timeout=1.0)
    agent = Client(
        peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=time.time()
    )
    context = Context(agent, options)
    agent.state = context.server.state = ConnectionState.OPEN
    return context


@dataclass(frozen=True)
class ReadRequest:
    """A request that was read whole; None where it was not, or was refused."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes


def request(data: bytes) -> ReadRequest | None:
    """The first request of a connection."""
    layer = Http1Server(_context())
    head: http.Request | None = None
    body, whole = b"", False
    for event in (events.Start(), events.DataReceived(layer.context.client, data)):
        for command in layer.handle_event(event):
            received = command.event if isinstance(command, ReceiveHttp) else None
            if isinstance(received, RequestHeaders):
                head = received.request
            elif isinstance(received, RequestData):
                body += received.data
            elif isinstance(received, RequestEndOfMessage):
                whole = True
    if head is None or not whole:
        return None
    try:
        validate_headers(head)  # as the stream above does
    except ValueError:
        return None
    if head.data.scheme or head.data.authority:
        return None  # not origin form
    return ReadRequest(head.data.method, head.data.path, head.headers.fields, body)


@dataclass(frozen=True)
class Judgement:
    """What became of a response."""

    head: tuple[int, bytes, Fields] | None = None
    body: bytes = b""
    trailers: Fields = ()
    end: str = "waiting"
    """whole, broken, or waiting for more."""
    reusable: bool = False


def response(method: str, pieces: Sequence[bytes], *, eof: bool = False) -> Judgement:
    """The response to a request by `method`, as its bytes come; `eof`: nothing follows them."""
    context = _context()
    layer, server = Http1Client(context), context.server
    asked = http.Request.make(method, "https://localhost/")
    sent = [events.Start(), RequestHeaders(1, asked, True), RequestEndOfMessage(1)]
    for event in sent:
        list(layer.handle_event(event))
    found, closed = Judgement(reusable=True), False
    for piece in pieces:
        for command in layer.handle_event(events.DataReceived(server, piece)):
            found = _told(found, command)
            closed = closed or isinstance(command, commands.CloseConnection)
        if closed or found.end == "broken":
            break
    if eof and found.end == "waiting":
        server.state &= ~ConnectionState.CAN_READ
        for command in layer.handle_event(events.ConnectionClosed(server)):
            found = _told(found, command)
            closed = closed or isinstance(command, commands.CloseConnection)
    switched = found.head is not None and found.head[0] == 101  # which is another protocol
    reusable = found.end == "whole" and not (closed or eof or switched)
    return dataclasses.replace(found, reusable=reusable)


def _told(found: Judgement, command: object) -> Judgement:
    received = command.event if isinstance(command, ReceiveHttp) else None
    if found.end != "waiting":
        return found
    if isinstance(received, ResponseHeaders):
        message = received.response
        try:
            validate_headers(message)  # as the stream above does
        except ValueError:
            return dataclasses.replace(found, end="broken")
        head = (message.status_code, message.data.reason, message.headers.fields)
        return dataclasses.replace(found, head=head)
    if isinstance(received, ResponseData):
        return dataclasses.replace(found, body=found.body + received.data)
    if isinstance(received, ResponseTrailers):
        return dataclasses.replace(found, trailers=received.trailers.fields)
    if isinstance(received, ResponseEndOfMessage):
        return dataclasses.replace(found, end="whole")
    if isinstance(received, ResponseProtocolError):
        return dataclasses.replace(found, end="broken")
    return found
