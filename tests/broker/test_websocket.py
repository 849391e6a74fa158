"""A WebSocket's two directions, and the handshake that opens it."""

from __future__ import annotations

import pytest

from audit.commitment import commit
from broker.frames import accept_of
from broker.websocket import Socket, odd_handshake
from rules.request import Request
from tests.broker.test_frames import SALT, SECRET, frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = Request(
    "GET", "https", "a.example", 443, "/", None, (("sec-websocket-key", KEY),), b"", "websocket"
)
ACCEPT = ("Sec-WebSocket-Accept", accept_of(KEY))


@pytest.mark.parametrize("masked", [(), (SECRET,)])
def test_both_directions_are_counted_and_committed_to(masked: tuple[bytes, ...]) -> None:
    socket = Socket(SALT, masked)
    up = frame(b"question", mask=b"abcd")
    assert socket.from_agent(up) == up
    down = frame(b"answer")
    assert socket.from_upstream(down) == down
    received, delivered, came, left = socket.delivered
    plain = b"\x81" + (6).to_bytes(8, "big") + b"answer"
    assert received == commit(SALT, "received", plain)
    assert delivered == commit(SALT, "delivered", plain)
    assert (came, left) == (6, 6)
    asked = b"\x81" + (8).to_bytes(8, "big") + b"question"
    assert socket.to_json() == {
        "sent": commit(SALT, "sent", asked),
        "sent_size": 8,
        "sent_frames": 1,
        "received_frames": 1,
    }
    assert not socket.closed
    socket.from_agent(frame(b"", 8, mask=b"abcd"))
    socket.from_upstream(frame(b"", 8))
    assert socket.closed


def test_only_what_comes_back_is_masked() -> None:
    socket = Socket(SALT, [SECRET])
    assert SECRET in socket.from_agent(frame(SECRET, mask=b"\0\0\0\0"))
    assert SECRET not in socket.from_upstream(frame(SECRET))
    assert socket.hits == 1


def test_a_handshake_must_be_the_one_that_was_asked_for() -> None:
    assert odd_handshake(REQUEST, (ACCEPT,)) is None
    assert "Accept" in (odd_handshake(REQUEST, ()) or "")
    assert "Accept" in (odd_handshake(REQUEST, (("sec-websocket-accept", "x"),)) or "")
    assert "Accept" in (odd_handshake(REQUEST, (ACCEPT, ACCEPT)) or "")
    extended = (ACCEPT, ("Sec-WebSocket-Extensions", "permessage-deflate"))
    assert "extension" in (odd_handshake(REQUEST, extended) or "")
