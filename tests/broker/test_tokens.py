"""Tokens: random, fit for a URL, and stored as a hash."""

from __future__ import annotations

import hashlib
import re
from secrets import token_bytes

import pytest

from broker.errors import InvalidInput
from broker.tokens import check_name, new_token, token_hash


def test_a_token_has_256_random_bits_and_fits_into_a_url() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return token_bytes(count)

    token = new_token("agent", random)
    assert asked == [32]
    assert re.fullmatch(r"kb_agent_[A-Za-z0-9_-]{43}", token)
    assert token != new_token("agent", random)


def test_the_hash_is_plain_sha256_whatever_the_bytes_are() -> None:
    assert token_hash("kb_x") == hashlib.sha256(b"kb_x").digest()
    assert token_hash(b"\xff".decode(errors="surrogateescape")) == hashlib.sha256(b"\xff").digest()


@pytest.mark.parametrize("name", ["a", "billing-bot", "A.b_c@d-1", "x" * 63])
def test_plain_names_are_taken(name: str) -> None:
    assert check_name(name, "an agent") == name


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "a/b", "é", "x" * 64, "a\n", "tag:x"])
def test_other_names_are_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(InvalidInput, match="is no name for an agent: use 1 to 63"):
        check_name(name, "an agent")
