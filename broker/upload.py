"""A request body that is passed on as it comes: counted, committed to and bounded, never kept.

The call was decided by its head alone; what its body was stands in the record of its result.
"""

from __future__ import annotations

from audit.commitment import Commitment
from broker.errors import Refusal
from rules.request import Headers


class Upload:
    """One body, in order: `feed` each chunk, maybe `trailers`, then `finish`."""

    def __init__(self, salt: bytes, *, length: int | None, limit: int | None) -> None:
        """`length` is what the agent announced, `limit` what the rule allows; both in bytes."""
        self._commitment = Commitment(salt, "body")
        self._length = length
        self._limit = limit
        self.size = 0
        self.whole = False
        """Whether all of it was passed on."""

    def feed(self, chunk: bytes) -> None:
        """Takes note of a chunk that is about to leave. Raises Refusal if it must not."""
        size = self.size + len(chunk)
        if self._limit is not None and size > self._limit:
            raise Refusal(
                "body_too_large",
                f"The body has more than {self._limit} bytes, which are what the rule allows; it"
                " was cut off, and the upstream got a part of it.",
            )
        if self._length is not None and size > self._length:
            raise _other_length()
        self.size = size
        self._commitment.update(chunk)

    def trailers(self, fields: Headers) -> None:
        """Takes note of the trailers, which are about to leave."""
        self._commitment.update(encode_trailers(fields))

    def finish(self) -> None:
        """The body is over. Raises Refusal if it is not as long as announced."""
        if self._length is not None and self.size != self._length:
            raise _other_length()
        self.whole = True

    def hexdigest(self) -> str:
        """The commitment to what was passed on so far."""
        return self._commitment.hexdigest()


def encode_trailers(fields: Headers) -> bytes:
    """How trailers follow the body in a commitment: each after a line break, as it would be sent.

    The size beside the commitment is the body's own, so that one can tell where they begin.
    """
    return b"".join(
        f"\r\n{name}: {value}".encode("utf-8", "surrogateescape") for name, value in fields
    )


def _other_length() -> Refusal:
    return Refusal(
        "request_ambiguous",
        "The body is not as long as its Content-Length says; it was cut off, and the upstream got"
        " a part of it.",
    )
