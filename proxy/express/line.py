"""An agent's side of the express lane: one call after another inside a tunnel.

Law 1 as in the full engine: a page that refuses is what goes out unless everything went well, and
whatever raises, hangs or makes no sense on the way leaves nothing sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from mitmproxy import http
from OpenSSL import SSL

from broker.model import Client
from proxy import pages, translate
from proxy.exchange import Exchange, Wire
from proxy.express.handover import Decrypted
from proxy.express.heads import MOST_HEAD, PlainHead, plain_head, request_head
from proxy.express.replies import Fields, Unreadable
from proxy.express.secure import Secure
from proxy.express.upstream import NoUpstream, Place, Upstream
from proxy.faults import report
from proxy.http1 import assembled, assembled_head
from proxy.patience import overdue_sentence
from proxy.ports import Answer, Passage, is_answer, is_passage
from proxy.setup import Entered, Lanes, Setup
from rules.request import RawRequest, Request


class _Gone(Exception):
    """The agent hung up."""


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
        self._setup = setup
        self._lanes = lanes
        self._entered = entered
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
        self._exchange: Exchange | None = None
        self._chunked = False
        """The response goes out in chunks."""
        self._closing = False
        """No more calls on this connection."""
        self._full = False
        """The agent has yet to take what was written."""
        self._gone = False
        """Nothing more is done for the agent, which left or is to leave."""
        self._lost = False
        """And its connection is no more."""
        self._revoked = False
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is closed and nothing is under way any more."""
        self.over.add_done_callback(self._abandon)

    # -- what the engine asks of every connection

    @property
    def live(self) -> bool:
        """Whether a call has begun and is not answered yet."""
        return self._exchange is not None or self._head is not None

    @property
    def watched(self) -> Client | None:
        """Whose response is streaming: no decision looks at it any more."""
        exchange = self._exchange
        return exchange.agent if exchange is not None and exchange.answered else None

    def revoke(self) -> None:
        """The agent is no longer known."""
        self._revoked = True
        self.cut()

    def cut(self) -> None:
        """Closes the connection; bytes already written are still delivered."""
        self._flush()
        self._leave()
        self._transport.close()

    def give_up_late(self) -> None:
        """Ends the call whose upstream takes too long, and an idle connection."""
        limits, now = self._setup.timeouts, time.monotonic()
        exchange = self._exchange
        if exchange is None:
            if now - self._moved > limits.idle:
                if self._transport.is_closing():
                    self._transport.abort()  # who does not take the rest keeps it open
                else:
                    self.cut()
        elif exchange.overdue(now, first_byte=limits.first_byte, idle=limits.idle) is not None:
            if self._upstream is not None:
                self._upstream.abort()
            self.on_break()
            self.on_turn()

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
        if self._exchange is None:
            self._loop.call_soon(self._next)

    def _leave(self) -> None:
        if self._gone:
            return
        self._gone = True
        self._moved = time.monotonic()
        exchange = self._exchange
        if exchange is not None:
            exchange.gone.set()
            if exchange.sent and not exchange.settled:
                self.on_break()
        if self._upstream is not None:
            self._upstream.abort()

    # -- requests

    def take(self, plain: bytes) -> None:
        """More from the agent, decrypted."""
        self._moved = time.monotonic()
        self._data += plain
        if self._full:
            self._transport.pause_reading()  # no more of who does not take the answers
        if self._exchange is None:
            self._next()
        elif len(self._data) > MOST_HEAD:
            self._transport.abort()  # who sends on and on is not waiting for an answer

    def _next(self) -> None:
        """Begins the next call, if it is all there and the last answer was taken."""
        if self._exchange is not None or not self._data:
            return
        if self._closing or self._gone or self._full:
            return
        if self._head is None:
            head = plain_head(bytes(self._data[: MOST_HEAD + 1]))
            if head is None or head.length > self._setup.body_limit:
                self._hand_over()
                return
            self._head = head
        head = self._head
        end = head.size + head.length
        if len(self._data) < end:
            if self._setup.pipeline.streams():
                self._hand_over()  # it may have to leave before it is whole
            return
        body = bytes(self._data[head.size : end])
        del self._data[:end]
        self._exchange = Exchange(
            Wire(head.method, b"", b"", head.target, b"HTTP/1.1"), has_body=head.length > 0
        )
        self._closing = head.close
        self._start(self._serve(self._exchange, head, body))

    def _hand_over(self) -> None:
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        self._closing = True
        decrypted = Decrypted(self._transport, self._secure)
        self._lanes.hand_over(self, decrypted, bytes(self._data), self._entered)
        self.over.set_result(None)

    # -- one call

    async def _serve(self, exchange: Exchange, head: PlainHead, body: bytes) -> None:
        try:
            outcome = await self._decide(exchange, head, body)
            exchange.agent = self._entered.agent
            if is_passage(outcome) and isinstance(outcome.request, Request):
                await self._send(exchange, outcome, body)
                return
            if not is_answer(outcome):
                raise TypeError("the middle gave neither an Answer nor a Passage")
            page = translate.answer_response(outcome, exchange.wire, close=self._last())
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # it was not the middle that gave up, but the engine that stops
            report("the request hook", error)
            page = pages.page("internal_error", pages.NOTHING_SENT)
        self._reply(page)

    async def _decide(
        self, exchange: Exchange, head: PlainHead, body: bytes
    ) -> Answer | Passage | object:
        pipeline, agent = self._setup.pipeline, self._entered.agent
        if body:
            outcome = await pipeline.begin(agent, self._raw(head, b"", unread=True))
            if outcome is not None:
                return outcome
        return await pipeline.handle(agent, self._raw(head, body), exchange.gone)

    def _raw(self, head: PlainHead, body: bytes, *, unread: bool = False) -> RawRequest:
        return RawRequest(
            scheme="https",
            connect=self._entered.place,
            sni=self._entered.sni,
            authority=None,
            method=head.method.decode("latin-1"),
            target=head.target.decode("latin-1"),
            headers=head.fields,
            body=body,
            unread=unread,
        )

    async def _send(self, exchange: Exchange, passage: Passage, body: bytes) -> None:
        """Last of all: exactly the passage's request goes upstream."""
        request = passage.request
        exchange.passage = passage
        try:
            message = request_head(request)
            if request.upgrade is not None:
                raise ValueError("an upgrade that was not asked for")
            if request.unread:
                passage.send(body)
                passage.send(b"")
            else:
                body = request.body
            _still_here(exchange)
            upstream = await self._at((request.scheme, request.host, request.port))
            _still_here(exchange)
        except NoUpstream as error:
            await self._fail(exchange, str(error))
            return
        except _Gone:
            if self._upstream is not None:
                self._upstream.abort()
            await self._fail(exchange, pages.GONE_UNSENT)
            return
        except Exception as error:  # noqa: BLE001 - told to the passage, whatever it was
            report("making the request", error)
            await self._fail(exchange, pages.NOTHING_SENT)
            return
        exchange.sent = exchange.asked = True
        exchange.moved = time.monotonic()
        try:
            upstream.ask(message + body, request.method.encode("ascii"), self)
        except (Unreadable, SSL.Error):
            upstream.abort()
            self.on_break()

    async def _at(self, place: Place) -> Upstream:
        upstream = self._upstream
        if upstream is not None and upstream.open and upstream.place == place:
            return upstream
        if upstream is not None:
            upstream.abort()
            self._upstream = None
        self._upstream = await Upstream.connect(place, self._setup.tls, self._setup.timeouts)
        return self._upstream

    # -- the response (see `Asker`)

    def on_head(self, response: http.Response) -> None:
        exchange = self._asked()
        if exchange is None:
            return
        exchange.headed = True
        exchange.moved = time.monotonic()
        passage = exchange.passage
        assert passage is not None
        try:
            if response.status_code == 101:
                raise translate.UnsafeHead("an upstream that switches unasked")
            head = passage.head(*translate.received_head(response))
            if head.answer is not None:
                page = translate.answer_response(head.answer, exchange.wire, close=self._last())
                self._withdraw(exchange, page)
                return
            method = passage.request.method.encode("ascii")
            delivered = translate.delivered_response(
                head, exchange.wire, method, close=self._last()
            )
        except Exception as error:  # noqa: BLE001 - what is not cleared does not pass
            report("a response's head", error)
            exchange.faulty = True
            self._withdraw(exchange, pages.page("response_refused", pages.UNSAFE_RESPONSE))
            return
        exchange.cleared = exchange.answered = True
        self._chunked = "transfer-encoding" in delivered.headers
        self._out.append(assembled_head(delivered))

    def on_data(self, data: bytes) -> None:
        exchange = self._asked()
        if exchange is None or exchange.passage is None:
            return
        exchange.moved = time.monotonic()
        try:
            out = exchange.passage.feed(data)
            if exchange.passage.refused:
                raise ValueError("refused in mid-body")
        except Exception as error:  # noqa: BLE001 - whatever it is, the response breaks off
            self._break_off(exchange, error)
            return
        self._deliver(exchange, out)

    def on_end(self, trailers: Fields) -> None:
        exchange = self._asked()
        if exchange is None or exchange.passage is None:
            return
        passage = exchange.passage
        exchange.finished = True
        try:
            rest = passage.finish()
            if passage.refused:
                raise ValueError("refused at its end")
            self._deliver(exchange, rest)
            if trailers:
                with contextlib.suppress(translate.UnsafeHead):  # then there are none
                    passage.trailers(
                        translate.received_trailers(http.Headers(trailers)), deliver=False
                    )
        except Exception as error:  # noqa: BLE001 - as in mid-body
            self._break_off(exchange, error)
            return
        self._start(self._complete(exchange))

    def on_break(self) -> None:
        """The response will not come, or not whole."""
        exchange = self._exchange
        if exchange is not None and not exchange.settled:
            self._start(self._fail(exchange, self._sentence(exchange)))

    def on_turn(self) -> None:
        self._flush()

    def _asked(self) -> Exchange | None:
        exchange = self._exchange
        return None if exchange is None or exchange.settled else exchange

    def _deliver(self, exchange: Exchange, data: bytes) -> None:
        if not data or exchange.wire.method == b"HEAD":
            return
        if self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    async def _complete(self, exchange: Exchange) -> None:
        exchange.settled = True
        assert exchange.passage is not None
        try:
            await exchange.passage.completed()
        except Exception as error:  # noqa: BLE001 - the response is there; the record will be lost
            report("recording a result", error)
        if self._chunked and exchange.wire.method != b"HEAD":
            self._out.append(b"0\r\n\r\n")
        self._answered()

    def _withdraw(self, exchange: Exchange, page: http.Response) -> None:
        """The page instead of the response, whose rest nobody waits for."""
        if self._upstream is not None:
            self._upstream.abort()
        self._start(self._withdrawn(exchange, page))

    async def _withdrawn(self, exchange: Exchange, page: http.Response) -> None:
        exchange.settled = True
        passage = exchange.passage
        assert passage is not None
        try:
            if exchange.faulty:
                await passage.failed(pages.UNSAFE_RESPONSE, sent=True)
            else:
                passage.finish()
                await passage.completed()
        except Exception as error:  # noqa: BLE001 - the page goes out all the same
            report("recording a result", error)
        self._reply(page)

    def _break_off(self, exchange: Exchange, error: Exception) -> None:
        if exchange.passage is None or not exchange.passage.refused:
            report("a response's body", error)
        if self._upstream is not None:
            self._upstream.abort()
        self._start(self._fail(exchange, pages.BROKE_OFF))

    async def _fail(self, exchange: Exchange, sentence: str) -> None:
        if exchange.settled:
            return
        exchange.settled = True
        assert exchange.passage is not None
        try:
            answer = await exchange.passage.failed(sentence, sent=exchange.sent)
            page = translate.answer_response(answer, exchange.wire, close=self._last())
        except Exception as error:  # noqa: BLE001 - the agent is told of the failure all the same
            report("recording a failure", error)
            page = pages.page("upstream_unreachable", pages.NO_ANSWER)
        if exchange.answered:
            # Half a response is out: only the end of the connection can say that it is no more.
            self._flush()
            self._exchange = self._head = None
            self._closing = True
            self._transport.close()
            self._look_over()
        else:
            self._reply(page)

    def _sentence(self, exchange: Exchange) -> str:
        """Why there is no result, in fixed words."""
        if self._revoked:
            return pages.REVOKED
        if exchange.gone.is_set():
            return pages.GONE_UNDELIVERED if exchange.sent else pages.GONE_UNSENT
        if exchange.late is not None:
            return overdue_sentence(exchange.late, self._setup.timeouts)
        return pages.BROKE_OFF if exchange.answered else pages.NOT_HTTP

    # -- answers

    def _last(self) -> bool:
        return self._setup.draining

    def _reply(self, page: http.Response) -> None:
        """A page of our own, whole."""
        if self._exchange is not None and self._exchange.wire.method == b"HEAD":
            page.data.content = b""
        if self._last():
            self._closing = True
        self._out.append(assembled(page))
        self._answered()

    def _answered(self) -> None:
        """The last byte of the answer is on its way."""
        self._exchange = self._head = None
        self._chunked = False
        self._moved = time.monotonic()
        self._flush()
        if self._closing or self._last():
            self._closing = True
            if not self._gone:
                self._secure.close()
        elif self._data:
            self._loop.call_soon(self._next)

    def _flush(self) -> None:
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

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
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


def _still_here(exchange: Exchange) -> None:
    if exchange.gone.is_set():
        raise _Gone
