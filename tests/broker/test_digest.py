"""Digest and join key: what goes out alike is alike, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.digest import VOLATILE_HEADERS, join_key, request_digest
from rules.model import Credential, HostPattern, Injection, SecretRef
from rules.request import Request

KEY = b"d" * 32
REQUEST = Request(
    method="POST",
    scheme="https",
    host="api.stripe.com",
    port=443,
    path="/v1/refunds",
    query="a=b",
    headers=(("accept", "*/*"), ("x-one", "1")),
    body=b"amount=5",
)
STRIPE = Credential(
    "stripe",
    SecretRef("kv", "stripe", "api_key"),
    (HostPattern("api.stripe.com", False, None),),
    Injection("authorization", "Bearer {secret}"),
)

CHANGES = [
    {"method": "PUT"},
    {"scheme": "http"},
    {"host": "api.stripe.co"},
    {"port": 444},
    {"path": "/v1/refund"},
    {"query": None},
    {"query": ""},
    {"headers": (("accept", "*/*"),)},
    {"headers": (("x-one", "1"), ("accept", "*/*"))},
    {"headers": (("accept", "*/*"), ("x-one", "2"))},
    {"body": b"amount=50"},
    {"upgrade": "websocket"},
]
SLOTS = [
    {"name": "other"},
    {"secret": SecretRef("kv", "stripe", "other")},
    {"inject": Injection("x-key", "Bearer {secret}")},
    {"inject": Injection("authorization", "Token {secret}")},
    {"inject": Injection("authorization", "Basic {secret}", "user")},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_any_difference_in_what_goes_out_is_another_call(change: dict[str, object]) -> None:
    other = replace(REQUEST, **change)  # type: ignore[arg-type]
    assert request_digest(KEY, other, [STRIPE]) != request_digest(KEY, REQUEST, [STRIPE])
    assert join_key(KEY, "bot", other, [STRIPE]) != join_key(KEY, "bot", REQUEST, [STRIPE])


@pytest.mark.parametrize("change", SLOTS, ids=str)
def test_another_credential_or_slot_is_another_call(change: dict[str, object]) -> None:
    other = replace(STRIPE, **change)  # type: ignore[arg-type]
    assert request_digest(KEY, REQUEST, [other]) != request_digest(KEY, REQUEST, [STRIPE])
    assert join_key(KEY, "bot", REQUEST, [other]) != join_key(KEY, "bot", REQUEST, [STRIPE])


def test_no_credential_is_another_call_than_one() -> None:
    assert request_digest(KEY, REQUEST, []) != request_digest(KEY, REQUEST, [STRIPE])


@pytest.mark.parametrize("name", sorted(VOLATILE_HEADERS))
def test_a_volatile_header_changes_the_digest_and_still_joins(name: str) -> None:
    other = replace(REQUEST, headers=(*REQUEST.headers, (name, "7")))
    assert request_digest(KEY, other, [STRIPE]) != request_digest(KEY, REQUEST, [STRIPE])
    assert join_key(KEY, "bot", other, [STRIPE]) == join_key(KEY, "bot", REQUEST, [STRIPE])


def test_nobody_joins_another_agents_call() -> None:
    assert join_key(KEY, "bot", REQUEST, []) != join_key(KEY, "second", REQUEST, [])


def test_the_agents_words_to_keybroker_make_no_difference() -> None:
    other = replace(REQUEST, claim="because", respond_async=True)
    assert request_digest(KEY, other, [STRIPE]) == request_digest(KEY, REQUEST, [STRIPE])


def test_without_the_key_nothing_can_be_compared() -> None:
    assert request_digest(b"e" * 32, REQUEST, []) != request_digest(KEY, REQUEST, [])


def test_a_digest_is_no_join_key() -> None:
    assert request_digest(KEY, REQUEST, []) != join_key(KEY, "", REQUEST, [])
