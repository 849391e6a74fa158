"""A body that is passed on unread: every byte counted before it leaves, none too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.commitment import commit
from broker.errors import Refusal
from broker.upload import Upload, encode_trailers

SALT = b"s" * 32


@given(st.lists(st.binary()))
def test_the_commitment_is_to_the_whole_however_it_was_cut(chunks: list[bytes]) -> None:
    upload = Upload(SALT, length=None, limit=None)
    for chunk in chunks:
        upload.feed(chunk)
    assert not upload.whole
    upload.finish()
    whole = b"".join(chunks)
    assert upload.whole
    assert (upload.size, upload.hexdigest()) == (len(whole), commit(SALT, "body", whole))


def test_the_byte_above_the_limit_is_refused_and_not_counted() -> None:
    upload = Upload(SALT, length=None, limit=10)
    upload.feed(b"x" * 10)
    with pytest.raises(Refusal) as refused:
        upload.feed(b"y")
    assert refused.value.code == "body_too_large"
    assert (upload.size, upload.hexdigest()) == (10, commit(SALT, "body", b"x" * 10))


def test_a_body_is_as_long_as_it_was_announced() -> None:
    upload = Upload(SALT, length=3, limit=None)
    upload.feed(b"ab")
    with pytest.raises(Refusal, match="Content-Length"):
        upload.finish()
    with pytest.raises(Refusal, match="Content-Length"):
        upload.feed(b"cd")
    upload.feed(b"c")
    upload.finish()


def test_trailers_follow_the_body() -> None:
    upload = Upload(SALT, length=None, limit=None)
    upload.feed(b"body")
    upload.trailers((("x-sum", "1"), ("x-b", "é")))
    assert upload.hexdigest() == commit(SALT, "body", b"body" + "\r\nx-sum: 1\r\nx-b: é".encode())
    assert upload.size == 4
    assert encode_trailers(()) == b""
