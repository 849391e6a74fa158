"""Bodies made of messages with their length before them: gRPC, gRPC-Web, Connect. Pure.

Each message is scrubbed by itself and leaves whole as soon as it is there: its last bytes cannot
wait for the next one, since a peer may wait for this one first. A mask is as long as what it
covers, or the lengths would be wrong. A secret that is split over two messages is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from broker.encodings import CorruptBody
from broker.scrub import Scrubber
from rules.request import Headers

PREFIX = 5
"""One byte of flags, four of length (gRPC over HTTP/2, Length-Prefixed-Message)."""
COMPRESSED = 0x01

_MESSAGES = re.compile(
    r"\s*application/(grpc(-web)?(\+[a-z0-9.-]+)?|connect\+[a-z0-9.-]+)\s*(;|$)", re.I
)
_ENCODINGS = frozenset({"grpc-encoding", "connect-content-encoding"})
ACCEPT_ENCODINGS = frozenset({"grpc-accept-encoding", "connect-accept-encoding"})
"""What a request says of the compressions that it takes for messages."""


def has_messages(content_type: str | None) -> bool:
    """Whether a body of this type is made of messages."""
    return content_type is not None and _MESSAGES.match(content_type) is not None


def compressed(headers: Sequence[tuple[str, str]] | Headers) -> bool:
    """Whether a response's head says that messages may be compressed, and so unreadable."""
    return any(
        name.lower() in _ENCODINGS and value.strip().lower() not in ("", "identity")
        for name, value in headers
    )


class MessageScrubber:
    """A response body of messages, in order: `feed` each chunk, then `finish`."""

    def __init__(self, scrubber: Scrubber) -> None:
        """`scrubber` must keep lengths."""
        self._scrubber = scrubber
        self._prefix = b""
        self._left = 0
        """Bytes of the present message that are still to come."""

    def feed(self, chunk: bytes) -> bytes:
        """The next part of the scrubbed body. Raises CorruptBody for a compressed message."""
        out: list[bytes] = []
        at = 0
        while at < len(chunk):
            if self._left:
                part = chunk[at : at + self._left]
                out.append(self._scrubber.feed(part))
                at += len(part)
                self._left -= len(part)
            else:
                part = chunk[at : at + PREFIX - len(self._prefix)]
                at += len(part)
                self._prefix += part
                if len(self._prefix) < PREFIX:
                    break
                if self._prefix[0] & COMPRESSED:
                    raise CorruptBody("it has a compressed message")
                self._left = int.from_bytes(self._prefix[1:], "big")
                out.append(self._prefix)
                self._prefix = b""
            if not self._left:
                out.append(self._scrubber.finish())
        return b"".join(out)

    def finish(self) -> bytes:
        """What is left, where the body ends in the middle of a message."""
        rest = self._scrubber.finish() + self._prefix
        self._prefix, self._left = b"", 0
        return rest
