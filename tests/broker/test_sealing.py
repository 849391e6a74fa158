"""Stored requests: unreadable at rest, bound to their approval, the same when opened."""

from __future__ import annotations

from dataclasses import replace
from secrets import token_bytes

import pytest

from broker.errors import StoreUnavailable
from broker.sealing import Sealer, StoredRequest
from rules.request import Request

REQUEST = Request(
    method="POST",
    scheme="https",
    host="api.stripe.com",
    port=443,
    path="/v1/refunds",
    query=None,
    headers=(("accept", "*/*"), ("accept-encoding", "identity")),
    body=b"amount=5&\x00\xff",
    claim="the customer asked",
)
STORED = StoredRequest(REQUEST, (("accept", "*/*"), ("authorization", "Bearer mine")))


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(b"s" * 32, token_bytes)


def test_what_is_opened_is_what_was_sealed(sealer: Sealer) -> None:
    opened = sealer.open(sealer.seal(STORED, "a-1"), "a-1")
    assert opened == STORED
    assert opened.matched.headers == STORED.matched_headers
    assert opened.matched.body == REQUEST.body


@pytest.mark.parametrize("size", [0, 1, 1000, 1_000_000])
def test_its_size_is_told_without_sealing_it(sealer: Sealer, size: int) -> None:
    stored = replace(STORED, outgoing=replace(REQUEST, body=b"x" * size))
    assert 0 <= len(sealer.seal(stored, "a-1")) - stored.size < 1000


def test_nothing_of_it_can_be_read(sealer: Sealer) -> None:
    sealed = sealer.seal(STORED, "a-1")
    for part in (b"stripe", b"amount", b"customer", b"mine"):
        assert part not in sealed


def test_the_same_request_is_sealed_differently_each_time(sealer: Sealer) -> None:
    assert sealer.seal(STORED, "a-1") != sealer.seal(STORED, "a-1")


@pytest.mark.parametrize("spoil", ["approval", "first", "last", "cut", "empty", "key"])
def test_what_was_changed_is_refused(sealer: Sealer, spoil: str) -> None:
    sealed, approval = sealer.seal(STORED, "a-1"), "a-1"
    match spoil:
        case "approval":
            approval = "a-2"
        case "first":
            sealed = bytes([sealed[0] ^ 1]) + sealed[1:]
        case "last":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        case "cut":
            sealed = sealed[:-20]
        case "empty":
            sealed = b""
        case "key":
            sealer = Sealer(b"t" * 32, token_bytes)
    with pytest.raises(StoreUnavailable, match=f"the stored request of {approval} was changed"):
        sealer.open(sealed, approval)


def test_how_long_the_agent_would_wait_is_not_kept(sealer: Sealer) -> None:
    stored = replace(STORED, outgoing=replace(REQUEST, respond_async=True))
    assert sealer.open(sealer.seal(stored, "a-1"), "a-1") == STORED
