"""The engine's own refusals, when the middle cannot be asked: problem documents (RFC 9457).

Every text here is fixed. Nothing that an agent or an upstream sent is ever quoted, since it may
hold a credential that was put into the request.
"""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus

from mitmproxy import http

from broker.errors import CODES

NOTHING_SENT = "Keybroker failed while it handled this call. Nothing was sent."
UNREADABLE = "The request is not well-formed HTTP; send it again in plain HTTP/1.1 or HTTP/2."
TOO_LARGE = "The request body is larger than Keybroker reads; nothing was sent."
NO_ANSWER = "The upstream could not be reached, or its answer broke off or could not be read."
UNSAFE_RESPONSE = "The upstream's response could not be passed on safely. The call itself was made."
GONE_UNSENT = "The agent hung up before anything was sent."
GONE_UNDELIVERED = "The agent hung up before the response was delivered."
REVOKED = "The agent was revoked before the response was delivered."
BROKE_OFF = "The response broke off while it was delivered."
NOT_HTTP = "The upstream closed the connection, or answered with something that is not HTTP."
NO_CONNECTION = "No connection to the upstream could be made."
NOT_SET_UP = "The connection to the upstream could not be set up."
UNVERIFIED = "The upstream's certificate could not be verified."
HEAD_TOO_LONG = "The request line and headers are longer than Keybroker reads."
HEAD_TOO_SLOW = "The request line and headers did not arrive in time."
ODD_HEAD = (
    "The request's head is oddly written: use CRLF line ends, single spaces in the request line, "
    "no folded lines and no control bytes."
)


def page(code: str, detail: str) -> http.Response:
    """A refusal with a code of the contract and a fixed sentence."""
    entry = CODES[code]
    number = f"engine-{secrets.token_hex(8)}"
    body = json.dumps(
        {
            "type": "about:blank",
            "status": entry.status,
            "title": entry.title,
            "detail": detail,
            "message": detail,
            "code": code,
            "request_id": number,
        }
    ).encode()
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"keybroker-code", code.encode()),
        (b"keybroker-request-id", number.encode()),
    ]
    if entry.status == 407:
        fields.append((b"proxy-authenticate", CHALLENGE))
    reason = HTTPStatus(entry.status).phrase.encode()
    return http.Response(
        b"HTTP/1.1", entry.status, reason, http.Headers(fields), body, None, 0.0, None
    )


def of_core(status: int) -> http.Response:
    """In the place of an error page of mitmproxy's, which quotes the bytes that it could not read.
    The connection is to be closed."""
    closing = {
        400: ("request_ambiguous", UNREADABLE),
        413: ("body_too_large", TOO_LARGE),
    }
    response = page(*closing.get(status, ("upstream_unreachable", NO_ANSWER)))
    response.headers["connection"] = "close"
    return response


CHALLENGE = b'Basic realm="keybroker"'
"""git and Java send their credentials only after this (RFC 7617)."""
