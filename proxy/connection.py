"""One agent's connection: the hooks of mitmproxy's core, and law 1 in them.

A refusal is set before anything is decided and lifted last: whatever raises, hangs, is cancelled or
makes no sense in between leaves it in place, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import events, layer, layers, mode_specs, tunnel
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.tls import ClientHelloData, TlsData

from broker.errors import Refusal
from broker.model import Client
from broker.refusals import as_origin
from proxy import gateway, http2, pages, translate
from proxy.chain import SAID, stack_to, tunnel_below
from proxy.compat import Watchdog
from proxy.exchange import Exchange, exchange_of
from proxy.faults import report
from proxy.handler import Handler
from proxy.patience import Dials
from proxy.ports import Answer, Passage, Tunnel, is_answer, is_passage
from proxy.setup import Entered, Setup
from proxy.truncation import UpstreamTls
from rules.errors import Ambiguous
from rules.request import RawRequest, Request

_MODE = mode_specs.ProxyMode.parse("regular")
_HIGH_WATER = 1024 * 1024
"""Bytes that may wait for one agent's HTTP/2 windows before the upstream is read no further."""
_READ = 65536
"""Bytes, at most, that the core reads at once."""
_MOST_CHAINED = 100
"""Connections that one agent's connection may have open through the proxy on the way out."""
_SNI = 0
"""The TLS extension server_name (RFC 6066)."""


class ResponseRefused(Exception):
    """The passage found in mid-body that the response cannot be passed on."""


class AgentConnection(Handler):
    """Handles one connection from an agent, with its connections to upstreams."""

    def __init__(
        self,
        setup: Setup,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        entered: Entered | None = None,
    ) -> None:
        """`entered`: what another lane found out before it handed the connection over."""
        super().__init__(reader, writer, setup.options, _MODE)
        self._entered = entered
        self._outer_tls = False
        self._begin_layers(writer)
        # Stock: 5, so that the sixth call at a time over HTTP/2 waits, where the upstream speaks
        # HTTP/1. Streams are limited already.
        self.max_conns = defaultdict(lambda: asyncio.Semaphore(http2.MOST_STREAMS))
        self.setup = setup
        self.live: set[Exchange] = set()
        """Exchanges that have begun and are not answered yet."""
        self.unattended: Client | None = None
        """Whose tunnel or WebSocket this is, which no call's decision looks at any more."""
        self._revoked = False
        self._agent = None if entered is None else entered.agent
        self._connect = None if entered is None else entered.place
        self._sni = None if entered is None else entered.sni
        self._tunnel: Tunnel | None = None
        self._socket: Exchange | None = None
        self._passed = [0, 0]
        self._taken = 0
        """Bytes, at most, that came while heads were being decided."""
        self._endings: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        chain = setup.options.chain
        self._dials = Dials(setup.timeouts, self._hang_up, chain)
        if chain is not None:
            self.layer.context.server.via = chain.via  # type: ignore[assignment]
            # Stock lets five connections be open to one address; here that is to all upstreams.
            self.max_conns[chain.place] = asyncio.Semaphore(_MOST_CHAINED)
        self.timeout_watchdog = Watchdog(setup.timeouts.idle, self.on_timeout, self._at_upstream)
        self._hooks = {
            "client_connected": self._client_connected,
            "client_disconnected": self._client_disconnected,
            "server_connect": lambda data: self._dials.begun(data.server),
            "server_connect_error": lambda data: self._dials.failed(data.server),
            "server_connected": lambda data: self._dials.connected(data.server),
            "server_disconnected": lambda data: self._dials.over(data.server),
            "tls_established_server": lambda data: self._dials.established(data.conn),
            "next_layer": self._next_layer,
            "http_connect": self._http_connect,
            "tls_clienthello": self._tls_clienthello,
            "tls_start_client": setup.tls.for_agent,
            "tls_start_server": self._tls_start_server,
            "tls_failed_server": lambda data: self._dials.not_established(data.conn),
            "tls_established_client": self._tls_established_client,
            "requestheaders": self._requestheaders,
            "request": self._request,
            "responseheaders": self._responseheaders,
            "response": self._response,
            "error": self._error,
            "websocket_end": self._websocket_end,
        }

    def _begin_layers(self, writer: asyncio.StreamWriter) -> None:
        """The lowest of the core's layers, by what is known of the connection already."""
        context, entered = self.layer.context, self._entered
        if entered is None:
            outer = writer.get_extra_info("ssl_object")
            self._outer_tls = outer is not None
            if outer is not None and outer.selected_alpn_protocol() == "h2":
                self.client.alpn = b"h2"
            self.layer = layers.modes.HttpProxy(context)
            return
        context.server.address = entered.place
        if entered.encrypted:
            self.layer = layer.NextLayer(context)
            return
        self.client.tls = context.server.tls = True
        self.client.timestamp_tls_setup = time.time()
        self.client.sni = entered.sni
        self.layer = layers.HttpLayer(context, HTTPMode.transparent)

    @property
    def watched(self) -> Client | None:
        """Whose tunnel, WebSocket or streaming body this is: no decision looks at it any more."""
        if self.unattended is not None:
            return self.unattended
        passing = (x.agent for x in self.live if x.streaming or x.answered)
        return next(passing, None)

    # -- what mitmproxy's core calls

    def failed_hook(self, name: str, error: BaseException) -> None:
        report(f"the {name} hook", error)

    async def server_event(self, event: events.Event) -> None:
        if self._tunnel is not None and isinstance(event, events.DataReceived):
            self._passed[event.connection is not self.client] += len(event.data)
        await super().server_event(event)

    async def drain_writers(self) -> None:
        await super().drain_writers()
        # The core buffers without limit what an HTTP/2 agent's window does not admit. The agent's
        # own side must go on being read, since the window opens there.
        own = self.transports.get(self.client)
        if own is None:
            return
        if asyncio.current_task() is own.handler:
            await self._throttle_uploads()
            return
        while self.live and max(x.backlog() for x in self.live) > _HIGH_WATER:
            await asyncio.sleep(0.005)

    async def _throttle_uploads(self) -> None:
        """An HTTP/1 agent is read no further while more than enough of a body waits for its head to
        be decided. (Those of HTTP/2 have windows.)"""
        if not any(exchange.deciding for exchange in self.live):
            self._taken = 0
        elif self.client.alpn != b"h2":
            self._taken += _READ
            while self._taken > _HIGH_WATER and any(x.deciding for x in self.live):
                await asyncio.sleep(0.005)

    def log(
        self,
        message: str,
        level: int = logging.INFO,
        exc_info: Any = None,
    ) -> None:
        """The core's own messages quote what agents and upstreams sent: only faults are told."""
        if level >= logging.ERROR:
            _, error, _ = exc_info if isinstance(exc_info, tuple) else (None, None, None)
            report("the protocol core", error)
            self.cut()  # or the agent would wait for ever

    def cut(self) -> None:
        """Closes the connection; bytes already written are still delivered."""
        transport = self.transports.get(self.client)
        if transport is not None and transport.handler is not None:
            transport.handler.cancel("closed by Keybroker")

    def revoke(self) -> None:
        """Closes the connection, as its agent is no longer known."""
        self._revoked = True
        self.cut()

    def give_up_late(self) -> None:
        """Ends the calls whose upstream takes too long; to be called about once a second."""
        limits, now = self.setup.timeouts, time.monotonic()
        for exchange in tuple(self.live):
            stage = exchange.overdue(now, first_byte=limits.first_byte, idle=limits.idle)
            if stage is not None and exchange.give_up is not None:
                ending = asyncio.create_task(self.server_event(exchange.give_up()))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    def _at_upstream(self) -> bool:
        """Whether a call is at its upstream, which has clocks of its own."""
        return any(exchange.sent for exchange in self.live)

    def _hang_up(self, server: Server) -> None:
        transport = self.transports.get(server)
        if transport is not None and transport.handler is not None:
            transport.handler.cancel("too slow")

    # -- the connection

    def _client_connected(self, _: object) -> None:
        if self._entered is None or self._entered.encrypted:
            self._watch()

    async def _client_disconnected(self, _: object) -> None:
        self._unwatch()
        for exchange in tuple(self.live):
            exchange.gone.set()
        if self._socket is not None:
            await self._end_socket(self._socket)
        if self._tunnel is not None:
            await self._tunnel.closed(*self._passed)

    def _watch(self) -> None:
        """The first head, or the TLS handshake, must be whole in time."""
        self._unwatch()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.setup.timeouts.head, self.cut)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_layer(self, next_layer: layer.NextLayer) -> None:
        """HTTP, or TLS inside CONNECT with HTTP in it. There is no third: no raw TCP, no DNS."""
        context = next_layer.context
        stack = [type(one) for one in context.layers]
        if stack == [layers.modes.HttpProxy]:
            next_layer.layer = layers.HttpLayer(context, HTTPMode.regular)
            return
        data: bytes = next_layer.data_client()  # type: ignore[no-untyped-call]
        in_tls = any(issubclass(one, layers.ClientTLSLayer) for one in stack)
        if not in_tls and data[:1] == b"\x16" and len(data) < 3:
            return  # too little to tell
        if not in_tls and starts_like_tls_record(data):
            pile = tunnel.LayerStack()
            if self.setup.options.chain is not None:
                pile /= stack_to(context)
            pile /= UpstreamTls(context)
            pile /= layers.ClientTLSLayer(context)
            next_layer.layer = pile[0]
            return
        next_layer.layer = layers.HttpLayer(context, HTTPMode.transparent)

    def _http_connect(self, flow: http.HTTPFlow) -> None:
        flow.response = pages.page("internal_error", pages.NOTHING_SENT)
        self._unwatch()
        wire = exchange_of(flow).wire
        try:
            agent = self._authenticate(flow)
            host, port = translate.connect_target(flow.request, wire)
        except (Refusal, Ambiguous) as error:
            response = self._refusal(error, wire)
            if response.status_code >= 300:  # a 2xx would open the tunnel
                flow.response = response
            return
        self._agent, self._connect = agent, (host, port)
        flow.request.data.host, flow.request.data.port = host, port
        self._watch()
        flow.response = None

    def _authenticate(self, flow: http.HTTPFlow) -> Client:
        values = [
            value.decode("latin-1")
            for name, value in flow.request.headers.fields
            if name.lower() == b"proxy-authorization"
        ]
        agent = self.setup.pipeline.authenticate(values)
        if not isinstance(agent, Client):
            raise TypeError("authenticate gave no Client")
        return agent

    def _identify(self, flow: http.HTTPFlow, exchange: Exchange) -> Client:
        """Who makes a call outside any tunnel: through the proxy in clear text, or the gateway."""
        if not gateway.asked(exchange.wire):
            return self._authenticate(flow)
        door = gateway.Door.of(self.client.sockname, tls=self._outer_tls, names=self.setup.names)
        claim = gateway.read(exchange.wire, flow.request.headers.fields, door)
        try:
            agent = self.setup.pipeline.identify(claim.agent, claim.token)
        except Refusal as refusal:
            as_origin(refusal)
            raise
        if not isinstance(agent, Client):
            raise TypeError("identify gave no Client")
        gateway.refuse_strays(claim)
        exchange.claim = claim
        return agent

    # -- TLS and tunnels

    async def _tls_clienthello(self, data: ClientHelloData) -> None:
        hello = data.client_hello
        self._sni = hello.sni
        if hello.sni is None and any(kind == _SNI for kind, _ in hello.extensions):
            self._sni = "?"  # a name that cannot be read is not the same as none
        if self._agent is None or self._connect is None:
            raise RuntimeError("TLS before CONNECT")
        host, port = self._connect
        if self._sni is None or self._sni.lower() != host:
            return
        tunnel = None if self._entered is None else self._entered.tunnel
        if tunnel is None:
            tunnel = await self.setup.pipeline.tunnel(self._agent, host, port, self._sni)
        if tunnel is None:
            return
        if not isinstance(tunnel, Tunnel):
            raise TypeError("tunnel gave no Tunnel")
        self._unwatch()
        self._tunnel = tunnel
        self.unattended = self._agent
        data.ignore_connection = True

    def _tls_start_server(self, data: TlsData) -> None:
        self.setup.tls.for_upstream(data)
        server = data.conn
        if isinstance(server, Server) and server.via is not None:
            carrier = tunnel_below(data.context)
            if carrier is not None:
                self._dials.chained(server, carrier)

    def _tls_established_client(self, _: TlsData) -> None:
        self._unwatch()

    # -- one call

    async def _requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.response = pages.page("internal_error", pages.NOTHING_SENT)
        self._unwatch()
        exchange = exchange_of(flow)
        self.live.add(exchange)
        exchange.on_end = lambda: self.live.discard(exchange)
        if self._connect is None:
            try:
                self._identify(flow, exchange)
            except (Refusal, Ambiguous) as error:
                # Of what a stranger sends after this head little is kept.
                exchange.page = self._refusal(error, exchange.wire)
                return
        if exchange.has_body:
            exchange.deciding = True
            try:
                await self._begin(flow, exchange)
            finally:
                exchange.deciding = False

    async def _begin(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Lets the call out on its head alone, where that decides it."""
        try:
            agent, raw = self._read(flow, exchange, unread=True)
        except (Refusal, Ambiguous):
            return  # said when the request is whole
        outcome = await self.setup.pipeline.begin(agent, raw)
        if outcome is None:
            return
        exchange.agent = agent
        if is_passage(outcome) and isinstance(outcome.request, Request):
            await self._lift(flow, exchange, outcome)
            if exchange.passage is None:
                exchange.page = flow.response
        elif is_answer(outcome):
            exchange.page = flow.response = self._answer(outcome, exchange)
        else:
            raise TypeError("begin gave neither an Answer nor a Passage")

    def _read(
        self, flow: http.HTTPFlow, exchange: Exchange, *, unread: bool = False
    ) -> tuple[Client, RawRequest]:
        """Who asks, and what. Raises Refusal, Ambiguous."""
        agent = self._agent if self._connect else self._identify(flow, exchange)
        if agent is None:
            raise RuntimeError("a tunnel without an agent")
        wire, claim = exchange.wire, exchange.claim
        if claim is not None:
            return agent, translate.gateway_request(flow, wire, claim, unread=unread)
        raw = translate.raw_request(flow, wire, self._connect, self._sni, unread=unread)
        return agent, raw

    async def _request(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        wire = exchange.wire
        if exchange.streaming:
            return  # its end; it was decided by its head
        if exchange.page is not None:
            flow.response = exchange.page
            return
        try:
            agent, raw = self._read(flow, exchange)
        except (Refusal, Ambiguous) as error:
            flow.response = self._refusal(error, wire)
            return
        outcome = await self.setup.pipeline.handle(agent, raw, exchange.gone)
        exchange.agent = agent
        if is_passage(outcome) and isinstance(outcome.request, Request):
            await self._lift(flow, exchange, outcome)
        elif is_answer(outcome):
            flow.response = self._answer(outcome, exchange)
        else:
            raise TypeError("handle gave neither an Answer nor a Passage")

    async def _lift(self, flow: http.HTTPFlow, exchange: Exchange, passage: Passage) -> None:
        """Last of all, without a pause: exactly the passage's request takes the flow's place."""
        try:
            if exchange.gone.is_set():
                raise ConnectionResetError("the agent is gone")
            forward = translate.upstream_request(passage.request, flow.request)
        except Exception as error:  # noqa: BLE001 - told to the passage, whatever it was
            gone = isinstance(error, ConnectionResetError)
            if not gone:
                report("making the request", error)
            sentence = pages.GONE_UNSENT if gone else pages.NOTHING_SENT
            exchange.settled = True
            flow.response = self._answer(await passage.failed(sentence, sent=False), exchange)
            return
        exchange.passage = passage
        if passage.request.unread:
            forward.stream = _push(exchange, passage)
            exchange.check_trailers = _check_trailers(passage)
            exchange.streaming = True
        flow.request = forward
        flow.response = None

    def _responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        passage, received = exchange.passage, flow.response
        if passage is None or received is None:
            return
        if received.status_code == 101 and passage.request.upgrade is None:
            return  # an upstream that switches unasked: not cleared
        head = passage.head(*translate.received_head(received))
        if head.answer is not None:
            exchange.page = self._answer(head.answer, exchange)
            return
        if exchange.claim is not None:
            head = gateway.localise(head, exchange.claim.agent, passage.request)
        response = translate.delivered_response(
            head, exchange.wire, flow.request.data.method, close=self.setup.draining
        )
        response.stream = _pump(exchange, passage)
        response.timestamp_start = received.timestamp_start
        flow.response = response
        if received.status_code == 101:
            self.unattended = exchange.agent
        exchange.cleared = True

    async def _response(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        passage = exchange.passage
        if passage is None or exchange.settled:
            return
        if exchange.cleared and flow.response is not None and flow.response.status_code == 101:
            self._socket = exchange
            return  # the socket's end is the result
        exchange.settled = True
        if exchange.faulty:
            await passage.failed(pages.UNSAFE_RESPONSE, sent=True)
            return
        if not exchange.finished:
            exchange.finished = True
            passage.finish()  # no body, or one that was not delivered
        if exchange.trailers is not None and flow.response is not None:
            with contextlib.suppress(translate.UnsafeHead):  # then there are none
                fields = translate.received_trailers(exchange.trailers)
                kept = passage.trailers(fields, deliver=exchange.takes_trailers)
                flow.response.trailers = translate.trailers_of(kept) if kept else None
        await passage.completed()

    async def _error(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        self.live.discard(exchange)
        passage = exchange.passage
        if passage is None or exchange.settled:
            return
        exchange.settled = True
        answer = await passage.failed(self._sentence(flow, exchange), sent=exchange.sent)
        exchange.page = self._answer(answer, exchange)

    async def _websocket_end(self, flow: http.HTTPFlow) -> None:
        await self._end_socket(exchange_of(flow))

    async def _end_socket(self, exchange: Exchange) -> None:
        passage = exchange.passage
        if passage is None or exchange.settled:
            return
        exchange.settled = True
        if exchange.broken is None:
            await passage.completed()
        else:
            await passage.failed(f"The WebSocket was closed: {exchange.broken}.", sent=True)

    def _sentence(self, flow: http.HTTPFlow, exchange: Exchange) -> str:
        """Why there is no result, or no connection to ask for one."""
        known = exchange.unfinished(self.setup.timeouts, revoked=self._revoked)
        if known is not None:
            return known
        if flow.error is not None and flow.error.msg.startswith(SAID):
            return f"{flow.error.msg}."
        if exchange.passage is not None:
            request = exchange.passage.request
            if (slow := self._dials.sentence(request.host, request.port)) is not None:
                return slow
        if flow.error is not None and "verify failed" in flow.error.msg:
            return pages.UNVERIFIED
        if flow.server_conn.timestamp_tcp_setup is None:
            return pages.NO_CONNECTION
        return pages.NOT_SET_UP

    # -- answers

    def _refusal(self, error: Refusal | Ambiguous, wire: Any) -> http.Response:
        if isinstance(error, Ambiguous):
            error = Refusal("request_ambiguous", error.sentence)
        answer = self.setup.pipeline.refusal_answer(error)
        response = translate.answer_response(answer, wire, close=self.setup.draining)
        if response.status_code == 407 and "proxy-authenticate" not in response.headers:
            response.headers["proxy-authenticate"] = pages.CHALLENGE.decode()
        return response

    def _answer(self, answer: Answer, exchange: Exchange) -> http.Response:
        return translate.answer_response(answer, exchange.wire, close=self.setup.draining)


def _push(exchange: Exchange, passage: Passage) -> Callable[[bytes], list[bytes]]:
    def push(chunk: bytes) -> list[bytes]:
        exchange.moved = time.monotonic()
        passage.send(chunk)  # what it raises ends the exchange
        return [chunk] if chunk else []

    return push


def _check_trailers(passage: Passage) -> Callable[[http.Headers], http.Headers]:
    def check(trailers: http.Headers) -> http.Headers:
        return translate.trailers_of(passage.send_trailers(trailers.fields))

    return check


def _pump(exchange: Exchange, passage: Passage) -> Callable[[bytes], list[bytes]]:
    def pump(chunk: bytes) -> list[bytes]:
        exchange.moved = time.monotonic()
        if chunk:
            out = passage.feed(chunk)
        else:
            exchange.finished = True
            out = passage.finish()
        if passage.refused:
            raise ResponseRefused  # ends the exchange without an end of the body
        return [out] if out else []  # an empty chunk would end a chunked body

    return pump
