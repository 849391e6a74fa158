"""The engine: listens for agents, drains and stops.

Each connection is met at the door (`proxy.express.door`); plain calls in a tunnel take the express
lane (`proxy.express`), and everything else is `AgentConnection`'s.

mitmproxy's protocol core is used directly, without its master and addons: each of them is one more
thing that could touch a call, and together they cost more time than the core itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from proxy import compat
from proxy.chain import Chain
from proxy.connection import AgentConnection
from proxy.dialing import PinningLoop
from proxy.egress import EgressGuard
from proxy.express.door import Door
from proxy.faults import report
from proxy.parting import LINGER, PartingWriter
from proxy.patience import Timeouts
from proxy.ports import Authority, Pipeline, Traffic
from proxy.setup import Connection, Entered, Setup
from proxy.tls import Tls

GOODBYE = 2.0
"""Seconds that an agent's side of the end of TLS is waited for."""
OVERSEE = 1.0
"""Seconds between looks at connections that no call's decision looks at."""


class Engine:
    """One worker's proxy. Runs on a `PinningLoop` that has the pins of its egress guard."""

    def __init__(
        self,
        pipeline: Pipeline,
        authority: Authority,
        egress: EgressGuard,
        listen: tuple[str, int],
        *,
        body_limit: int,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        ca_bundle: Path | None = None,
        timeouts: Timeouts | None = None,
        names: Iterable[tuple[str, int]] = (),
        traffic: Traffic | None = None,
        chain: Chain | None = None,
        proxy_bundle: Path | None = None,
        express: bool = True,
    ) -> None:
        """`body_limit`: bytes of a request body. `ca_bundle`: PEM; None is certifi's.

        `tls`: to listen with; None is clear text.

        `chain`: the proxy through which every upstream is reached, and `proxy_bundle` what it is
        verified against (None is `ca_bundle`); the egress guard must know of it too.

        `express`: plain calls take the express lane; never with a `chain`.

        `names`: (host, port) that the gateway answers to besides the address of its listener.

        Raises EngineMismatch (another mitmproxy), TlsFiles (the CA bundle cannot be used).
        """
        compat.install()
        timeouts = timeouts or Timeouts()
        options = compat.CoreOptions(
            body_size_limit=str(body_limit),
            tcp_timeout=timeouts.idle,
            head_timeout=timeouts.head,
            chain=chain,
            checked=egress.targets.addresses,
            chain_timeout=timeouts.connect,
        )
        self._setup = Setup(
            pipeline,
            Tls(
                authority,
                ca_bundle,
                proxy=None if chain is None else chain.place,
                proxy_bundle=proxy_bundle,
            ),
            options,
            timeouts,
            frozenset(names),
            express=express and chain is None,
        )
        self._egress = egress
        self._listen = listen
        self._tls = tls
        self._handshake = timeouts.head
        self._reuse_port = reuse_port
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Future[None]] = {}
        self._passed_on: set[Connection] = set()
        """Those that another one goes on with."""
        self._overseer: asyncio.Task[None] | None = None
        self._traffic = traffic
        self.accepted = 0
        """Connections taken since the start."""

    async def start(self) -> int:
        """Begins to listen; returns the port. Raises OSError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, PinningLoop) or loop.pins is not self._egress.pins:
            raise RuntimeError("the engine needs a PinningLoop with its egress guard's pins")
        host, port = self._listen
        server = await loop.create_server(
            lambda: Door(self._setup, self),
            host or None,
            port,
            reuse_port=self._reuse_port,
            backlog=512,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else self._handshake,
            ssl_shutdown_timeout=None if self._tls is None else GOODBYE,
        )
        self._server = cast("asyncio.Server", server)
        self._overseer = asyncio.create_task(self._oversee())
        names = [listener.getsockname() for listener in self._server.sockets]
        for name in names:
            self._egress.protect(name[0], name[1])
        return int(names[0][1])

    async def drain(self, timeout: float) -> bool:
        """Listens no more, answers the calls that are here, then stops. False if time ran out."""
        self._setup.draining = True
        self._close_listeners()
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            for connection in tuple(self._connections):
                if not connection.live:
                    connection.cut()
            busy = any(connection.live for connection in self._connections)
            if not busy or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        await self.stop()
        return not busy

    async def stop(self) -> None:
        """Closes everything now; calls that are still held get no answer, and nothing is sent."""
        self._close_listeners()
        if self._overseer is not None:
            self._overseer.cancel()
        for connection in tuple(self._connections):
            connection.cut()
        overs = set(self._connections.values())
        if overs:
            _, late = await asyncio.wait(overs, timeout=2)
            for over in late:
                over.cancel()

    async def _oversee(self) -> None:
        """Cuts what streams to or from agents that are no longer known, and gives up calls that
        take too long."""
        while True:
            await asyncio.sleep(OVERSEE)
            for connection in tuple(self._connections):
                try:
                    self._look_at(connection)
                except Exception as error:  # noqa: BLE001 - the others are looked at all the same
                    report("looking after a connection", error)

    def _look_at(self, connection: Connection) -> None:
        connection.give_up_late()
        agent = connection.watched
        if agent is not None and not self._setup.pipeline.knows(agent):
            connection.revoke()

    def _close_listeners(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    # -- what those ask who serve a connection (see `proxy.setup.Lanes`)

    def serve(
        self,
        connection: Connection,
        over: asyncio.Future[None],
        after: Connection | None = None,
    ) -> None:
        """`connection` is served from now on, until `over` is done; `after` was the same one."""
        self._connections[connection] = over
        over.add_done_callback(lambda _: self._closed(connection))
        if after is not None:
            self._passed_on.add(after)
            return
        self.accepted += 1
        if self._traffic is not None:
            self._traffic.opened()

    def hand_over(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        data: bytes,
        entered: Entered | None,
    ) -> None:
        """mitmproxy's core takes the transport from `connection`, with the `data` read already."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        writer = PartingWriter(transport, protocol, reader, loop)
        served = AgentConnection(self._setup, reader, writer, entered)
        task = loop.create_task(self._see_through(served, writer))
        self.serve(served, task, after=connection)
        if data:
            protocol.data_received(data)

    async def _see_through(self, connection: AgentConnection, writer: PartingWriter) -> None:
        await connection.handle_client()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            # What was written last is still on its way to the agent.
            await asyncio.wait_for(writer.wait_closed(), LINGER + 1)

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if connection in self._passed_on:
            self._passed_on.discard(connection)
        elif self._traffic is not None:
            self._traffic.closed()
