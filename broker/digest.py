"""What identifies a call: its request digest and its join key. Pure.

Both are HMAC-SHA-256 under a workspace key over the canonical request with the credentials' slots
(names, references and formats, never values), so that they can be compared but not guessed from
outside. They stay in the store; the ledger carries salted commitments to the digest.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from rules.model import Credential
from rules.request import Request

VOLATILE_HEADERS = frozenset(
    {
        "baggage",
        "date",
        "grpc-previous-rpc-attempts",
        "grpc-timeout",
        "idempotency-key",
        "sec-websocket-key",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-amzn-trace-id",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-correlation-id",
        "x-request-id",
        "x-stainless-read-timeout",
        "x-stainless-retry-count",
        "x-stainless-timeout",
    }
)
"""Headers in which a repeated request differs without meaning anything else; they do not keep it
from joining the approval that is already open. What is sent is the request as stored, with its own.
"""


def _encode_slots(credentials: Sequence[Credential]) -> bytes:
    pieces: list[bytes] = []
    for credential in credentials:
        inject = credential.inject
        for part in (
            credential.name,
            str(credential.secret),
            inject.header,
            inject.format,
            inject.username or "",
        ):
            encoded = part.encode()
            pieces += (len(encoded).to_bytes(8, "big"), encoded)
    return len(credentials).to_bytes(8, "big") + b"".join(pieces)


def request_digest(key: bytes, request: Request, credentials: Sequence[Credential]) -> bytes:
    """Identifies exactly what will go upstream, secret references and slots included (32 bytes)."""
    message = b"digest\n" + _encode_slots(credentials) + request.encode()
    return hmac.digest(key, message, "sha256")


def join_key(key: bytes, agent: str, request: Request, credentials: Sequence[Credential]) -> bytes:
    """Equal for the same agent's same request, volatile headers aside (32 bytes)."""
    name = agent.encode()
    message = b"join\n" + len(name).to_bytes(8, "big") + name + _encode_slots(credentials)
    message += request.encode(without=VOLATILE_HEADERS)
    return hmac.digest(key, message, "sha256")
