"""The calls of one agent's connection: the hooks of mitmproxy's core for a flow, and law 1 in them.

A refusal is set before anything is decided and lifted last: whatever raises, hangs, is cancelled or
makes no sense in between leaves it in place, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from mitmproxy import http

from broker.errors import Refusal
from broker.model import Client
from proxy import gateway, pages, translate
from proxy.arrival import Arrival
from proxy.chain import SAID
from proxy.exchange import Exchange, exchange_of
from proxy.faults import report
from proxy.patience import Dials
from proxy.ports import Answer, Passage, is_answer, is_passage
from proxy.setup import Setup
from rules.errors import Ambiguous
from rules.request import Request


class ResponseRefused(Exception):
    """The passage found in mid-body that the response cannot be passed on."""


class Calls:
    """Each is an `Exchange`; over HTTP/2 several at a time."""

    def __init__(
        self, setup: Setup, arrival: Arrival, dials: Dials, begun: Callable[[], None]
    ) -> None:
        """`begun` is told of each head that is whole."""
        self._setup = setup
        self._arrival = arrival
        self._dials = dials
        self._begun = begun
        self.live: set[Exchange] = set()
        """Those that have begun and are not answered yet."""
        self.revoked = False
        """The agent is no longer known: calls that end now end because of that."""
        self._unattended: Client | None = None
        self._socket: Exchange | None = None

    @property
    def watched(self) -> Client | None:
        """Whose WebSocket or streaming body this is: no decision looks at it any more."""
        if self._unattended is not None:
            return self._unattended
        passing = (x.agent for x in self.live if x.streaming or x.answered)
        return next(passing, None)

    async def agent_left(self) -> None:
        """The agent is gone: whoever waits is told, and an open WebSocket is over."""
        for exchange in tuple(self.live):
            exchange.gone.set()
        if self._socket is not None:
            await self._end_socket(self._socket)

    # -- what mitmproxy's core calls

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.response = pages.page("internal_error", pages.NOTHING_SENT)
        self._begun()
        exchange = exchange_of(flow)
        self.live.add(exchange)
        exchange.on_end = lambda: self.live.discard(exchange)
        if self._arrival.place is None:
            try:
                self._arrival.identify(flow, exchange)
            except (Refusal, Ambiguous) as error:
                # Of what a stranger sends after this head little is kept.
                exchange.page = self.refusal(error, exchange.wire)
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
            agent, raw = self._arrival.read(flow, exchange, unread=True)
        except (Refusal, Ambiguous):
            return  # said when the request is whole
        outcome = await self._setup.pipeline.begin(agent, raw)
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

    async def request(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        wire = exchange.wire
        if exchange.streaming:
            return  # its end; it was decided by its head
        if exchange.page is not None:
            flow.response = exchange.page
            return
        try:
            agent, raw = self._arrival.read(flow, exchange)
        except (Refusal, Ambiguous) as error:
            flow.response = self.refusal(error, wire)
            return
        outcome = await self._setup.pipeline.handle(agent, raw, exchange.gone)
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

    def responseheaders(self, flow: http.HTTPFlow) -> None:
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
            head, exchange.wire, flow.request.data.method, close=self._setup.draining
        )
        response.stream = _pump(exchange, passage)
        response.timestamp_start = received.timestamp_start
        flow.response = response
        if received.status_code == 101:
            self._unattended = exchange.agent
        exchange.cleared = True

    async def response(self, flow: http.HTTPFlow) -> None:
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

    async def error(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        self.live.discard(exchange)
        passage = exchange.passage
        if passage is None or exchange.settled:
            return
        exchange.settled = True
        answer = await passage.failed(self._sentence(flow, exchange), sent=exchange.sent)
        exchange.page = self._answer(answer, exchange)

    async def websocket_end(self, flow: http.HTTPFlow) -> None:
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
        known = exchange.unfinished(self._setup.timeouts, revoked=self.revoked)
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

    def refusal(self, error: Refusal | Ambiguous, wire: Any) -> http.Response:
        if isinstance(error, Ambiguous):
            error = Refusal("request_ambiguous", error.sentence)
        answer = self._setup.pipeline.refusal_answer(error)
        response = translate.answer_response(answer, wire, close=self._setup.draining)
        if response.status_code == 407 and "proxy-authenticate" not in response.headers:
            response.headers["proxy-authenticate"] = pages.CHALLENGE.decode()
        return response

    def _answer(self, answer: Answer, exchange: Exchange) -> http.Response:
        return translate.answer_response(answer, exchange.wire, close=self._setup.draining)


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
