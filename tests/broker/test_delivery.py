"""A response on its way back is masked and hashed both ways, or refused."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import brotli
import pytest

from audit.commitment import commit
from broker.delivery import Delivery
from broker.errors import Refusal

KEY = "sk_live_canary_0123456789"
MASK = b"[keybroker:masked]"
SALT = b"s" * 32
Headers = tuple[tuple[str, str], ...]
TEXT: Headers = (("content-type", "text/plain"),)
GRPC: Headers = (("content-type", "application/grpc"),)


def with_key(method: str = "GET") -> Delivery:
    return Delivery(method, SALT, [KEY.encode()])


def without(method: str = "GET") -> Delivery:
    return Delivery(method, SALT, [])


# Heads


def test_headers_and_reason_are_masked() -> None:
    reason, headers = with_key().head(
        200,
        f"OK {KEY}",
        (
            ("x-echo", f"Bearer {KEY}"),
            (f"x-{KEY}", "1"),
            ("location", f"https://evil.example/?k={KEY}"),
        ),
    )
    assert reason == "OK [keybroker:masked]"
    assert headers == (
        ("x-echo", "Bearer [keybroker:masked]"),
        ("location", "https://evil.example/?k=[keybroker:masked]"),
    ), "a header whose name has the secret is dropped"


@pytest.mark.parametrize("delivery", [with_key(), without()], ids=["masked", "as it is"])
def test_an_upstream_cannot_speak_as_keybroker(delivery: Delivery) -> None:
    said = (("Keybroker-Code", "ok"), ("keybroker-request-id", "c-x"), ("a", "b"))
    assert delivery.head(200, "OK", said) == ("OK", (("a", "b"),))


ABOUT_THE_BODY: Headers = (
    ("Content-Length", "5"),
    ("Content-Encoding", "gzip"),
    ("ETag", '"x"'),
    ("Digest", "x"),
    ("Content-MD5", "x"),
    ("Accept-Ranges", "bytes"),
)


def test_what_speaks_of_the_body_as_it_came_is_left_out() -> None:
    assert with_key().head(200, "OK", (*TEXT, *ABOUT_THE_BODY))[1] == TEXT


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_without_a_body_its_headers_stay(method: str, status: int) -> None:
    delivery = with_key(method)
    about = (("content-length", "5"), ("etag", '"x"'))
    assert delivery.head(status, "OK", about)[1] == about
    assert delivery.feed(b"what should not come") + delivery.finish() == b""
    assert (delivery.received_size, delivery.delivered_size) == (20, 0)


@pytest.mark.parametrize("encoding", ["dcb", "zstd, lz4", "gzip, x", KEY])
def test_an_encoding_that_cannot_be_looked_into_is_refused_unquoted(encoding: str) -> None:
    head: Headers = (("content-encoding", encoding),)
    with pytest.raises(Refusal, match="could not be masked") as refused:
        with_key().head(200, "OK", head)
    assert encoding not in refused.value.detail
    assert without().head(200, "OK", head) == ("OK", head)


# Bodies


def test_without_a_credential_everything_passes_as_it_is() -> None:
    delivery = without()
    head = (*TEXT, ("Content-Encoding", "compress"), ("Content-Length", "4"))
    assert delivery.head(200, "OK", head) == ("OK", head)
    assert delivery.feed(b"\x0b\x01\x80x") + delivery.finish() == b"\x0b\x01\x80x"
    assert delivery.hits == 0


def test_what_came_and_what_is_delivered_are_committed_to() -> None:
    delivery = with_key()
    delivery.head(200, f"OK {KEY}", TEXT)
    whole = f"key={KEY};".encode()
    out = b"".join(delivery.feed(whole[at : at + 3]) for at in range(0, len(whole), 3))
    out += delivery.finish()
    assert out == b"key=" + MASK + b";"
    assert delivery.hits == 2
    assert delivery.delivered == (
        commit(SALT, "received", whole),
        commit(SALT, "delivered", out),
        len(whole),
        len(out),
    )


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("identity", bytes),
    ],
)
def test_encoded_bodies_are_decoded_and_scrubbed(encoding: str, encode: Any) -> None:
    delivery = with_key()
    delivery.head(200, "OK", (*TEXT, ("content-encoding", encoding)))
    coded = encode(f"a {KEY} b".encode())
    out = b"".join(delivery.feed(bytes([byte])) for byte in coded) + delivery.finish()
    assert out == b"a " + MASK + b" b"
    assert delivery.received_size == len(coded)


def test_what_cannot_be_read_is_refused_and_not_to_be_repeated() -> None:
    """The request was sent, and SDKs would repeat a 502 by themselves."""
    delivery = with_key()
    delivery.head(200, "OK", (*TEXT, ("content-encoding", "gzip")))
    with pytest.raises(Refusal, match="The response could not be read") as refused:
        delivery.feed(b"no gzip at all")
    assert refused.value.code == "response_refused"
    assert ("x-should-retry", "false") in refused.value.headers


def test_a_text_that_is_compressed_and_says_not_so_is_refused() -> None:
    delivery = with_key()
    delivery.head(200, "OK", TEXT)
    with pytest.raises(Refusal, match=r"it is compressed .* and says not so"):
        delivery.feed(gzip.compress(KEY.encode() * 10))


def test_a_range_keeps_its_length() -> None:
    delivery = with_key()
    content_range = ("content-range", "bytes 10-59/100")
    assert delivery.head(206, "", (*TEXT, content_range))[1] == (*TEXT, content_range)
    part = f"<{KEY}>".encode().ljust(50, b".")
    out = delivery.feed(part) + delivery.finish()
    assert len(out) == 50
    assert KEY.encode() not in out


def test_a_body_that_swells_beyond_measure_is_refused() -> None:
    """All that one chunk becomes is decoded at once: a few bytes must not become gigabytes."""
    delivery = with_key()
    delivery.head(200, "OK", (*TEXT, ("content-encoding", "br")))
    bomb = brotli.compress(bytes(64 << 20))
    assert len(bomb) < 1000
    with pytest.raises(Refusal, match="swells"):
        delivery.feed(bomb)
    assert delivery.delivered_size < 1 << 23


def test_what_is_compressed_as_well_as_texts_are_passes() -> None:
    delivery = with_key()
    delivery.head(200, "OK", (*TEXT, ("content-encoding", "gzip")))
    text = b"".join(b'{"number": %d, "state": "open"}\n' % n for n in range(200_000))
    assert delivery.feed(gzip.compress(text)) + delivery.finish() == text


# Messages


def test_messages_are_masked_in_their_length() -> None:
    delivery = with_key()
    delivery.head(200, "", GRPC)
    content = f"<{KEY}>".encode()
    body = b"\0" + len(content).to_bytes(4, "big") + content
    out = delivery.feed(body)
    assert len(out) == len(body)
    assert out[:6] == body[:6]
    assert KEY.encode() not in out
    assert delivery.finish() == b""
    assert delivery.hits == 1


def test_compressed_messages_are_refused_where_they_could_hold_a_credential() -> None:
    head = (*GRPC, ("grpc-encoding", "gzip"))
    with pytest.raises(Refusal, match="Ask for identity"):
        with_key().head(200, "", head)
    plain = without()
    assert plain.head(200, "", head) == ("", head)
    assert plain.feed(b"\1\0\0\0\1x") == b"\1\0\0\0\1x"


def test_a_compressed_message_that_nobody_announced_is_refused() -> None:
    delivery = with_key()
    delivery.head(200, "", GRPC)
    with pytest.raises(Refusal, match="compressed message"):
        delivery.feed(b"\1\0\0\0\1x")


# Trailers, and sentences


def test_trailers_are_masked_and_an_agent_that_takes_none_gets_none() -> None:
    came = (("x-echo", KEY), ("Content-Length", "9"), ("x-plain", "1"), ("keybroker-code", "x"))
    delivery = with_key()
    delivery.head(200, "OK", TEXT)
    assert delivery.trailers(came, deliver=True) == (("x-echo", MASK.decode()), ("x-plain", "1"))
    assert with_key().trailers(came, deliver=False) == ()


def test_a_sentence_about_the_response_is_masked() -> None:
    assert with_key().clean(f"reset after {KEY}") == "reset after [keybroker:masked]"
    assert without().clean("reset") == "reset"
