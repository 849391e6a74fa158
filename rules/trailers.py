"""Trailers: fields after a body (RFC 9110 6.5.1).

What a decision, the framing or a log-in could depend on must stand in the head, which was looked
at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rules.errors import Ambiguous
from rules.hosts import shown
from rules.request import Headers

MAX_TRAILERS = 64
MAX_TRAILER_BYTES = 16_384

_NAME = re.compile(rb"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?")
_VALUE = re.compile(rb"[\t -~]*")
_NEVER = frozenset(
    word
    for line in (
        "accept age allow authentication-info authorization baggage cache-control client-ip",
        "connection cookie date expect expires forwarded from host http2-settings idempotency-key",
        "keep-alive link location max-forwards origin pragma prefer range referer retry-after",
        "set-cookie te traceparent tracestate trailer trailers transfer-encoding true-client-ip",
        "upgrade user-agent vary via warning www-authenticate x-api-key x-auth-token x-client-ip",
        "x-cluster-client-ip x-real-ip x-remote-addr x-remote-ip",
    )
    for word in line.split()
)
_NEVER_PREFIXES = (
    "accept-",
    "access-control-",
    "content-",
    "if-",
    "keybroker-",
    "proxy-",
    "sec-",
    "x-forwarded-",
    "x-http-",
    "x-method-",
    "x-original-",
    "x-rewrite-",
)
_DIGESTS = frozenset({"content-digest", "content-md5", "repr-digest", "digest"})


def may_trail(name: str) -> bool:
    """Whether a field of this name (lower case) has a place after the body."""
    return name in _DIGESTS or not (name in _NEVER or name.startswith(_NEVER_PREFIXES))


def read_trailers(raw: Sequence[tuple[bytes, bytes]], taken: frozenset[str]) -> Headers:
    """The trailers of a request in canonical form: lower case, each once. Raises Ambiguous.

    `taken` are the names in its head, the credentials' slots included.
    """
    if len(raw) > MAX_TRAILERS or sum(len(n) + len(v) for n, v in raw) > MAX_TRAILER_BYTES:
        raise Ambiguous(
            f"The trailers are more than {MAX_TRAILERS} or larger than {MAX_TRAILER_BYTES} bytes;"
            " send less after the body."
        )
    fields: list[tuple[str, str]] = []
    seen = set(taken)
    for raw_name, raw_value in raw:
        lower = raw_name.lower()
        if not _NAME.fullmatch(lower) or not _VALUE.fullmatch(raw_value):
            raise Ambiguous("A trailer is odd; write letters, digits, hyphens and plain ASCII.")
        name = lower.decode("ascii")
        if not may_trail(name):
            raise Ambiguous(f"The trailer {shown(name)} belongs in the head; send it there.")
        if name in seen:
            raise Ambiguous(f"The trailer {shown(name)} stands elsewhere too; send it once.")
        seen.add(name)
        fields.append((name, raw_value.strip(b" \t").decode("ascii")))
    return tuple(fields)
