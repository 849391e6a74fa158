"""Who is at the other end of a connection, and where its tunnel leads: told once, by CONNECT and by
the ClientHello behind it. Every call in the tunnel is held against that.

Outside of a tunnel each call says for itself who makes it.
"""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.tls import ClientHello

from broker.errors import Refusal
from broker.model import Client
from broker.refusals import as_origin
from proxy import gateway, translate
from proxy.exchange import Exchange, exchange_of
from proxy.ports import Tunnel
from proxy.setup import Entered, Setup
from rules.request import RawRequest

_SNI = 0
"""The TLS extension server_name (RFC 6066)."""


class Arrival:
    """What one connection has told of itself so far."""

    def __init__(
        self,
        setup: Setup,
        entered: Entered | None,
        listener: tuple[str, int],
        *,
        in_tls: bool,
    ) -> None:
        """`entered`: what another lane found out already. `listener`: the address of ours that the
        agent has reached, `in_tls` if by TLS."""
        self._setup = setup
        self._listener = listener
        self._in_tls = in_tls
        self._tunnel = None if entered is None else entered.tunnel
        self.agent = None if entered is None else entered.agent
        self.place = None if entered is None else entered.place
        """Host and port of the CONNECT; None outside of a tunnel."""
        self.sni = None if entered is None else entered.sni

    def connect(self, flow: http.HTTPFlow) -> None:
        """Takes a CONNECT. Raises Refusal, Ambiguous; then nobody is here."""
        agent = self._authenticate(flow)
        host, port = translate.connect_target(flow.request, exchange_of(flow).wire)
        self.agent, self.place = agent, (host, port)
        flow.request.data.host, flow.request.data.port = host, port

    async def greet(self, hello: ClientHello) -> Tunnel | None:
        """Takes the ClientHello in the tunnel; what to pass it on by as it is, if that is to be."""
        self.sni = hello.sni
        if hello.sni is None and any(kind == _SNI for kind, _ in hello.extensions):
            self.sni = "?"  # a name that cannot be read is not the same as none
        if self.agent is None or self.place is None:
            raise RuntimeError("TLS before CONNECT")
        host, port = self.place
        if self.sni is None or self.sni.lower() != host:
            return None
        tunnel = self._tunnel
        if tunnel is None:
            tunnel = await self._setup.pipeline.tunnel(self.agent, host, port, self.sni)
        if tunnel is not None and not isinstance(tunnel, Tunnel):
            raise TypeError("tunnel gave no Tunnel")
        return tunnel

    def read(
        self, flow: http.HTTPFlow, exchange: Exchange, *, unread: bool = False
    ) -> tuple[Client, RawRequest]:
        """Who asks, and what. Raises Refusal, Ambiguous."""
        agent = self.agent if self.place else self.identify(flow, exchange)
        if agent is None:
            raise RuntimeError("a tunnel without an agent")
        wire, claim = exchange.wire, exchange.claim
        if claim is not None:
            return agent, translate.gateway_request(flow, wire, claim, unread=unread)
        raw = translate.raw_request(flow, wire, self.place, self.sni, unread=unread)
        return agent, raw

    def identify(self, flow: http.HTTPFlow, exchange: Exchange) -> Client:
        """Who makes a call outside any tunnel: through the proxy in clear text, or the gateway."""
        if not gateway.asked(exchange.wire):
            return self._authenticate(flow)
        door = gateway.Door.of(self._listener, tls=self._in_tls, names=self._setup.names)
        claim = gateway.read(exchange.wire, flow.request.headers.fields, door)
        try:
            agent = self._setup.pipeline.identify(claim.agent, claim.token)
        except Refusal as refusal:
            as_origin(refusal)
            raise
        if not isinstance(agent, Client):
            raise TypeError("identify gave no Client")
        gateway.refuse_strays(claim)
        exchange.claim = claim
        return agent

    def _authenticate(self, flow: http.HTTPFlow) -> Client:
        values = [
            value.decode("latin-1")
            for name, value in flow.request.headers.fields
            if name.lower() == b"proxy-authorization"
        ]
        agent = self._setup.pipeline.authenticate(values)
        if not isinstance(agent, Client):
            raise TypeError("authenticate gave no Client")
        return agent
