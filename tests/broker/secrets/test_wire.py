"""A wire by itself: where it leads, and that noise on a quiet one spoils it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from broker.secrets.wire import Broken, Place, Wire

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("url", "place", "authority"),
    [
        ("https://vault.example", Place("vault.example", 443, tls=True), "vault.example"),
        ("https://v:8200", Place("v", 8200, tls=True), "v:8200"),
        ("http://127.0.0.1", Place("127.0.0.1", 80, tls=False), "127.0.0.1"),
        ("https://[::1]:8200", Place("::1", 8200, tls=True), "[::1]:8200"),
    ],
)
def test_a_place_is_what_the_url_names(url: str, place: Place, authority: str) -> None:
    assert Place.of(url) == place
    assert place.authority == authority


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    wire = Wire(near)
    with far:
        yield wire, far
    wire.close()


async def test_an_answer_in_pieces_is_put_together(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    task = asyncio.create_task(wire.exchange(b"GET / HTTP/1.1\r\n\r\n"))
    for byte in ANSWER:
        await asyncio.sleep(0)
        far.send(bytes([byte]))
    response = await task
    assert (response.status, response.body) == (200, b"hi")
    assert wire.usable
    assert far.recv(100) == b"GET / HTTP/1.1\r\n\r\n"


async def test_a_long_request_waits_for_room(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    size = 4_000_000
    task = asyncio.create_task(wire.exchange(b"x" * size))
    got = 0
    while got < size:
        got += len(await asyncio.to_thread(far.recv, 1 << 20))
    far.send(ANSWER)
    assert (await task).status == 200


@pytest.mark.parametrize("noise", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nc4nary", b"x"])
async def test_bytes_that_nobody_asked_for_spoil_a_wire(
    ends: tuple[Wire, socket.socket], noise: bytes
) -> None:
    """The answer to an older question must never pass for that to the next."""
    wire, far = ends
    assert wire.usable
    far.send(noise)
    assert not wire.usable
    assert not wire.usable


async def test_a_second_answer_behind_the_first_spoils_both(
    ends: tuple[Wire, socket.socket],
) -> None:
    wire, far = ends
    far.send(ANSWER + ANSWER)
    with pytest.raises(Broken) as caught:
        await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")
    assert caught.value.kind == "garbled"
    assert not wire.usable


async def test_an_end_before_the_first_byte_is_told_from_a_cut(
    ends: tuple[Wire, socket.socket],
) -> None:
    wire, far = ends
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken) as caught:
        await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")
    assert (caught.value.kind, caught.value.unanswered) == ("cut", True)
    with pytest.raises(Broken):
        await wire.exchange(b"again")  # it is closed


async def test_an_end_in_the_middle_is_a_cut(ends: tuple[Wire, socket.socket]) -> None:
    wire, far = ends
    far.send(ANSWER[:-1])
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken) as caught:
        await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")
    assert (caught.value.kind, caught.value.unanswered) == ("cut", False)


async def test_an_exchange_that_is_given_up_closes_the_wire(
    ends: tuple[Wire, socket.socket],
) -> None:
    wire, far = ends
    task = asyncio.create_task(wire.exchange(b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not wire.usable
    assert far.recv(100)
    assert far.recv(100) == b""


@pytest.mark.parametrize("noise", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_an_idle_wire_that_ends_or_speaks_is_closed_at_once(
    ends: tuple[Wire, socket.socket], noise: bytes
) -> None:
    wire, far = ends
    for _ in range(2):
        far.send(ANSWER)
        assert (await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")).keep
        assert far.recv(100)
    if noise:
        far.send(noise)
    else:
        far.shutdown(socket.SHUT_WR)
    far.settimeout(10)
    with suppress(ConnectionResetError):  # as it closed with bytes unread
        assert await asyncio.to_thread(far.recv, 100) == b""
    assert not wire.usable


async def test_an_answer_that_comes_late_is_for_nobody(ends: tuple[Wire, socket.socket]) -> None:
    """The exchange was given up; its answer finds the connection closed."""
    wire, far = ends
    far.settimeout(10)
    task = asyncio.create_task(wire.exchange(b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.sleep(0)
    far.send(ANSWER)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Broken):
        await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")
