"""A call on its way: the request to forward, and its result, recorded once, whichever way it ends.

What streams through is looked at by an `Upload`, a `Delivery` or a `Socket`; what one of these
refuses ends the call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass

from audit.record import JSON
from broker.answers import REQUEST_ID, Answer, problem
from broker.delivery import Delivery
from broker.errors import NOT_AGAIN, Refusal
from broker.sending import Outcome, Sending, Uploaded
from broker.telemetry.journey import Journey
from broker.telemetry.logs import about
from broker.telemetry.metrics import NO_CODE
from broker.upload import Upload
from broker.websocket import Socket, odd_handshake
from rules.errors import Ambiguous
from rules.request import Headers, Request
from rules.trailers import read_trailers

log = logging.getLogger(__name__)

RECORD_WITHIN = 10.0
"""Seconds that the record of a result is waited for."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of the response to deliver; if `answer` is set, that instead of the response."""

    status: int
    reason: str
    headers: Headers
    answer: Answer | None = None


class Passage:
    """One call that was committed to the ledger and may go upstream, once."""

    def __init__(
        self,
        call: str,
        agent: str,
        request: Request,
        *,
        masked: Sequence[bytes],
        salt: bytes,
        sending: Sending,
        body_limit: int | None = None,
        journey: Journey | None = None,
        approved: bool = False,
    ) -> None:
        """`body_limit`: bytes of a body that is passed on as it comes. `approved`: the call uses an
        approval, which is used up once its result is recorded."""
        self.call = call
        self.request = request
        """Exactly what is forwarded, the credential in its slot."""
        self._agent = agent
        self._sending = sending
        self._journey = journey or Journey(call, agent)
        self._approved = approved
        self._delivery = Delivery(request.method, salt, masked)
        self._salt = salt
        self._masked = masked
        self._socket: Socket | None = None
        self._started = time.monotonic()
        self._first_byte: float | None = None
        self._status = 0
        self._upload = (
            Upload(salt, length=request.length, limit=body_limit) if request.unread else None
        )
        self._refused: Refusal | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"Passage({self.call})"

    def send(self, chunk: bytes) -> None:
        """Takes note of a part of an unread body before it leaves; an empty one is its end.

        Raises Refusal if it must not leave: the call then fails, and the upstream is to be cut off.
        """
        if self._upload is None:
            raise RuntimeError("the body of this call is in its request")
        try:
            if chunk:
                self._upload.feed(chunk)
            else:
                self._upload.finish()
        except Refusal as refusal:
            self._refused = refusal
            raise

    def send_trailers(self, raw: Sequence[tuple[bytes, bytes]]) -> Headers:
        """The trailers of an unread body as they may leave. Raises Refusal if they must not."""
        if self._upload is None:
            raise RuntimeError("the body of this call is in its request")
        try:
            fields = read_trailers(raw, frozenset(name for name, _ in self.request.headers))
        except Ambiguous as ambiguous:
            self._refused = Refusal("request_ambiguous", ambiguous.sentence)
            raise self._refused from ambiguous
        self._upload.trailers(fields)
        return fields

    def head(self, status: int, reason: str, headers: Headers) -> Head:
        """The head to deliver for the one received."""
        self._first_byte = time.monotonic()
        self._status = status
        try:
            if status == 101:
                odd = odd_handshake(self.request, headers)
                if odd is not None:
                    sentence = f"The upstream did not open the WebSocket: {odd}."
                    raise Refusal("response_refused", sentence, headers=NOT_AGAIN)
                self._socket = Socket(self._salt, self._masked)
            reason, kept = self._delivery.head(status, reason, headers)
        except Refusal as refusal:
            self._refused = refusal
            answer = problem(refusal, self.call)
            return Head(answer.status, "", answer.headers, answer)
        return Head(status, reason, (*kept, (REQUEST_ID, self.call)))

    def feed(self, chunk: bytes) -> bytes:
        """What to deliver for a received chunk; may be empty.

        Raises Refusal if the body turns out to be one that cannot be scrubbed: the connection to
        the agent is then to be cut, since the head has left already.
        """
        if self._refused is not None:
            return b""
        try:
            return self._delivery.feed(chunk)
        except Refusal as refusal:
            self._refused = refusal
            raise

    def finish(self) -> bytes:
        """What is left to deliver at the end of the body. Raises Refusal as `feed` does."""
        if self._refused is not None:
            return b""
        try:
            return self._delivery.finish()
        except Refusal as refusal:
            self._refused = refusal
            raise

    def trailers(self, fields: Headers, *, deliver: bool) -> Headers:
        """What to deliver of the trailers received; nothing if the agent cannot take any."""
        return self._delivery.trailers(fields, deliver=deliver)

    def frames_from_agent(self, data: bytes) -> bytes:
        """What to send upstream of an open WebSocket. Raises BadFrame: the socket is over."""
        return self._opened.from_agent(data)

    def frames_from_upstream(self, data: bytes) -> bytes:
        """What to deliver. Raises BadFrame: the socket is over."""
        return self._opened.from_upstream(data)

    @property
    def socket_closed(self) -> bool:
        """Whether both sides of the WebSocket have closed it."""
        return self._opened.closed

    @property
    def _opened(self) -> Socket:
        if self._socket is None:
            raise RuntimeError("no WebSocket was opened")
        return self._socket

    @property
    def refused(self) -> bool:
        """Whether the response turned out, in its middle, to be one that cannot be passed on."""
        return self._refused is not None

    async def completed(self) -> None:
        """Hands the result to the ledger; the first of `completed` and `failed` counts.

        The response was delivered, so the record need not be waited for: it is durable some
        milliseconds later, with what is written next. Only if an approval hangs on it, at once.
        """
        if self._refused is not None:
            await self.failed(self._refused.detail, sent=True)
            return
        if self._over:
            return
        self._over = True
        now = time.monotonic()
        first_byte = self._first_byte or now
        passed = self._delivery if self._socket is None else self._socket
        received, delivered, received_size, delivered_size = passed.delivered
        outcome = Outcome(
            status=self._status,
            received=received,
            delivered=delivered,
            received_size=received_size,
            delivered_size=delivered_size,
            masked=self._hits,
            duration_ms=_ms(now - self._started),
            first_byte_ms=_ms(first_byte - self._started),
            upload=self._uploaded(),
            socket=self._frames(),
        )
        self._note("upstream", self._started, first_byte)
        self._note("deliver", first_byte, now)
        recorded = self._sending.completed(
            self.call, self._agent, outcome, patient=not self._approved
        )
        self._end("completed", status=self._status)
        if self._approved:
            await self._record(recorded)
        else:
            recorded.add_done_callback(self._look)

    async def failed(self, sentence: str, *, sent: bool) -> Answer:
        """Records that no whole response came; returns the answer for the agent.

        `sent` is False only if certainly no byte of the request left: then an approval stays good.
        """
        refusal = self._refused or Refusal(
            "upstream_unreachable",
            f"{self._clean(sentence)}."
            + (
                " The request may have taken effect: look before you repeat it."
                if sent
                else " Nothing was sent; you can try again."
            ),
            headers=NOT_AGAIN if sent else (),
        )
        if not self._over:
            self._over = True
            now = time.monotonic()
            recorded = self._sending.failed(
                self.call,
                self._agent,
                code=refusal.code,
                sentence=refusal.detail,
                sent=sent,
                duration_ms=_ms(now - self._started),
                upload=self._uploaded(),
                socket=self._frames(),
            )
            self._note("upstream", self._started, self._first_byte or now, well=False)
            self._end("failed", refusal.code, refusal.status, sent=sent)
            await self._record(recorded)
        return problem(refusal, self.call)

    @property
    def _hits(self) -> int:
        socket = 0 if self._socket is None else self._socket.hits
        return socket + self._delivery.hits

    def _frames(self) -> Mapping[str, JSON] | None:
        return None if self._socket is None else self._socket.to_json()

    def _uploaded(self) -> Uploaded | None:
        upload = self._upload
        if upload is None:
            return None
        return Uploaded(upload.hexdigest(), upload.size, upload.whole)

    def _clean(self, sentence: str) -> str:
        return self._delivery.clean(sentence).strip().rstrip(".")

    def _note(self, stage: str, begin: float, end: float, *, well: bool = True) -> None:
        self._journey.stages.append((stage, begin, end, well))

    def _end(
        self, outcome: str, code: str = NO_CODE, status: int = 0, *, sent: bool = True
    ) -> None:
        journey = self._journey
        body = len(self.request.body) if self._upload is None else self._upload.size
        journey.sent = body if sent else 0
        journey.received = self._delivery.received_size
        journey.delivered = self._delivery.delivered_size
        journey.masked = self._hits
        journey.end(outcome, code, status)

    async def _record(self, recorded: Future[None]) -> None:
        recorded.add_done_callback(self._look)
        with suppress(Exception):  # `_look` tells of it
            async with asyncio.timeout(RECORD_WITHIN):
                # Shielded: a record that comes late is better than none.
                await asyncio.shield(asyncio.wrap_future(recorded))

    def _look(self, recorded: Future[None]) -> None:
        # The agent has its response; recovery makes the call unknown.
        error = CancelledError() if recorded.cancelled() else recorded.exception()
        if error is not None:
            log.error(
                "the result of %s could not be recorded: %s",
                self.call,
                error,
                extra=about("call.unrecorded", call=self.call, agent=self._agent),
            )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
