"""One WebSocket on its way through: both directions, and what the ledger says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audit.commitment import Commitment
from audit.record import JSON
from broker.frames import BadFrame, Reader, Tally, ToAgent, Verbatim, accept_of
from rules.request import Headers, Request


class Socket:
    """Frames from the agent pass to the letter, frames from the upstream scrubbed."""

    def __init__(self, salt: bytes, masked: Sequence[bytes]) -> None:
        """`masked`: every value injected into the handshake."""
        self._sent = Tally(Commitment(salt, "sent"))
        self._received = Tally(Commitment(salt, "received"))
        self._delivered = Tally(Commitment(salt, "delivered"))
        self._scrubbed = ToAgent(masked, self._received, self._delivered) if masked else None
        self._up = Reader(Verbatim(self._sent), masked=True)
        self._down = Reader(
            self._scrubbed or Verbatim(self._received, self._delivered), masked=False
        )

    def from_agent(self, data: bytes) -> bytes:
        """What to send upstream. Raises BadFrame."""
        return self._up.feed(data)

    def from_upstream(self, data: bytes) -> bytes:
        """What to deliver. Raises BadFrame."""
        return self._down.feed(data)

    @property
    def closed(self) -> bool:
        """Whether both sides have said so."""
        return self._up.closed and self._down.closed

    @property
    def hits(self) -> int:
        """Spellings masked so far."""
        return 0 if self._scrubbed is None else self._scrubbed.hits

    @property
    def delivered(self) -> tuple[str, str, int, int]:
        """Commitments to what was received and delivered, and the bytes of payload in each."""
        received, delivered = self._received, self._delivered
        return received.hexdigest(), delivered.hexdigest(), received.size, delivered.size

    def to_json(self) -> Mapping[str, JSON]:
        """What the record of the result says beside that."""
        return {
            "sent": self._sent.hexdigest(),
            "sent_size": self._sent.size,
            "sent_frames": self._sent.frames,
            "received_frames": self._received.frames,
        }


def odd_handshake(request: Request, headers: Headers) -> str | None:
    """Why a 101 did not open the WebSocket that was asked for; None if it did (RFC 6455 4.1)."""
    named = {name.lower(): value for name, value in headers}
    if "sec-websocket-extensions" in named:
        return "it answers with an extension that was not asked for"
    key = request.header("sec-websocket-key") or ""
    accepts = [value for name, value in headers if name.lower() == "sec-websocket-accept"]
    if accepts != [accept_of(key)]:
        return "its Sec-WebSocket-Accept is not the one for the key"
    return None


__all__ = ["BadFrame", "Socket", "odd_handshake"]
