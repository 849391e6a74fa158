"""A response on its way back: hashed as received, decoded, masked, hashed as delivered. Pure.

Without a credential in the call everything passes as it is. With one, what cannot be looked into
is refused, in sentences that quote nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from typing import Protocol

from audit.commitment import Commitment
from broker.encodings import CorruptBody, Decoder, unsupported
from broker.errors import NOT_AGAIN, Refusal
from broker.grpc import MessageScrubber, compressed, has_messages
from broker.scrub import Scrubber
from broker.upload import encode_trailers
from rules.request import Headers
from rules.trailers import may_trail

SLICE = 1 << 14
"""Bytes of a received body that are decoded together."""
MOST_AT_ONCE = 1 << 22
"""Bytes that these may become. A few hundred bytes of `br` could be gigabytes otherwise, all of it
decoded and masked before anybody else's call has its turn."""

_OURS = "keybroker-"
"""An upstream cannot speak as Keybroker."""

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


class Delivery:
    """One response, in order: `head`, `feed` for each chunk, `finish`, maybe `trailers`.

    Once one of them has raised Refusal, nothing more of the response is to be delivered.
    """

    def __init__(self, method: str, salt: bytes, masked: Sequence[bytes]) -> None:
        """`method` of the request; `masked`: every form of what was injected into it."""
        self._method = method
        self._masked = masked
        self._scrubber = Scrubber(masked) if masked else None
        """Of texts, and of a body unless it is of a kind that has its own."""
        self._bodies: Scrubber | None = None
        self._body: BodyScrubber | None = self._scrubber
        self._decoder: Decoder | None = None
        self._is_text = False
        """An archive may be compressed without saying so in Content-Encoding; a text may not."""
        self._received = Commitment(salt, "received")
        self._delivered = Commitment(salt, "delivered")
        self.received_size = self.delivered_size = 0

    def head(self, status: int, reason: str, headers: Headers) -> tuple[str, Headers]:
        """The reason and the headers to deliver for those received. Raises Refusal."""
        if self._scrubber is None:
            theirs = [line for line in headers if not line[0].lower().startswith(_OURS)]
            return reason, tuple(theirs)
        named = [(line[0].lower(), line) for line in headers]
        encoding = ", ".join([line[1] for n, line in named if n == "content-encoding"])
        if unsupported(encoding):
            # Not which one: the upstream may have put the credential in that place.
            raise _refused(
                "The upstream answered in an encoding in which a reflected credential could"
                " not be masked. Ask for an unencoded response."
            )
        types = [line[1] for n, line in named if n == "content-type"]
        if has_messages(", ".join(types)):
            if compressed(headers):
                raise _refused(
                    "The upstream compresses its messages, in which a reflected credential"
                    " could not be masked. Ask for identity."
                )
            self._bodies = Scrubber(self._masked, keep_length=True)
            self._body = MessageScrubber(self._bodies)
        elif status == 206:
            # Content-Range, and the ranges of a multipart body, count bytes.
            self._body = self._bodies = Scrubber(self._masked, keep_length=True)
        untrue: Set[str] = frozenset()
        if self._method != "HEAD" and status not in (101, 204, 304):  # it has a body
            self._decoder = Decoder(encoding)
            self._is_text = any(map(_TEXT.match, types))
            untrue = _OF_THE_BODY
        kept = [line for n, line in named if n not in untrue and not n.startswith(_OURS)]
        if not self._scrubber.is_clean((reason, *_lines(kept))):
            reason = self._scrubber.scrub_text(reason)
            kept = [line for n, v in kept if (line := self._scrubbed(n, v)) is not None]
        return reason, tuple(kept)

    def feed(self, chunk: bytes) -> bytes:
        """What to deliver for a received chunk; may be empty. Raises Refusal if the body turns out
        to be one that cannot be scrubbed."""
        self._received.update(chunk)
        self.received_size += len(chunk)
        if self._scrubber is None:
            return self._deliver(chunk)
        if len(chunk) <= SLICE:
            return self._decode(lambda decoder: decoder.feed(chunk))
        slices = [chunk[at : at + SLICE] for at in range(0, len(chunk), SLICE)]
        return b"".join([self._decode(partial(_feed, piece)) for piece in slices])

    def finish(self) -> bytes:
        """What is left to deliver at the end of the body. Raises Refusal."""
        if self._scrubber is None:
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

    def clean(self, sentence: str) -> str:
        """A sentence about the response, which may quote some of it, masked."""
        return sentence if self._scrubber is None else self._scrubber.scrub_text(sentence)

    @property
    def hits(self) -> int:
        """Spellings masked so far."""
        texts = 0 if self._scrubber is None else self._scrubber.hits
        return texts if self._bodies is None else texts + self._bodies.hits

    @property
    def delivered(self) -> tuple[str, str, int, int]:
        """Commitments to what was received and delivered, and the bytes of the body in each."""
        received, delivered = self._received.hexdigest(), self._delivered.hexdigest()
        return received, delivered, self.received_size, self.delivered_size

    def _scrubbed(self, name: str, value: str) -> tuple[str, str] | None:
        """The header line masked; None if the credential reaches into its name."""
        assert self._scrubber is not None
        scrub = self._scrubber.scrub_text
        masked = scrub(value)
        if any(scrub(line) != line for line in _lines(((name, masked),))):
            return None
        return name, masked

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
            raise _refused(f"The response could not be read: {error}") from error
        return b"".join(out)

    def _deliver(self, chunk: bytes) -> bytes:
        self._delivered.update(chunk)
        self.delivered_size += len(chunk)
        return chunk


def _refused(sentence: str) -> Refusal:
    return Refusal("response_refused", sentence, headers=NOT_AGAIN)


def _lines(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Header lines, each in two ways: a credential may hold a colon, and be told as the name and
    the beginning of the value."""
    return [line for n, v in headers for line in (f"{n}:{v}", f"{n}: {v}")]


def _feed(chunk: bytes, decoder: Decoder) -> Iterable[bytes]:
    return decoder.feed(chunk)
