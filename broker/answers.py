"""Keybroker's own answers to agents: problem documents (RFC 9457) and small JSON or PEM bodies.
Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.errors import CODES, Refusal
from rules.request import Headers

REQUEST_ID = "keybroker-request-id"
"""On every answer, Keybroker's own and passed-on ones alike."""
CODE = "keybroker-code"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response of Keybroker's own, framing aside."""

    status: int
    headers: Headers
    body: bytes


def problem(refusal: Refusal, call: str | None) -> Answer:
    """The refusal as `application/problem+json`, in words that a model can act on."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": CODES[refusal.code].title,
        "status": refusal.status,
        "detail": refusal.detail,
        # The sentence again, where the OpenAI SDK and others look for one: they show no other.
        "message": refusal.detail,
        "code": refusal.code,
        **refusal.extra,
    }
    headers = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        (CODE, refusal.code),
        *refusal.headers,
    ]
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(refusal.retry_after)))
    if refusal.status == 407:
        # git and Java send credentials only after this challenge (RFC 9110 11.7.1).
        headers.append(("proxy-authenticate", 'Basic realm="keybroker"'))
    elif refusal.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="keybroker"'))
    if call is not None:
        document["request_id"] = call
        headers.append((REQUEST_ID, call))
    return Answer(refusal.status, tuple(headers), json.dumps(document).encode() + b"\n")


def document(body: Mapping[str, Any], call: str, status: int = 200) -> Answer:
    """A JSON answer."""
    headers = (
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        (CODE, "ok"),
        (REQUEST_ID, call),
    )
    return Answer(status, headers, json.dumps(body).encode() + b"\n")


def pem(body: bytes, call: str) -> Answer:
    """A certificate, under the type that browsers and curl expect (RFC 8555 9.1)."""
    headers = (
        ("content-type", "application/pem-certificate-chain"),
        (CODE, "ok"),
        (REQUEST_ID, call),
    )
    return Answer(200, headers, body)
