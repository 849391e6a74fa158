"""The vectors of canonical requests, byte by byte through the whole program.

What has a canonical form arrives as exactly that; what has none reaches nobody.
"""

from __future__ import annotations

import pytest

from rules.request import RawRequest, Request
from tests.attacks.stage import Stage
from tests.support.upstream import Received
from tests.support.vectors import Vector, load_vectors

pytestmark = pytest.mark.e2e

HERE = "free.localhost"
"""Has no credential; the agent roams."""
GROUPS = (
    "path",
    "query",
    "method",
    "framing",
    "headers",
    "content-type",
    "override-query",
    "override-body",
)
_DEFAULT = (("api.example.com", 443), "api.example.com", None, None)


def can_be_said(raw: RawRequest) -> bool:
    """Whether HTTP/1.1 in a tunnel can carry it as one request that ends where it should."""
    lines = [raw.method, raw.target, *(t.decode("latin-1") for line in raw.headers for t in line)]
    broken = any(mark in text for text in lines for mark in "\r\n")
    blank = any(mark in text for text in (raw.method, raw.target) for mark in " \t")
    ours = raw.http_version == "HTTP/1.1" and not raw.has_trailers and not raw.unread
    named = (raw.connect, raw.sni, raw.authority, raw.gateway) == _DEFAULT
    # An upgraded connection, and the answer to HEAD, do not end as others do.
    other = raw.method == "HEAD" or any(name.lower() == b"upgrade" for name, _ in raw.headers)
    return ours and named and raw.scheme == "https" and not (broken or blank or other)


# On the wire the length says where the body ends, so that it cannot differ from it.
VECTORS = [
    vector
    for vector in load_vectors()
    if vector.group in GROUPS and vector.why != "framing-mismatch" and can_be_said(vector.raw)
]


def spell(raw: RawRequest, authority: str) -> bytes:
    lines = [
        (name, authority.encode() if value == b"api.example.com" else value)
        for name, value in raw.headers
    ]
    names = {name.lower() for name, _ in lines}
    body = raw.body
    if (b"transfer-encoding", b"chunked") in [(n.lower(), v) for n, v in lines]:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body and not names & {b"content-length", b"transfer-encoding", b"content_length"}:
        lines.append((b"Content-Length", b"%d" % len(body)))
    head = f"{raw.method} {raw.target} HTTP/1.1\r\n".encode("utf-8", "replace")
    return head + b"".join(b"%s: %s\r\n" % line for line in lines) + b"\r\n" + body


def test_most_vectors_are_said() -> None:
    assert len(VECTORS) > 300


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_what_is_said_is_what_arrives(stage: Stage, vector: Vector) -> None:
    authority = stage.at(HERE)
    roamer = stage.agents["roamer"]
    data = spell(vector.raw, authority)
    got = stage.ask(data, authority=authority, agent=roamer, patience=0.8)
    if vector.canonical is None:
        stage.held(got)
        assert set(got.codes) <= {"request_ambiguous", "body_too_large"}, got.data
        return
    assert len(stage.arrived) == 1, got.data
    assert_same(stage.arrived[0], vector.canonical, authority)


def assert_same(arrived: Received, canonical: Request, authority: str) -> None:
    assert (arrived.method, arrived.target) == (canonical.method, canonical.target)
    assert arrived.body == canonical.body
    assert arrived.values("host") == [authority]
    # The program asks for what it can mask, and takes trailers on its own hop.
    ours = {"host", "content-length", "accept-encoding", "te", "connection"}
    kept = [(name.lower(), value) for name, value in arrived.headers if name.lower() not in ours]
    assert kept == list(canonical.headers)
