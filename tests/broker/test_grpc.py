"""Messages with lengths: masked in place, one by one, none held back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.encodings import CorruptBody
from broker.grpc import MessageScrubber, compressed, has_messages
from broker.scrub import Scrubber

SECRET = b"sk_live_4f8Qz1"


def scrubber() -> MessageScrubber:
    return MessageScrubber(Scrubber([SECRET], keep_length=True))


def message(content: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(content).to_bytes(4, "big") + content


def unpacked(body: bytes) -> list[bytes]:
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        assert len(body) >= 5 + size
        found.append(body[5 : 5 + size])
        body = body[5 + size :]
    return found


MESSAGES = st.lists(
    st.one_of(st.binary(max_size=20), st.just(SECRET), st.just(b"<" + SECRET * 2 + b">")),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(0, 200)))
def test_however_it_is_cut_each_message_keeps_its_length_and_loses_the_secret(
    contents: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(map(message, contents))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    scrub = scrubber()
    out = b"".join(scrub.feed(body[a:b]) for a, b in itertools.pairwise(edges))
    out += scrub.finish()
    found = unpacked(out)
    assert [len(content) for content in found] == [len(content) for content in contents]
    for before, after in zip(contents, found, strict=True):
        assert SECRET not in after
        assert SECRET in before or after == before


def test_a_message_that_ends_as_the_secret_begins_leaves_at_once() -> None:
    whole = message(b"and so " + SECRET[:8])
    assert scrubber().feed(whole) == whole


def test_a_compressed_message_cannot_be_read() -> None:
    with pytest.raises(CorruptBody, match="compressed"):
        scrubber().feed(message(b"x", flags=1))


def test_a_body_that_ends_in_a_message_delivers_what_came() -> None:
    scrub = scrubber()
    half = message(b"0123456789")[:8]
    assert scrub.feed(half) + scrub.finish() == half
    assert scrub.feed(b"\0\0") + scrub.finish() == b"\0\0"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/GRPC-Web+proto; x=y", True),
        ("application/connect+json", True),
        ("application/grpc-web-text", False),
        ("application/grpcx", False),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_kinds_of_bodies(content_type: str | None, expected: bool) -> None:
    assert has_messages(content_type) is expected


def test_a_head_that_announces_compression() -> None:
    assert compressed([("grpc-encoding", "gzip")])
    assert compressed([("Connect-Content-Encoding", "br")])
    assert not compressed([("grpc-encoding", "Identity"), ("content-encoding", "gzip")])
