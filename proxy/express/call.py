"""One call in the express lane: decided, sent, and its response passed on.

Law 1 as in the full engine: a page that refuses is what goes out unless everything went well, and
whatever raises, hangs or makes no sense on the way leaves nothing sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from mitmproxy import http
from OpenSSL import SSL

from proxy import pages, translate
from proxy.exchange import Exchange, Wire
from proxy.express.heads import PlainHead, request_head
from proxy.express.replies import Unreadable
from proxy.express.upstream import NoUpstream, Place, Upstream
from proxy.faults import report
from proxy.http1 import assembled
from proxy.ports import Passage, is_answer, is_passage
from proxy.setup import Entered, Setup
from proxy.translate import Fields
from rules.request import RawRequest, Request


class _Gone(Exception):
    """The agent hung up."""


class AgentSide(Protocol):
    """What a call needs of the connection that it came by."""

    setup: Setup
    entered: Entered
    revoked: bool

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Takes the first step of `work` here and now, and sees it through."""
        ...

    async def upstream_at(self, place: Place) -> Upstream:
        """The connection to an upstream, kept from the last call if it is one to this place. Raises
        NoUpstream."""
        ...

    def drop_upstream(self) -> None:
        """Hangs up."""
        ...

    def write(self, *parts: bytes) -> None:
        """To the agent, with the next `flush`."""
        ...

    def flush(self) -> None:
        """Sends what was written."""
        ...

    def answered(self) -> None:
        """The last byte of the answer was written."""
        ...

    def broken_off(self) -> None:
        """Half a response is out: only the end of the connection can say that it is no more."""
        ...


class Call:
    """From the whole request to the last byte of the answer; an `Asker` of its upstream."""

    def __init__(self, side: AgentSide, head: PlainHead, body: bytes) -> None:
        self._side = side
        self._head = head
        self._body = body
        self._chunked = False
        """The response goes out in chunks."""
        self.exchange = Exchange(
            Wire(head.method, b"", b"", head.target, b"HTTP/1.1"), has_body=head.length > 0
        )

    async def serve(self) -> None:
        """Decides it, and sends it if it may go."""
        exchange = self.exchange
        try:
            outcome = await self._decide()
            exchange.agent = self._side.entered.agent
            if is_passage(outcome) and isinstance(outcome.request, Request):
                await self._send(outcome)
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

    async def _decide(self) -> object:
        pipeline, agent = self._side.setup.pipeline, self._side.entered.agent
        if self._body:
            outcome = await pipeline.begin(agent, self._raw(b"", unread=True))
            if outcome is not None:
                return outcome
        return await pipeline.handle(agent, self._raw(self._body), self.exchange.gone)

    def _raw(self, body: bytes, *, unread: bool = False) -> RawRequest:
        head, entered = self._head, self._side.entered
        return RawRequest(
            scheme="https",
            connect=entered.place,
            sni=entered.sni,
            authority=None,
            method=head.method.decode("latin-1"),
            target=head.target.decode("latin-1"),
            headers=head.fields,
            body=body,
            unread=unread,
        )

    async def _send(self, passage: Passage) -> None:
        """Last of all: exactly the passage's request goes upstream."""
        exchange, request, body = self.exchange, passage.request, self._body
        exchange.passage = passage
        try:
            message = request_head(request)
            if request.upgrade is not None:
                raise ValueError("an upgrade that was not asked for")
            if not request.unread:
                body = request.body
            self._require_agent()
            upstream = await self._side.upstream_at((request.scheme, request.host, request.port))
            self._require_agent()
            if request.unread:
                passage.send(body)
                passage.send(b"")
        except NoUpstream as error:
            gone = exchange.gone.is_set()
            await self._fail(pages.GONE_UNSENT if gone else str(error))
            return
        except _Gone:
            self._side.drop_upstream()
            await self._fail(pages.GONE_UNSENT)
            return
        except Exception as error:  # noqa: BLE001 - told to the passage, whatever it was
            report("making the request", error)
            await self._fail(pages.NOTHING_SENT)
            return
        exchange.sent = exchange.asked = True
        exchange.moved = time.monotonic()
        try:
            upstream.ask(message + body, request.method.encode("ascii"), self)
        except (Unreadable, SSL.Error):
            upstream.abort()
            self.on_break()

    def _require_agent(self) -> None:
        if self.exchange.gone.is_set():
            raise _Gone

    def left(self) -> None:
        """The agent is gone."""
        self.exchange.gone.set()
        if self.exchange.sent:
            self.on_break()

    def give_up_late(self) -> None:
        """Ends it if its upstream takes too long."""
        limits = self._side.setup.timeouts
        now = time.monotonic()
        if self.exchange.overdue(now, first_byte=limits.first_byte, idle=limits.idle) is not None:
            self._side.drop_upstream()
            self.on_break()
            self.on_turn()

    # -- the response (see `Asker`)

    def on_head(self, response: http.Response) -> None:
        """The response's head: nothing passes unless it could be cleared."""
        exchange = self.exchange
        if exchange.settled:
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
                self._withdraw(page)
                return
            method = passage.request.method.encode("ascii")
            reason, fields = translate.delivered_head(
                head, exchange.wire, method, close=self._last()
            )
        except Exception as error:  # noqa: BLE001 - what is not cleared does not pass
            report("a response's head", error)
            exchange.faulty = True
            self._withdraw(pages.page("response_refused", pages.UNSAFE_RESPONSE))
            return
        exchange.cleared = exchange.answered = True
        self._chunked = any(name == b"transfer-encoding" for name, _ in fields)
        lines = [b"HTTP/1.1 %d %s" % (head.status, reason)]
        lines += [b"%s: %s" % field for field in fields]
        self._side.write(b"\r\n".join(lines), b"\r\n\r\n")

    def on_data(self, data: bytes) -> None:
        """A part of its body."""
        exchange = self.exchange
        if exchange.settled or exchange.passage is None:
            return
        exchange.moved = time.monotonic()
        try:
            out = exchange.passage.feed(data)
            if exchange.passage.refused:
                raise ValueError("refused in mid-body")
        except Exception as error:  # noqa: BLE001 - whatever it is, the response breaks off
            self._break_off(error)
            return
        self._deliver(out)

    def on_end(self, trailers: Fields) -> None:
        """It is whole."""
        exchange = self.exchange
        if exchange.settled or exchange.passage is None:
            return
        passage = exchange.passage
        exchange.finished = True
        try:
            rest = passage.finish()
            if passage.refused:
                raise ValueError("refused at its end")
            self._deliver(rest)
            if trailers:
                with contextlib.suppress(translate.UnsafeHead):  # then there are none
                    passage.trailers(
                        translate.received_trailers(http.Headers(trailers)), deliver=False
                    )
        except Exception as error:  # noqa: BLE001 - as in mid-body
            self._break_off(error)
            return
        self._side.start(self._complete())

    def on_break(self) -> None:
        """The response will not come, or not whole."""
        exchange, side = self.exchange, self._side
        if not exchange.settled:
            why = exchange.unfinished(side.setup.timeouts, revoked=side.revoked)
            side.start(self._fail(why or pages.NOTHING_SENT))

    def on_turn(self) -> None:
        """What was written may go."""
        self._side.flush()

    def _deliver(self, data: bytes) -> None:
        if not data or self.exchange.wire.method == b"HEAD":
            return
        if self._chunked:
            self._side.write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._side.write(data)

    async def _complete(self) -> None:
        exchange = self.exchange
        exchange.settled = True
        assert exchange.passage is not None
        try:
            await exchange.passage.completed()
        except Exception as error:  # noqa: BLE001 - the response is there; the record will be lost
            report("recording a result", error)
        if self._chunked and exchange.wire.method != b"HEAD":
            self._side.write(b"0\r\n\r\n")
        self._side.answered()

    def _withdraw(self, page: http.Response) -> None:
        """The page instead of the response, whose rest nobody waits for."""
        self._side.drop_upstream()
        self._side.start(self._withdrawn(page))

    async def _withdrawn(self, page: http.Response) -> None:
        exchange = self.exchange
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

    def _break_off(self, error: Exception) -> None:
        passage = self.exchange.passage
        if passage is None or not passage.refused:
            report("a response's body", error)
        self._side.drop_upstream()
        self._side.start(self._fail(pages.BROKE_OFF))

    async def _fail(self, sentence: str) -> None:
        exchange = self.exchange
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
            self._side.broken_off()
        else:
            self._reply(page)

    # -- answers

    def _last(self) -> bool:
        return self._side.setup.draining

    def _reply(self, page: http.Response) -> None:
        """A page of our own, whole."""
        if self.exchange.wire.method == b"HEAD":
            page.data.content = b""
        self._side.write(assembled(page))
        self._side.answered()
