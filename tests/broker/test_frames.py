"""WebSocket frames: what passes, what is masked, and what ends the socket."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from audit.commitment import Commitment, commit
from broker.frames import (
    PIECE,
    BadFrame,
    Reader,
    Tally,
    ToAgent,
    Verbatim,
    accept_of,
    close_frame,
)

SALT = b"s" * 32
SECRET = b"sk_live_4f8Qz1"
MASK = b"[keybroker:masked]"


def tally(label: str = "sent") -> Tally:
    return Tally(Commitment(SALT, label))


def to_agent() -> tuple[Reader, ToAgent, Tally, Tally]:
    received, delivered = tally("received"), tally("delivered")
    sink = ToAgent([SECRET], received, delivered)
    return Reader(sink, masked=False), sink, received, delivered


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, mask: bytes = b"") -> bytes:
    size = len(payload)
    if size < 126:
        length, extra = size, b""
    elif size < 1 << 16:
        length, extra = 126, size.to_bytes(2, "big")
    else:
        length, extra = 127, size.to_bytes(8, "big")
    head = bytes((opcode | (0x80 if final else 0), length | (0x80 if mask else 0))) + extra + mask
    if mask:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + payload


def spoken(data: bytes) -> list[Event]:
    """What a real client makes of the frames."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


def text_of(data: bytes) -> str:
    return "".join(event.data for event in spoken(data) if isinstance(event, TextMessage))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(st.binary(max_size=300), max_size=4), st.lists(st.integers(0, 1000)))
def test_what_an_agent_sends_passes_to_the_letter(payloads: list[bytes], places: list[int]) -> None:
    data = b"".join(frame(p, 2, mask=b"\x01\x82\x03\xff") for p in payloads)
    sent = tally()
    reader = Reader(Verbatim(sent), masked=True)
    assert b"".join(map(reader.feed, cut(data, places))) == data
    assert (sent.frames, sent.size) == (len(payloads), sum(map(len, payloads)))
    plain = b"".join(b"\x82" + len(p).to_bytes(8, "big") + p for p in payloads)
    assert sent.hexdigest() == commit(SALT, "sent", plain)


@given(st.lists(st.sampled_from([b"", b"hello ", SECRET, SECRET[:5], SECRET[5:]]), max_size=8),
       st.lists(st.integers(0, 1000)), st.sampled_from([1, 2]))  # fmt: skip
def test_a_secret_is_masked_across_the_fragments_of_a_message(
    parts: list[bytes], places: list[int], opcode: int
) -> None:
    whole = b"".join(parts)
    fragments = [*parts, b"."]
    data = b"".join(
        frame(part, opcode if not at else 0, final=at == len(fragments) - 1)
        for at, part in enumerate(fragments)
    )
    reader, sink, *_ = to_agent()
    out = b"".join(map(reader.feed, cut(data, places)))
    if opcode == 1:
        assert text_of(out) == (whole.replace(SECRET, MASK) + b".").decode()
    else:
        got = b"".join(bytes(e.data) for e in spoken(out) if isinstance(e, BytesMessage))
        assert len(got) == len(whole) + 1 and SECRET not in got
    assert sink.hits == whole.count(SECRET)


def test_a_message_leaves_at_once_though_it_ends_as_the_secret_begins() -> None:
    reader, *_ = to_agent()
    whole = frame(b"wait for " + SECRET[:8])
    assert reader.feed(whole) == whole


def test_a_secret_split_over_two_messages_is_not_seen() -> None:
    """Named in the threat model."""
    reader, sink, *_ = to_agent()
    out = reader.feed(frame(SECRET[:7]) + frame(SECRET[7:]))
    assert text_of(out).encode() == SECRET
    assert sink.hits == 0


def test_control_frames_are_masked_in_their_length() -> None:
    reader, sink, *_ = to_agent()
    out = reader.feed(frame(SECRET, 9) + frame(b"\x03\xe8" + SECRET, 8))
    ping, close = spoken(out)
    assert isinstance(ping, Ping) and isinstance(close, CloseConnection)
    assert bytes(ping.payload) == MASK[: len(SECRET)]
    assert (close.code, close.reason) == (1000, MASK[: len(SECRET)].decode())
    assert sink.hits == 2
    assert reader.closed


def test_a_control_frame_between_fragments_stays_between() -> None:
    reader, *_ = to_agent()
    parts = (frame(SECRET[:6], final=False), frame(b"p", 9), frame(SECRET[6:], 0))
    out = b"".join(map(reader.feed, parts))
    events = spoken(out)
    assert any(isinstance(event, Ping) for event in events)
    assert text_of(out).encode() == MASK


def test_a_long_frame_leaves_in_pieces_and_little_is_kept() -> None:
    reader, _, received, delivered = to_agent()
    payload = b"x" * (3 * PIECE) + SECRET + b"y" * 100
    data = frame(payload)
    out, most = b"", 0
    for at in range(0, len(data), 1000):
        out += reader.feed(data[at : at + 1000])
        most = max(most, at + 1000 - len(out))
    assert most < PIECE + 2000
    assert text_of(out).encode() == payload.replace(SECRET, MASK)
    assert (received.frames, received.size) == (1, len(payload))
    assert delivered.frames == 4
    assert delivered.size == len(payload) - len(SECRET) + len(MASK)


def test_a_frame_may_announce_more_than_ever_comes() -> None:
    reader, *_ = to_agent()
    assert reader.feed(b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"some") == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(b"x", mask=b"abcd"), "masked"),
        (b"\xc1\x01x", "extension"),
        (b"\x83\x01x", "extension"),
        (frame(b"x", 9, final=False), "control"),
        (frame(b"x" * 126, 9), "control"),
        (frame(b"x", 0), "without a beginning"),
        (frame(b"x", final=False) + frame(b"y"), "inside another"),
        (b"\x81\x7e\x00\x05hello", "oddly written"),
        (b"\x81\x7f" + (70_000).to_bytes(8, "big")[:0] + b"\0\0\0\0\0\0\0\x05hello", "oddly"),
        (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "oddly"),
        (frame(b"", 8) + frame(b"x"), "behind the close"),
        (frame(b"", 8) + frame(b"", 8), "behind the close"),
        (frame(b"x", final=False) + frame(b"", 8) + frame(b"x", 0), "behind the close"),
        (frame(b"", 8) + frame(b"x", 10) + frame(b"x"), "behind the close"),
    ],
)
def test_what_breaks_the_protocol_ends_the_socket(data: bytes, reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        to_agent()[0].feed(data)


@pytest.mark.parametrize("opcode", [9, 10])
def test_a_ping_that_crossed_the_close_frame_may_be_answered(opcode: int) -> None:
    data = frame(b"", 8) + frame(b"ping", opcode)
    assert to_agent()[0].feed(data) == data


def test_an_agent_must_mask() -> None:
    with pytest.raises(BadFrame, match="masked"):
        Reader(Verbatim(tally()), masked=True).feed(frame(b"x"))


def test_handshake_and_close() -> None:
    # The example of RFC 6455 1.3.
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    [close] = spoken(close_frame(1002))
    assert isinstance(close, CloseConnection) and close.code == 1002
    server = Connection(ConnectionType.SERVER)
    server.receive_data(close_frame(1002, b"\x01\x02\x03\x04"))
    [close] = server.events()
    assert isinstance(close, CloseConnection) and close.code == 1002
