"""A call on its way: the request to forward, and the response as it streams back through the
scrubber.

Everything that comes back is hashed as received and as delivered, and recorded once, whichever
way it ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from audit.commitment import Commitment
from audit.record import JSON
from broker.answers import REQUEST_ID, Answer, problem
from broker.encodings import CorruptBody, Decoder, unsupported
from broker.errors import NOT_AGAIN, Refusal
from broker.grpc import MessageScrubber, compressed, has_messages
from broker.scrub import Scrubber
from broker.sending import Outcome, Sending, Uploaded
from broker.telemetry.journey import Journey
from broker.telemetry.logs import about
from broker.telemetry.metrics import NO_CODE
from broker.upload import Upload, encode_trailers
from broker.websocket import Socket, odd_handshake
from rules.errors import Ambiguous
from rules.request import Headers, Request
from rules.trailers import may_trail, read_trailers

log = logging.getLogger(__name__)

SLICE = 1 << 14
"""Bytes of a received body that are decoded together."""
MOST_AT_ONCE = 1 << 22
"""Bytes that these may become. A few hundred bytes of `br` could be gigabytes otherwise, all of it
decoded and masked before anybody else's call has its turn."""
RECORD_WITHIN = 10.0
"""Seconds that the record of a result is waited for."""

# These speak of the body as the upstream sent it, which a scrubbed body may no longer be.
_OF_THE_BODY = frozenset(
    {
        "content-length",
        "content-encoding",
        "etag",
        "content-md5",
        "digest",
        "content-digest",
        "repr-digest",
        "accept-ranges",
    }
)

_TEXT = re.compile(
    r"\s*(text/|application/([^;]*\+)?(json|xml|x-www-form-urlencoded|javascript))", re.I
)


class BodyScrubber(Protocol):
    """Masks a body that streams through."""

    def feed(self, chunk: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


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
        self._masked = masked
        self._journey = journey or Journey(call, agent)
        self._approved = approved
        self._salt = salt
        self._socket: Socket | None = None
        self._scrubber = Scrubber(masked) if masked else None
        """Of texts, and of a body unless it is of a kind that has its own."""
        self._bodies: Scrubber | None = None
        self._body: BodyScrubber | None = self._scrubber
        self._decoder: Decoder | None = None
        self._is_text = False
        """An archive may be compressed without saying so in Content-Encoding; a text may not."""
        self._received = Commitment(salt, "received")
        self._delivered = Commitment(salt, "delivered")
        self._received_size = self._delivered_size = 0
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

    def head(self, status: int, reason: str, headers: Sequence[tuple[str, str]]) -> Head:
        """The head to deliver for the one received."""
        self._first_byte = time.monotonic()
        self._status = status
        kept = [(n, v) for n, v in headers if not n.lower().startswith("keybroker-")]
        if status == 101:
            odd = odd_handshake(self.request, tuple(headers))
            if odd is not None:
                return self._refuse(f"The upstream did not open the WebSocket: {odd}.")
            self._socket = Socket(self._salt, self._masked)
        if self._scrubber is not None:
            named = [(n.lower(), v) for n, v in headers]
            encoding = ", ".join([v for n, v in named if n == "content-encoding"])
            if unsupported(encoding):
                # Not which one: the upstream may have put the credential in that place.
                return self._refuse(
                    "The upstream answered in an encoding in which a reflected credential could"
                    " not be masked. Ask for an unencoded response."
                )
            types = [v for n, v in named if n == "content-type"]
            if has_messages(", ".join(types)):
                if compressed(headers):
                    return self._refuse(
                        "The upstream compresses its messages, in which a reflected credential"
                        " could not be masked. Ask for identity."
                    )
                self._bodies = Scrubber(self._masked, keep_length=True)
                self._body = MessageScrubber(self._bodies)
            elif status == 206:
                # Content-Range, and the ranges of a multipart body, count bytes.
                self._body = self._bodies = Scrubber(self._masked, keep_length=True)
            has_body = self.request.method != "HEAD" and status not in (101, 204, 304)
            if has_body:
                self._decoder = Decoder(encoding)
                self._is_text = any(map(_TEXT.match, types))
                kept = [(n, v) for n, v in kept if n.lower() not in _OF_THE_BODY]
            if not self._scrubber.is_clean((reason, *_lines(kept))):
                reason = self._scrubber.scrub_text(reason)
                kept = [line for n, v in kept if (line := self._scrubbed(n, v)) is not None]
        return Head(status, reason, (*kept, (REQUEST_ID, self.call)))

    def feed(self, chunk: bytes) -> bytes:
        """What to deliver for a received chunk; may be empty.

        Raises Refusal if the body turns out to be one that cannot be scrubbed: the connection to
        the agent is then to be cut, since the head has left already.
        """
        if self._refused is not None:
            return b""
        self._received.update(chunk)
        self._received_size += len(chunk)
        if self._scrubber is None:
            return self._deliver(chunk)
        if len(chunk) <= SLICE:
            return self._decode(lambda decoder: decoder.feed(chunk))
        slices = [chunk[at : at + SLICE] for at in range(0, len(chunk), SLICE)]
        return b"".join([self._decode(partial(_feed, piece)) for piece in slices])

    def finish(self) -> bytes:
        """What is left to deliver at the end of the body."""
        if self._refused is not None or self._scrubber is None:
            return b""
        rest = self._decode(lambda decoder: decoder.finish())
        return rest + self._deliver(self._body.finish() if self._body else b"")

    def trailers(self, fields: Headers, *, deliver: bool) -> Headers:
        """What to deliver of the trailers received; nothing if the agent cannot take any."""
        self._received.update(encode_trailers(fields))
        kept = [(n, v) for n, v in fields if may_trail(n.lower())] if deliver else []
        if self._scrubber is not None:
            kept = [(n, v) for n, v in kept if n.lower() not in _OF_THE_BODY]
            kept = [line for n, v in kept if (line := self._scrubbed(n, v)) is not None]
        self._delivered.update(encode_trailers(tuple(kept)))
        return tuple(kept)

    def frames_from_agent(self, data: bytes) -> bytes:
        """What to send upstream of an open WebSocket. Raises BadFrame: the socket is over."""
        return self._open_socket().from_agent(data)

    def frames_from_upstream(self, data: bytes) -> bytes:
        """What to deliver. Raises BadFrame: the socket is over."""
        return self._open_socket().from_upstream(data)

    @property
    def socket_closed(self) -> bool:
        """Whether both sides of the WebSocket have closed it."""
        return self._open_socket().closed

    def _open_socket(self) -> Socket:
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
        received, delivered = self._received.hexdigest(), self._delivered.hexdigest()
        received_size, delivered_size = self._received_size, self._delivered_size
        if self._socket is not None:
            received, delivered, received_size, delivered_size = self._socket.delivered
        outcome = Outcome(
            status=self._status,
            received=received,
            delivered=delivered,
            received_size=received_size,
            delivered_size=delivered_size,
            masked=self._hits(),
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

    def _hits(self) -> int:
        hits = 0 if self._socket is None else self._socket.hits
        if self._scrubber is not None:
            hits += self._scrubber.hits
        if self._bodies is not None:
            hits += self._bodies.hits
        return hits

    def _frames(self) -> Mapping[str, JSON] | None:
        return None if self._socket is None else self._socket.to_json()

    def _uploaded(self) -> Uploaded | None:
        upload = self._upload
        if upload is None:
            return None
        return Uploaded(upload.hexdigest(), upload.size, upload.whole)

    def _scrubbed(self, name: str, value: str) -> tuple[str, str] | None:
        """The header line masked; None if the credential reaches into its name."""
        assert self._scrubber is not None
        scrub = self._scrubber.scrub_text
        masked = scrub(value)
        if any(scrub(line) != line for line in _lines(((name, masked),))):
            return None
        return name, masked

    def _refuse(self, sentence: str) -> Head:
        self._refused = Refusal("response_refused", sentence, headers=NOT_AGAIN)
        answer = problem(self._refused, self.call)
        return Head(answer.status, "", answer.headers, answer)

    def _decode(self, step: Callable[[Decoder], Iterable[bytes]]) -> bytes:
        assert self._body is not None
        if self._decoder is None:
            return b""  # no body belongs to this response
        out: list[bytes] = []
        most = MOST_AT_ONCE
        try:
            for piece in step(self._decoder):
                most -= len(piece)
                if most < 0:
                    raise CorruptBody("it swells beyond measure when it is decoded")
                if self._decoder.disguise is not None and self._is_text:
                    raise CorruptBody(
                        f"it is compressed ({self._decoder.disguise}) and says not so"
                    )
                out.append(self._deliver(self._body.feed(piece)))
        except CorruptBody as error:
            self._refused = Refusal("response_refused", f"The response could not be read: {error}")
            raise self._refused from error
        return b"".join(out)

    def _deliver(self, chunk: bytes) -> bytes:
        self._delivered.update(chunk)
        self._delivered_size += len(chunk)
        return chunk

    def _clean(self, sentence: str) -> str:
        text = sentence if self._scrubber is None else self._scrubber.scrub_text(sentence)
        return text.strip().rstrip(".")

    def _note(self, stage: str, begin: float, end: float, *, well: bool = True) -> None:
        self._journey.stages.append((stage, begin, end, well))

    def _end(
        self, outcome: str, code: str = NO_CODE, status: int = 0, *, sent: bool = True
    ) -> None:
        journey = self._journey
        body = len(self.request.body) if self._upload is None else self._upload.size
        journey.sent = body if sent else 0
        journey.received, journey.delivered = self._received_size, self._delivered_size
        journey.masked = self._hits()
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


def _lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Header lines, each in two ways: a credential may hold a colon, and be told as the name and
    the beginning of the value."""
    return [line for n, v in headers for line in (f"{n}:{v}", f"{n}: {v}")]


def _feed(chunk: bytes, decoder: Decoder) -> Iterable[bytes]:
    return decoder.feed(chunk)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
