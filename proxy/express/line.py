"""An agent's side of the express lane: one call (`proxy.express.call`) after another inside a
tunnel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from OpenSSL import SSL

from broker.model import Client
from proxy.express.call import Call
from proxy.express.handover import Decrypted
from proxy.express.heads import PlainHead, plain_head
from proxy.express.secure import Secure
from proxy.express.upstream import Place, Upstream
from proxy.faults import report
from proxy.http1 import MAX_HEAD
from proxy.setup import Entered, Lanes, Setup


class Line(asyncio.Protocol):
    """Serves one agent's tunnel from the moment that TLS is there, or hands it over."""

    def __init__(
        self,
        setup: Setup,
        lanes: Lanes,
        entered: Entered,
        transport: asyncio.Transport,
        secure: Secure,
    ) -> None:
        self.setup = setup
        self.entered = entered
        self.revoked = False
        self._lanes = lanes
        self._transport = transport
        self._secure = secure
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._out: list[bytes] = []
        self._upstream: Upstream | None = None
        self._moved = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._head: PlainHead | None = None
        """Of the call that is being served, or whose body is awaited."""
        self._call: Call | None = None
        self._closing = False
        """No more calls on this connection."""
        self._full = False
        """The agent has yet to take what was written."""
        self._gone = False
        """Nothing more is done for the agent, which left or is to leave."""
        self._lost = False
        """And its connection is no more."""
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is closed and nothing is under way any more."""
        self.over.add_done_callback(self._abandon)

    # -- what the engine asks of every connection

    @property
    def live(self) -> bool:
        """Whether a call has begun and is not answered yet."""
        return self._head is not None

    @property
    def watched(self) -> Client | None:
        """Whose response is streaming: no decision looks at it any more."""
        exchange = None if self._call is None else self._call.exchange
        return exchange.agent if exchange is not None and exchange.answered else None

    def revoke(self) -> None:
        """The agent is no longer known."""
        self.revoked = True
        self.cut()

    def cut(self) -> None:
        """Closes the connection; bytes already written are still delivered."""
        self.flush()
        self._leave()
        self._transport.close()

    def give_up_late(self) -> None:
        """Ends the call whose upstream takes too long, and an idle connection."""
        if self._call is not None:
            self._call.give_up_late()
        elif time.monotonic() - self._moved > self.setup.timeouts.idle:
            if self._transport.is_closing():
                self._transport.abort()  # who does not take the rest keeps it open
            else:
                self.cut()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        return

    def data_received(self, data: bytes) -> None:
        try:
            self.take(self._secure.receive(data))
        except SSL.Error:
            self._transport.abort()
            return
        if self._secure.ended:
            self._leave()
            self._transport.close()

    def eof_received(self) -> bool:
        self._leave()  # asyncio closes, but only when all that was written has been taken
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._leave()
        self._look_over()

    def pause_writing(self) -> None:
        self._full = True
        if self._upstream is not None:
            self._upstream.pause()

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        if self._upstream is not None:
            self._upstream.resume()
        if self._call is None:
            self._loop.call_soon(self._next)

    def _leave(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._moved = time.monotonic()
        if self._call is not None:
            self._call.left()
        self.drop_upstream()

    # -- requests

    def take(self, plain: bytes) -> None:
        """More from the agent, decrypted."""
        self._moved = time.monotonic()
        self._data += plain
        if self._full:
            self._transport.pause_reading()  # no more of who does not take the answers
        if self._call is None:
            self._next()
        elif len(self._data) > MAX_HEAD:
            if self._call.exchange.finished:
                self._transport.pause_reading()  # the next request; the result is being recorded
            else:
                self._transport.abort()  # who sends on and on is not waiting for an answer

    def _next(self) -> None:
        """Begins the next call, if it is all there and the last answer was taken."""
        if self._call is not None or not self._data:
            return
        if self._closing or self._gone or self._full:
            return
        if self._head is None:
            head = plain_head(bytes(self._data[: MAX_HEAD + 1]))
            if head is None or head.length > self.setup.body_limit:
                self._hand_over()
                return
            self._head = head
        head = self._head
        end = head.size + head.length
        if len(self._data) < end:
            if self.setup.pipeline.streams():
                self._hand_over()  # it may have to leave before it is whole
            return
        body = bytes(self._data[head.size : end])
        del self._data[:end]
        self._closing = head.close
        self._call = Call(self, head, body)
        self.start(self._call.serve())

    def _hand_over(self) -> None:
        self.drop_upstream()
        self._closing = True
        decrypted = Decrypted(self._transport, self._secure)
        self._lanes.hand_over(self, decrypted, bytes(self._data), self.entered)
        self.over.set_result(None)

    # -- what a call asks (see `AgentSide`)

    async def upstream_at(self, place: Place) -> Upstream:
        """The connection to an upstream, kept from the last call if it is one to this place. Raises
        NoUpstream."""
        upstream = self._upstream
        if upstream is not None and upstream.open and upstream.place == place:
            return upstream
        if upstream is not None:
            upstream.abort()
            self._upstream = None
        self._upstream = await Upstream.connect(place, self.setup.tls, self.setup.timeouts)
        return self._upstream

    def drop_upstream(self) -> None:
        """Hangs up."""
        if self._upstream is not None:
            self._upstream.abort()

    def write(self, *parts: bytes) -> None:
        """To the agent, with the next `flush`."""
        self._out += parts

    def answered(self) -> None:
        """The last byte of the answer was written."""
        self._call = self._head = None
        self._moved = time.monotonic()
        self.flush()
        if self._closing or self.setup.draining:
            self._closing = True
            if not self._gone:
                self._secure.close()
        elif self._data:
            if not self._full and not self._gone:
                self._transport.resume_reading()
            self._loop.call_soon(self._next)

    def broken_off(self) -> None:
        """Half a response is out: only the end of the connection can say that it is no more."""
        self._call = self._head = None
        self._closing = True
        self.flush()
        self._transport.close()
        self._look_over()

    def flush(self) -> None:
        """Sends what was written."""
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if not self._gone and not self._transport.is_closing():
            try:
                self._secure.send(data)
            except SSL.Error:
                self._transport.abort()

    # -- the end

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Takes the first step here and now; often there is no second."""
        task = asyncio.Task(work, loop=self._loop, eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        elif not task.cancelled() and task.exception() is not None:
            self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report("the express lane", error)
            self._transport.abort()
        self._look_over()

    def _look_over(self) -> None:
        if self._lost and not self._tasks and not self.over.done():
            self.over.set_result(None)

    def _abandon(self, over: asyncio.Future[None]) -> None:
        if over.cancelled():
            for task in tuple(self._tasks):
                task.cancel()
