"""WebSocket frames (RFC 6455) on their way through: checked, counted, committed to, scrubbed. Pure.

No extension is ever agreed on, so every payload is plain. What an agent sends passes to the letter.
What an upstream sends is scrubbed message by message, fragments together, and leaves in frames of
its own; a frame is kept up to PIECE bytes, whatever length it announces. A secret that is split
over two messages is not seen.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Protocol

from audit.commitment import Commitment
from broker.errors import KeybrokerError
from broker.scrub import Scrubber

PIECE = 1 << 16
"""Bytes of a payload that are looked at together."""
MAX_CONTROL = 125
"""RFC 6455 5.5."""
PROTOCOL_ERROR = 1002
POLICY_VIOLATION = 1008

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_FIN, _MASKED = 0x80, 0x80
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class BadFrame(KeybrokerError):
    """A frame that breaks the protocol; the socket is over."""


def accept_of(key: str) -> str:
    """The Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324


def close_frame(code: int, mask: bytes = b"") -> bytes:
    """A close frame with a status code; `mask` (4 bytes) where it goes to a server."""
    payload = code.to_bytes(2, "big")
    if not mask:
        return bytes((_FIN | _CLOSE, len(payload))) + payload
    return bytes((_FIN | _CLOSE, _MASKED | len(payload))) + mask + _xor(payload, mask, 0)


class Tally:
    """What passed in one direction: frames, bytes of payload, and a commitment.

    Committed to is, frame by frame, the first byte as on the wire, the payload's length in eight
    bytes, and the payload without its mask.
    """

    def __init__(self, commitment: Commitment) -> None:
        self._commitment = commitment
        self.frames = 0
        self.size = 0

    def begin(self, first: int, length: int) -> None:
        self.frames += 1
        self._commitment.update(bytes((first,)) + length.to_bytes(8, "big"))

    def update(self, payload: bytes) -> None:
        self.size += len(payload)
        self._commitment.update(payload)

    def hexdigest(self) -> str:
        return self._commitment.hexdigest()


class FrameSink(Protocol):
    """Takes the frames of one direction as they are read, and says what passes on."""

    def header(self, first: int, length: int, wire: bytes) -> bytes: ...

    def payload(self, part: bytes, wire: bytes, *, last: bool) -> bytes: ...


class Reader:
    """One direction of a socket: `feed` gives what passes on. Raises BadFrame."""

    def __init__(self, sink: FrameSink, *, masked: bool) -> None:
        """`masked`: as agents must send and upstreams must not."""
        self._sink = sink
        self._masked = masked
        self._head = b""
        self._mask = b""
        self._left = 0
        self._offset = 0
        self._in_message = False
        self.closed = False
        """A close frame came: no more of a message follows it, at most an answer to a ping that was
        on its way (RFC 6455 5.5.1, 5.5.2)."""
        self._open = False

    def feed(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at = 0
        while at < len(data) or (self._open and not self._left):
            if self._open:
                wire = data[at : at + self._left]
                at += len(wire)
                self._left -= len(wire)
                part = _xor(wire, self._mask, self._offset) if self._mask else wire
                self._offset += len(wire)
                out.append(self._sink.payload(part, wire, last=not self._left))
                self._open = bool(self._left)
                continue
            taken = data[at : at + self._missing()]
            at += len(taken)
            self._head += taken
            if not self._missing():
                out.append(self._begin())
        return b"".join(out)

    def _missing(self) -> int:
        """Bytes of the frame's header that are still to come."""
        if len(self._head) < 2:
            return 2 - len(self._head)
        extended = {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0)
        mask = 4 if self._head[1] & _MASKED else 0
        return 2 + extended + mask - len(self._head)

    def _begin(self) -> bytes:
        wire, self._head = self._head, b""
        first, second = wire[0], wire[1]
        opcode, final = first & 0x0F, bool(first & _FIN)
        length = second & 0x7F
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            shortest = 126 if extended == 2 else 1 << 16
            length = int.from_bytes(wire[2 : 2 + extended], "big")
            if length < shortest or length >= 1 << 63:
                raise BadFrame("a frame's length is oddly written")
        if first & 0x70 or opcode not in _OPCODES:
            raise BadFrame("a frame uses an extension that was not agreed on")
        if self.closed and opcode not in (_PING, _PONG):
            raise BadFrame("there is something behind the close frame")
        if bool(second & _MASKED) is not self._masked:
            raise BadFrame("a frame is masked as the other side's are")
        if opcode & 0x8:
            if not final or length > MAX_CONTROL:
                raise BadFrame("a control frame is too long or in pieces")
            self.closed = self.closed or opcode == _CLOSE
        elif (opcode == _CONTINUATION) is not self._in_message:
            raise BadFrame("a message begins inside another, or goes on without a beginning")
        else:
            self._in_message = not final
        self._mask = wire[2 + extended :]
        self._left, self._offset, self._open = length, 0, True
        return self._sink.header(first, length, wire)


class Verbatim:
    """Passes to the letter."""

    def __init__(self, *tallies: Tally) -> None:
        self._tallies = tallies

    def header(self, first: int, length: int, wire: bytes) -> bytes:
        for tally in self._tallies:
            tally.begin(first, length)
        return wire

    def payload(self, part: bytes, wire: bytes, *, last: bool) -> bytes:
        for tally in self._tallies:
            tally.update(part)
        return wire


class ToAgent:
    """What an upstream sends where there is a credential: scrubbed, in frames of its own."""

    def __init__(self, masked: Sequence[bytes], received: Tally, delivered: Tally) -> None:
        """`masked`: the values to look for."""
        self._received, self._delivered = received, delivered
        # A mask of another length is fine in a text; elsewhere offsets may count.
        self._text = Scrubber(masked)
        self._binary = Scrubber(masked, keep_length=True)
        self._control = Scrubber(masked, keep_length=True)
        self._scrubber = self._text
        self._first = 0
        self._kept = bytearray()
        self._opcode = 0
        """Of the next frame to go out in this message: its own for the first, then 0."""

    @property
    def hits(self) -> int:
        return self._text.hits + self._binary.hits + self._control.hits

    def header(self, first: int, length: int, wire: bytes) -> bytes:
        self._received.begin(first, length)
        self._first = first
        opcode = first & 0x0F
        if opcode in (_TEXT, _BINARY):
            self._scrubber = self._text if opcode == _TEXT else self._binary
            self._opcode = opcode
        return b""

    def payload(self, part: bytes, wire: bytes, *, last: bool) -> bytes:
        self._received.update(part)
        self._kept += part
        out: list[bytes] = []
        while len(self._kept) > PIECE:
            piece = bytes(self._kept[:PIECE])
            del self._kept[:PIECE]
            out.append(self._data(self._scrubber.feed(piece), final=False))
        if last:
            rest = bytes(self._kept)
            self._kept.clear()
            final = bool(self._first & _FIN)
            if self._first & 0x8:
                scrubbed = self._control.feed(rest) + self._control.finish()
                out.append(self._frame(self._first, scrubbed))
            else:
                scrubbed = self._scrubber.feed(rest)
                out.append(
                    self._data(scrubbed + (self._scrubber.finish() if final else b""), final=final)
                )
        return b"".join(out)

    def _data(self, payload: bytes, *, final: bool) -> bytes:
        first = self._opcode | (_FIN if final else 0)
        self._opcode = _CONTINUATION
        return self._frame(first, payload)

    def _frame(self, first: int, payload: bytes) -> bytes:
        self._delivered.begin(first, len(payload))
        self._delivered.update(payload)
        return bytes((first,)) + _length(len(payload)) + payload


def _length(size: int) -> bytes:
    if size < 126:
        return bytes((size,))
    if size < 1 << 16:
        return b"\x7e" + size.to_bytes(2, "big")
    return b"\x7f" + size.to_bytes(8, "big")


def _xor(data: bytes, mask: bytes, offset: int) -> bytes:
    """`data`, which begins `offset` bytes into its payload, with the mask on or off."""
    if not data:
        return b""
    turned = mask[offset % 4 :] + mask[: offset % 4]
    keys = (turned * (len(data) // 4 + 1))[: len(data)]
    value = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
    return value.to_bytes(len(data), "little")
