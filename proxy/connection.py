"""One agent's connection as mitmproxy's core drives it: its layers, its clocks, its back pressure.

Who came, and where to, is `Arrival`'s; what is asked for is `Calls`'.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import defaultdict
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import events, layer, layers, mode_specs, tunnel
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.tls import ClientHelloData, TlsData

from broker.errors import Refusal
from broker.model import Client
from proxy import http2, pages
from proxy.arrival import Arrival
from proxy.calls import Calls
from proxy.chain import stack_to, tunnel_below
from proxy.compat import Watchdog
from proxy.exchange import Exchange, exchange_of
from proxy.faults import report
from proxy.handler import Handler
from proxy.parting import PartingWriter
from proxy.patience import Dials
from proxy.ports import Tunnel
from proxy.setup import Entered, Setup
from proxy.truncation import UpstreamTls
from rules.errors import Ambiguous

_MODE = mode_specs.ProxyMode.parse("regular")
_HIGH_WATER = 1024 * 1024
"""Bytes that may wait for one agent's HTTP/2 windows before the upstream is read no further."""
_READ = 65536
"""Bytes, at most, that the core reads at once."""
_MOST_CHAINED = 100
"""Connections that one agent's connection may have open through the proxy on the way out."""


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
        outer = writer.get_extra_info("ssl_object")
        self._entered = entered
        self._begin_layers(outer)
        # Stock: 5, so that the sixth call at a time over HTTP/2 waits, where the upstream speaks
        # HTTP/1. Streams are limited already.
        self.max_conns = defaultdict(lambda: asyncio.Semaphore(http2.MOST_STREAMS))
        self.setup = setup
        self._tunnel: Tunnel | None = None
        self._passed = [0, 0]
        self._taken = 0
        """Bytes, at most, that came while heads were being decided."""
        self._endings: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        chain = setup.options.chain
        self._dials = Dials(setup.timeouts, self._hang_up, chain)
        self._arrival = Arrival(setup, entered, self.client.sockname, in_tls=outer is not None)
        self._calls = calls = Calls(setup, self._arrival, self._dials, self._unwatch)
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
            "requestheaders": calls.requestheaders,
            "request": calls.request,
            "responseheaders": calls.responseheaders,
            "response": calls.response,
            "error": self._error,
            "websocket_end": calls.websocket_end,
        }

    def _begin_layers(self, outer: ssl.SSLObject | None) -> None:
        """The lowest of the core's layers, by what is known of the connection already."""
        context, entered = self.layer.context, self._entered
        if entered is None:
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
    def live(self) -> set[Exchange]:
        """Calls that have begun and are not answered yet."""
        return self._calls.live

    @property
    def watched(self) -> Client | None:
        """Whose tunnel, WebSocket or streaming body this is: no decision looks at it any more."""
        return self._calls.watched if self._tunnel is None else self._arrival.agent

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
        while self._calls.live and max(x.backlog() for x in self._calls.live) > _HIGH_WATER:
            await asyncio.sleep(0.005)

    async def _throttle_uploads(self) -> None:
        """An HTTP/1 agent is read no further while more than enough of a body waits for its head to
        be decided. (Those of HTTP/2 have windows.)"""
        if not any(exchange.deciding for exchange in self._calls.live):
            self._taken = 0
        elif self.client.alpn != b"h2":
            self._taken += _READ
            while self._taken > _HIGH_WATER and any(x.deciding for x in self._calls.live):
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
        for exchange in self._calls.live:
            self._break_off(exchange)
        transport = self.transports.get(self.client)
        if transport is not None and transport.handler is not None:
            transport.handler.cancel("closed by Keybroker")

    def revoke(self) -> None:
        """Closes the connection, as its agent is no longer known."""
        self._calls.revoked = True
        self.cut()

    def give_up_late(self) -> None:
        """Ends the calls whose upstream takes too long; to be called about once a second."""
        limits, now = self.setup.timeouts, time.monotonic()
        for exchange in tuple(self._calls.live):
            stage = exchange.overdue(now, first_byte=limits.first_byte, idle=limits.idle)
            if stage is not None and exchange.give_up is not None:
                ending = asyncio.create_task(self.server_event(exchange.give_up()))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    def _at_upstream(self) -> bool:
        """Whether a call is at its upstream, which has clocks of its own."""
        return any(exchange.sent for exchange in self._calls.live)

    def _hang_up(self, server: Server) -> None:
        transport = self.transports.get(server)
        if transport is not None and transport.handler is not None:
            transport.handler.cancel("too slow")

    async def _error(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        unanswered = exchange in self._calls.live
        await self._calls.error(flow)
        if unanswered:
            self._break_off(exchange)

    def _break_off(self, exchange: Exchange) -> None:
        """Where half a response is out whose end would be that of the connection."""
        transport = self.transports.get(self.client)
        writer = None if transport is None else transport.writer
        if exchange.answered and exchange.wire.version == b"HTTP/1.0":
            assert writer is None or isinstance(writer, PartingWriter)
            if writer is not None:
                writer.break_off()

    # -- the connection

    def _client_connected(self, _: object) -> None:
        if self._entered is None or self._entered.encrypted:
            self._watch()

    async def _client_disconnected(self, _: object) -> None:
        self._unwatch()
        await self._calls.agent_left()
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
        try:
            self._arrival.connect(flow)
        except (Refusal, Ambiguous) as error:
            response = self._calls.refusal(error, exchange_of(flow).wire)
            if response.status_code >= 300:  # a 2xx would open the tunnel
                flow.response = response
            return
        self._watch()
        flow.response = None

    # -- TLS and tunnels

    async def _tls_clienthello(self, data: ClientHelloData) -> None:
        tunnel = await self._arrival.greet(data.client_hello)
        if tunnel is None:
            return
        self._unwatch()
        self._tunnel = tunnel
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
