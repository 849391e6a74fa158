"""One exchange in mitmproxy's core: the states in which stock would pass on what nobody cleared.

A response passes only when the `responseheaders` hook has cleared it; trailers only once they were
looked at; error pages are ours. A fault inside the layer ends the exchange instead of leaving the
agent to wait. Put in by `proxy.compat.install`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import mitmproxy.proxy.layers.http as http_layers
from mitmproxy import flow as mitm_flow
from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http2 import Http2Connection

from proxy import http2, pages
from proxy.exchange import Exchange, Wire, attach
from proxy.http1 import MAX_HEAD
from proxy.http2 import Commands, Drained, StopSending
from proxy.translate import takes_trailers


class Stream(http_layers.HttpStream):
    """In the place of mitmproxy's own."""

    exchange: Exchange

    def handle_event(self, event: events.Event) -> Commands:
        # A reset HTTP/2 stream is otherwise seen only after the `request` hook has returned.
        if isinstance(event, RequestProtocolError) and hasattr(self, "exchange"):
            self.exchange.gone.set()
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        try:
            if isinstance(event, events.Wakeup):
                yield from self._translated(self._give_up())
            else:
                yield from self._translated(super()._handle_event(event))
        except Exception:  # noqa: BLE001 - whatever breaks, the agent gets an answer and no more
            yield from self._translated(self._crash())

    def _translated(self, generator: Commands) -> Commands:
        """Passes commands on; replaces error pages, and notes what went out on which side."""
        reply = None
        while True:
            try:
                command = generator.send(reply)
            except StopIteration:
                return
            reply = None
            if not isinstance(command, http_layers.SendHttp):
                if isinstance(command, http_layers.DropStream):
                    self.exchange.on_end()
                reply = yield command
            elif command.connection == self.context.client:
                yield from self._to_client(command)
            else:
                if isinstance(command.event, RequestHeaders):
                    self.exchange.sent = True
                    self.exchange.moved = time.monotonic()
                elif isinstance(command.event, RequestEndOfMessage):
                    self.exchange.asked = True
                    self.exchange.moved = time.monotonic()
                yield command

    def _to_client(self, command: http_layers.SendHttp) -> Commands:
        event: HttpEvent = command.event
        exchange = self.exchange
        if isinstance(event, ResponseProtocolError):
            status = event.code.http_status_code()
            if status is not None and not exchange.answered:
                yield from self._send_page(status)
                return
            yield command
            exchange.on_end()
            return
        if isinstance(event, ResponseHeaders) and event.response.status_code != 100:
            exchange.answered = True
        yield command
        if isinstance(event, ResponseEndOfMessage):
            exchange.on_end()

    def _send_page(self, status: int) -> Commands:
        """In place of mitmproxy's HTML; the connection lives on if the request was read whole."""
        response = self.exchange.page or pages.of_core(status)
        complete = self.client_state == self.state_done
        response.headers.pop("connection", None)
        if not complete and not self.flow.request.is_http2:
            response.headers["connection"] = "close"
        body = b"" if self.exchange.wire.method == b"HEAD" else response.raw_content
        self.exchange.answered = True
        client = self.context.client
        for event in (
            ResponseHeaders(self.stream_id, response, not body),
            *([ResponseData(self.stream_id, body)] if body else []),
            ResponseEndOfMessage(self.stream_id),
        ):
            yield http_layers.SendHttp(event, client)
        if not complete and not self.flow.request.is_http2:
            closing = ResponseProtocolError(self.stream_id, "", ErrorCode.GENERIC_CLIENT_ERROR)
            yield http_layers.SendHttp(closing, client)
        self.exchange.on_end()

    def _crash(self) -> Commands:
        self.client_state = self.server_state = self.state_errored
        if not hasattr(self, "flow"):
            return
        self.flow.error = mitm_flow.Error("fault in the engine")
        yield HttpErrorHook(self.flow)
        if self.exchange.sent:
            yield from self._hang_up()
        yield http_layers.SendHttp(
            ResponseProtocolError(self.stream_id, "", ErrorCode.GENERIC_SERVER_ERROR),
            self.context.client,
        )
        self.flow.live = False
        yield http_layers.DropStream(self.stream_id)

    def make_server_connection(self) -> Generator[commands.Command, Any, bool]:
        # Stock remembers a failure for as long as the agent's connection lasts, and does not try
        # again.
        layer = self._layer()
        for connection in layer.connections:
            if connection not in layer.waiting_for_establishment:
                connection.error = None
        return (yield from super().make_server_connection())

    def _giving_up(self) -> events.Event:
        """The event that ends this exchange: the core finds its way by the command it answers."""
        command = commands.RequestWakeup(0)
        stack = self.context.layers
        for at, layer in enumerate(stack[:-1]):
            if isinstance(layer, http_layers.HttpLayer):
                layer.command_sources[command] = stack[at + 1]
        return events.Wakeup(command)

    def _give_up(self) -> Commands:
        """The upstream takes too long."""
        if self.server_state in (self.state_done, self.state_errored):
            return
        yield from self._hang_up()
        late = ResponseProtocolError(self.stream_id, "too late", ErrorCode.GENERIC_SERVER_ERROR)
        yield from self.handle_protocol_error(late)

    def _hang_up(self) -> Commands:
        """Drops the rest of the upstream's response: closes HTTP/1, resets the HTTP/2 stream."""
        yield http_layers.SendHttp(
            RequestProtocolError(self.stream_id, "", ErrorCode.CANCEL), self.context.server
        )

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands:
        # The hooks see the target only after mitmproxy has emptied or rewritten parts of it.
        self.exchange = Exchange(
            Wire.of(event.request),
            has_body=not event.end_stream,
            takes_trailers=event.request.is_http2 or takes_trailers(event.request.headers),
            backlog=self._backlog,
            upload_backlog=self._upload_backlog,
            give_up=self._giving_up,
        )
        event.replay_flow = http.HTTPFlow(self.context.client, self.context.server)
        attach(event.replay_flow, self.exchange)
        yield from super().state_wait_for_request_headers(event)
        if self.exchange.has_body:
            yield http_layers.SendHttp(Drained(self.stream_id), self.context.client)

    def check_killed(self, emit_error_hook: bool) -> Generator[commands.Command, Any, bool]:
        if (yield from super().check_killed(emit_error_hook)):
            return True
        # Asked when the hook has seen the head. Stock goes on and asks for the body of a request
        # that was refused already, and looks at its length before it is known whether it streams.
        if self.client_state != self.state_wait_for_request_headers or self.exchange.streaming:
            return False
        if self.exchange.page is not None and "expect" in self.flow.request.headers:
            yield from self._refuse_unread(ErrorCode.GENERIC_CLIENT_ERROR)
            return True
        if self.exchange.has_body and self._announced() > self._most():
            self.flow.error = mitm_flow.Error("body too large")
            yield HttpErrorHook(self.flow)
            yield from self._refuse_unread(ErrorCode.REQUEST_TOO_LARGE)
            return True
        return False

    def _announced(self) -> int:
        """Bytes of the body by the head; 0 if it does not say."""
        try:
            size: int | None = http1.expected_http_body_size(self.flow.request)
        except ValueError:
            return 0  # an odd length is refused later, with a sentence
        return size or 0

    def _most(self) -> int:
        return int(self.context.options.body_size_limit)

    def _refuse_unread(self, code: ErrorCode) -> Commands:
        self.client_state = self.server_state = self.state_errored
        refused = ResponseProtocolError(self.stream_id, "", code)
        yield http_layers.SendHttp(refused, self.context.client)
        self.flow.live = False

    def check_body_size(self, request: bool) -> Generator[commands.Command, Any, bool]:
        # Responses are streamed and may be of any size; stock limits them by the same option.
        # So may requests be, which is decided after the first time that this is asked.
        if not request or not self.request_body_buf:
            return False
        if self.exchange.page is None or len(self.request_body_buf) <= MAX_HEAD:
            return (yield from super().check_body_size(True))
        # Refused by its head: stock would take in the rest first, from anybody.
        yield from self._refuse_unread(ErrorCode.GENERIC_CLIENT_ERROR)
        return True

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands:
        # As stock, but nothing passes unless the hook has cleared it: stock forwards the response
        # when a hook raises, and delivers the upstream's body with a response set by the hook.
        self.flow.response = event.response
        if (yield from self.check_invalid(False)):
            return
        self.exchange.cleared = False
        self.exchange.headed = True
        self.exchange.moved = time.monotonic()
        yield HttpResponseHeadersHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        if not self.exchange.cleared:
            yield from self._withdraw()
        elif event.end_stream:
            self.server_state = self.state_consume_response_body
        else:
            yield from self.start_response_stream()

    def _withdraw(self) -> Commands:
        yield from self._hang_up()
        page = self.exchange.page
        if page is None:
            self.exchange.faulty = True
            page = pages.page("response_refused", pages.UNSAFE_RESPONSE)
        if self.exchange.wire.method == b"HEAD":
            page.content = None
        self.flow.response = page
        yield from self.send_response()
        self.client_state = self.server_state = self.state_errored
        self._paused_event_queue.clear()  # the rest of the response, which nobody waits for

    def state_stream_request_body(self, event: events.Event) -> Commands:
        if isinstance(event, RequestTrailers):
            if self.exchange.check_trailers is None:
                raise ValueError("trailers of a body that nobody can check")
            event.trailers = self.exchange.check_trailers(event.trailers)
        # As below, an empty DATA frame is not the end.
        if not isinstance(event, RequestData) or event.data:
            yield from super().state_stream_request_body(event)

    def send_response(self, already_streamed: bool = False) -> Commands:
        yield from super().send_response(already_streamed)
        if self.client_state == self.state_stream_request_body:
            yield from self._answered_early()

    def _answered_early(self) -> Commands:
        """The response is whole and the request is not: stock would go on sending it, and tell the
        agent of the response's end only after that."""
        self.client_state = self.server_state = self.state_errored
        yield from self._hang_up()
        yield http_layers.SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield http_layers.SendHttp(StopSending(self.stream_id), self.context.client)
        self.flow.live = False
        yield http_layers.DropStream(self.stream_id)

    def state_stream_response_body(self, event: events.Event) -> Commands:
        # An empty DATA frame in mid-body must not look like the end that the callable is told of.
        empty = isinstance(event, ResponseData) and not event.data
        if isinstance(event, ResponseTrailers):
            self.exchange.trailers = event.trailers  # for the `response` hook to look at first
        elif not empty:
            yield from super().state_stream_response_body(event)

    def state_consume_response_body(self, event: events.Event) -> Commands:
        if not isinstance(event, ResponseTrailers):
            yield from super().state_consume_response_body(event)

    def _backlog(self) -> int:
        connection = self._connection(self.context.client)
        if connection is None:
            return 0
        buffers = connection.h2_conn.stream_buffers.values()
        return sum(len(part.data) for buffer in buffers for part in buffer)

    def _upload_backlog(self) -> int:
        connection = self._connection(self.context.server)
        return (
            connection.waiting(self.stream_id) if isinstance(connection, http2.Http2Client) else 0
        )

    def _layer(self) -> http_layers.HttpLayer:
        layer = self.context.layers[self.context.layers.index(self) - 1]
        assert isinstance(layer, http_layers.HttpLayer)
        return layer

    def _connection(self, of: Connection) -> Http2Connection | None:
        """The HTTP/2 side of a connection; None if it is HTTP/1."""
        layer = self._layer()
        # A connection to an upstream is the last of a stack: TLS, then the protocol.
        found: Any = layer.connections.get(of)
        while found is not None and not isinstance(found, Http2Connection):
            found = getattr(found, "child_layer", None)
        return found
