"""A WebSocket between an agent and an upstream, in place of mitmproxy's layer.

Stock keeps messages whole, undoes compression, and lets hooks look at a message but not close the
socket. Here bytes go through the passage, which reads frames; what breaks the protocol ends both
sides.
"""

from __future__ import annotations

import secrets

from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.websocket import WebsocketEndHook

from broker.frames import PROTOCOL_ERROR, BadFrame, close_frame
from proxy.exchange import exchange_of
from proxy.http2 import Commands


class WebSocketLayer(layer.Layer):
    """Relays until one side closes."""

    def __init__(self, context: Context, flow: http.HTTPFlow) -> None:
        super().__init__(context)
        self._flow = flow
        self._over = False

    def _handle_event(self, event: events.Event) -> Commands:
        if self._over or not isinstance(event, events.ConnectionEvent):
            return
        client, server = self.context.client, self.context.server
        from_agent = event.connection == client
        if isinstance(event, events.DataReceived):
            passage = exchange_of(self._flow).passage
            if passage is None:
                raise RuntimeError("a socket without a passage")
            try:
                if from_agent:
                    data = passage.frames_from_agent(event.data)
                else:
                    data = passage.frames_from_upstream(event.data)
            except BadFrame as odd:
                exchange_of(self._flow).broken = str(odd)
                yield commands.SendData(client, close_frame(PROTOCOL_ERROR))
                yield commands.SendData(server, close_frame(PROTOCOL_ERROR, secrets.token_bytes(4)))
                yield from self._end()
                return
            if data:
                yield commands.SendData(server if from_agent else client, data)
            if passage.socket_closed:
                yield from self._end()
        elif isinstance(event, events.ConnectionClosed):
            yield from self._end()

    def _end(self) -> Commands:
        self._over = True
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
        yield WebsocketEndHook(self._flow)
        self._flow.live = False
