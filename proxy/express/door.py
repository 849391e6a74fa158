"""The first bytes of an agent's connection: who takes it from there.

A CONNECT in plain words from an agent that is known is granted here, and the TLS that follows is
looked at before anything is answered. Everything else is handed over as it came.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast

from mitmproxy.net.http import http1
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.layers.tls import parse_client_hello
from OpenSSL import SSL

from broker.model import Client
from proxy import translate
from proxy.exchange import Wire
from proxy.express.line import Line
from proxy.express.secure import Secure
from proxy.faults import report
from proxy.http1 import MAX_HEAD
from proxy.ports import Tunnel
from proxy.setup import Entered, Lanes, Setup

_CONNECT = re.compile(
    rb"CONNECT [!-~]+ HTTP/1\.1\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\x00]*\r\n)*\r\n"
)
_GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MOST_HELLO = 64 * 1024


class Door(asyncio.Protocol):
    """One connection until it is known who serves it."""

    def __init__(self, setup: Setup, lanes: Lanes) -> None:
        self._setup = setup
        self._lanes = lanes
        self._data = b""
        self._agent: Client | None = None
        self._place = ("", 0)
        self._secure: Secure | None = None
        self._entered: Entered | None = None
        self._moved = time.monotonic()
        self._asking: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- what the engine asks of every connection

    live = False
    watched = None

    def cut(self) -> None:
        """Closes the connection."""
        self._transport.close()

    revoke = cut

    def give_up_late(self) -> None:
        """Ends a connection on which nothing moves; CONNECT and TLS have a clock besides."""
        if time.monotonic() - self._moved > self._setup.timeouts.idle:
            self.cut()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._watch()
        if transport.get_extra_info("peername") is None:
            self._transport.abort()  # gone before it was taken
            return
        self._lanes.serve(self, self._over)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._hand_over(None)

    def _watch(self) -> None:
        """CONNECT, and then TLS, must come in time."""
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self._setup.timeouts.head, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._moved = time.monotonic()
        try:
            if self._secure is not None:
                self._shake(data)
                return
            self._data += data
            if self._asking is not None:
                if len(self._data) > MAX_HEAD:
                    self._transport.abort()
            elif self._agent is None:
                self._connect()
            else:
                self._hello()
        except SSL.Error:
            self._transport.abort()
        except Exception as error:  # noqa: BLE001 - whatever breaks, nobody gets in
            report("the door", error)
            self._transport.abort()

    def eof_received(self) -> bool:
        return False  # asyncio closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()

    def _done(self) -> None:
        self._clock.cancel()
        if not self._over.done():
            self._over.set_result(None)

    # -- CONNECT

    def _connect(self) -> None:
        plain = len(self._data) <= MAX_HEAD and _CONNECT.fullmatch(self._data)
        if not self._setup.express or not plain:
            self._hand_over(None)
            return
        try:
            request = http1.read_request_head(self._data[:-4].split(b"\r\n"))
            values = [
                value.decode("latin-1")
                for name, value in request.headers.fields
                if name.lower() == b"proxy-authorization"
            ]
            agent = self._setup.pipeline.authenticate(values)
            place = translate.connect_target(request, Wire.of(request))
            _require_client(agent)
        except Exception:  # noqa: BLE001 - the full engine will find the same, and say so
            self._hand_over(None)
            return
        self._agent, self._place, self._data = agent, place, b""
        self._clock.cancel()
        self._watch()
        self._transport.write(_GRANTED)

    # -- TLS

    def _hello(self) -> None:
        """What the agent begins its tunnel with."""
        assert self._agent is not None
        entered = Entered(self._agent, self._place)
        data = self._data
        if data[:1] == b"\x16" and len(data) < 3:
            return  # too little to tell
        if not starts_like_tls_record(data):
            self._hand_over(entered)
            return
        try:
            hello = parse_client_hello(data)
        except ValueError:
            self._hand_over(entered)
            return
        if hello is None:
            if len(data) > _MOST_HELLO:
                self._transport.abort()
            return
        # A name that is odd, or another one, is for the full engine to refuse.
        odd = hello.sni is None and any(kind == 0 for kind, _ in hello.extensions)
        other = hello.sni is not None and hello.sni.lower() != self._place[0]
        if odd or other or b"h2" in hello.alpn_protocols:
            self._hand_over(entered)
            return
        self._entered = Entered(self._agent, self._place, hello.sni, encrypted=False)
        self._asking = asyncio.Task(
            self._ask(self._entered), loop=asyncio.get_running_loop(), eager_start=True
        )

    async def _ask(self, entered: Entered) -> None:
        """Whether the policy has it passed on undecrypted; if not, TLS begins."""
        tunnel = None
        if entered.sni is not None:
            try:
                tunnel = await self._setup.pipeline.tunnel(
                    entered.agent, *entered.place, entered.sni
                )
            except Exception:  # noqa: BLE001 - as above
                if not self._transport.is_closing():
                    self._hand_over(Entered(entered.agent, entered.place))
                return
        if self._transport.is_closing():
            if isinstance(tunnel, Tunnel):
                await tunnel.closed(0, 0)
        elif tunnel is None:
            self._begin_tls(entered)
        else:
            self._hand_over(Entered(entered.agent, entered.place, tunnel=tunnel))

    def _begin_tls(self, entered: Entered) -> None:
        try:
            tls = self._setup.tls.with_agent(entered.sni, entered.place[0])
            self._secure = Secure(tls, self._transport)
            data, self._data = self._data, b""
            self._shake(data)
        except SSL.Error:
            self._transport.abort()
        except Exception as error:  # noqa: BLE001 - whatever breaks, nobody gets in
            report("the door", error)
            self._transport.abort()

    def _shake(self, data: bytes) -> None:
        assert self._secure is not None
        assert self._entered is not None
        if not self._secure.shake(data):
            return
        line = Line(self._setup, self._lanes, self._entered, self._transport, self._secure)
        self._transport.set_protocol(line)
        self._lanes.serve(line, line.over, after=self)
        self._done()
        line.data_received(b"")  # what came with the end of the handshake

    def _hand_over(self, entered: Entered | None) -> None:
        data, self._data = self._data, b""
        self._lanes.hand_over(self, self._transport, data, entered)
        self._done()


def _require_client(agent: object) -> None:
    if not isinstance(agent, Client):
        raise TypeError("authenticate gave no Client")
