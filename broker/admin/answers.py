"""Answers of the API: JSON in ASCII, and problem documents (RFC 9457) for everything that fails."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from broker.errors import (
    Conflict,
    InvalidInput,
    KeybrokerError,
    NotEntitled,
    NotFound,
    StoreUnavailable,
    Unconfirmed,
)

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not entitled",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Not confirmed",
    429: "Too many attempts",
    500: "Internal error",
    503: "Unavailable",
}

STATUS: Mapping[type[KeybrokerError], int] = {
    NotFound: 404,
    Conflict: 409,
    NotEntitled: 403,
    Unconfirmed: 422,
    InvalidInput: 422,
    StoreUnavailable: 503,
}


def answer(content: object, status: int = 200) -> Response:
    """JSON in ASCII: lone surrogates and control characters stay escapes."""
    return Response(
        json.dumps(content, separators=(",", ":")), status, media_type="application/json"
    )


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    more: Mapping[str, object] | None = None,
) -> Response:
    """A problem document (RFC 9457); `more` are members beside its own."""
    content = {"status": status, "title": TITLES.get(status, "Error"), "detail": detail}
    content |= more or {}
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return Response(
        json.dumps(content), status, dict(headers or {}), media_type="application/problem+json"
    )


def status_of(error: KeybrokerError) -> int:
    """The HTTP status of an error of the middle; 500 where it was not made for a caller."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
