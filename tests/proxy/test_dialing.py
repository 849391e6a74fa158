"""Nothing is dialled but what was pinned, whoever asks the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from proxy import dialing
from proxy.dialing import PinningLoop, Pins, Unpinned


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run(pins: Pins, work: Callable[[], Awaitable[object]], **settings: float) -> object:
    async def main() -> object:
        return await work()

    with asyncio.Runner(loop_factory=lambda: PinningLoop(pins, **settings)) as runner:
        return runner.run(main())


def test_a_pinned_name_reaches_its_address(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    pins = Pins()
    pins.pin("api.example", port, ["127.0.0.1"])

    async def dial() -> object:
        _, writer = await asyncio.open_connection("api.example", port)
        peer = writer.get_extra_info("peername")
        writer.close()
        await writer.wait_closed()
        return peer

    assert run(pins, dial) == ("127.0.0.1", port)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "api.example"])
def test_what_is_not_pinned_is_not_dialled(listener: socket.socket, host: str) -> None:
    port = listener.getsockname()[1]
    pins = Pins()
    pins.pin("api.example", port + 1, ["127.0.0.1"])
    with pytest.raises(Unpinned):
        run(pins, lambda: asyncio.open_connection(host, port))
    listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_the_next_address_is_tried(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    pins = Pins()
    pins.pin("api.example", port, ["127.0.0.77", "127.0.0.1"])

    async def dial() -> None:
        _, writer = await asyncio.open_connection("api.example", port)
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.close()
        await writer.wait_closed()

    run(pins, dial)


def test_a_later_check_leaves_dials_under_way_alone() -> None:
    pins = Pins()
    pins.pin("api.example", 443, ["8.8.8.8"])
    pins.pin("api.example", 443, ["9.9.9.9"])
    assert pins.addresses("api.example", 443) == ("9.9.9.9",)
    assert pins.holds("8.8.8.8", 443)
    assert pins.holds("9.9.9.9", 443)
    assert not pins.holds("9.9.9.9", 80)


def test_pins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_MOST", 2)
    pins = Pins()
    for number in range(3):
        pins.pin(f"h{number}", 443, [f"8.8.8.{number}"])
    assert pins.addresses("h0", 443) == ()
    assert not pins.holds("8.8.8.0", 443)
    assert pins.addresses("h2", 443) == ("8.8.8.2",)


def test_listening_on_a_name_still_works() -> None:
    async def listen() -> int:
        server = await asyncio.start_server(lambda *_: None, "localhost", 0)
        server.close()
        return len(server.sockets) or 1

    assert run(Pins(), listen)


def test_unix_sockets_are_not_our_business() -> None:
    async def both() -> bytes:
        one, other = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=one)
        other.sendall(b"x")
        byte = await reader.read(1)
        writer.close()
        other.close()
        return byte

    assert run(Pins(), both) == b"x"


def test_a_dial_is_bounded_in_time() -> None:
    pins = Pins()
    pins.pin("192.0.2.1", 9, ["192.0.2.1"])
    with pytest.raises(OSError):
        run(pins, lambda: asyncio.open_connection("192.0.2.1", 9), connect_timeout=0.05)


def test_a_socket_of_another_is_not_dialled_for_it(listener: socket.socket) -> None:
    """Who brings its own socket cannot have it connected past the pins either."""
    port = listener.getsockname()[1]

    async def dial() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(Unpinned):
                await loop.sock_connect(sock, ("127.0.0.1", port))
            with pytest.raises((Unpinned, ValueError)):
                await loop.sock_connect(sock, ("localhost", port))

    run(Pins(), dial)
    listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_names_are_not_asked_of_the_resolver() -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        for flags in (0, socket.AI_PASSIVE):
            with pytest.raises(Unpinned):
                await loop.getaddrinfo("localhost", 80, flags=flags)

    run(Pins(), ask)


def test_who_listens_cannot_be_bound_to_dial(listener: socket.socket) -> None:
    """A local address does not open a way around the pins."""
    port = listener.getsockname()[1]
    with pytest.raises(Unpinned):
        run(Pins(), lambda: asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.1", 0)))


def test_a_failed_dial_says_what_the_first_address_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pins = Pins()
    pins.pin("api.example", port, ["127.0.0.1", "127.0.0.77"])
    with pytest.raises(ConnectionRefusedError):
        run(pins, lambda: asyncio.open_connection("api.example", port))
