"""A commitment is HMAC-SHA-256 over label and content, and says nothing without its salt."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.commitment import Commitment, commit

SALT = bytes(range(32))


def test_it_is_the_hmac_of_label_nul_content() -> None:
    expected = hmac.new(SALT, b"response/received\0content", hashlib.sha256).hexdigest()
    assert commit(SALT, "response/received", b"content") == expected


@given(st.lists(st.binary(max_size=20)))
def test_how_content_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    commitment = Commitment(SALT, "body")
    for piece in pieces:
        commitment.update(piece)
    assert commitment.hexdigest() == commit(SALT, "body", b"".join(pieces))


def test_salt_label_and_content_all_count() -> None:
    values = {
        commit(SALT, "a", b"bc"),
        commit(SALT, "ab", b"c"),
        commit(SALT, "a", b"b"),
        commit(SALT[::-1], "a", b"bc"),
    }
    assert len(values) == 4


def test_it_can_go_on_after_a_look() -> None:
    commitment = Commitment(SALT, "a")
    commitment.update(b"b")
    assert commitment.hexdigest() == commit(SALT, "a", b"b")
    commitment.update(b"c")
    assert commitment.hexdigest() == commit(SALT, "a", b"bc")


def test_a_short_salt_or_an_ambiguous_label_is_refused() -> None:
    with pytest.raises(ValueError, match="could be guessed"):
        commit(b"x" * 15, "a", b"")
    with pytest.raises(ValueError, match="NUL"):
        commit(SALT, "a\0b", b"")
