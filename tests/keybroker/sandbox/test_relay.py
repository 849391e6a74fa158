"""The relay carries bytes both ways to one address: half-closes, many at a time, slow readers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from keybroker.sandbox.relay import Relay

BIG = 32 * 1024 * 1024


@contextmanager
def proxy(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that stands for the proxy, with a thread for each connection."""
    server = socket.create_server(("127.0.0.1", 0), backlog=256)

    def each(connection: socket.socket) -> None:
        with connection:
            handle(connection)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=each, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@contextmanager
def relay(port: int) -> Iterator[Callable[[], socket.socket]]:
    """A relay to `port`, as a function that connects to it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    address = listener.getsockname()
    with Relay(listener, "127.0.0.1", port):
        yield lambda: socket.create_connection(address, timeout=30)


def everything(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def echo_after_the_end(sock: socket.socket) -> None:
    sock.sendall(everything(sock))


def test_an_end_of_file_passes_and_the_answer_still_comes() -> None:
    with proxy(echo_after_the_end) as port, relay(port) as dial, dial() as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b"question"


def test_the_proxys_end_of_file_passes_and_it_still_listens() -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def speak_first(sock: socket.socket) -> None:
        sock.sendall(b"early answer")
        sock.shutdown(socket.SHUT_WR)
        heard.append(everything(sock))
        done.set()

    with proxy(speak_first) as port, relay(port) as dial, dial() as sock:
        assert everything(sock) == b"early answer"
        sock.sendall(b"the rest")
        sock.shutdown(socket.SHUT_WR)
        assert done.wait(20)
    assert heard == [b"the rest"]


def test_much_is_carried_whole_in_both_directions() -> None:
    def echo(sock: socket.socket) -> None:
        while piece := sock.recv(1 << 20):
            sock.sendall(piece)

    data = bytes(range(256)) * (BIG // 256)
    with proxy(echo) as port, relay(port) as dial, dial() as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        assert everything(sock) == data
        thread.join()


def test_a_slow_reader_slows_the_sender_down() -> None:
    """What is not read yet stays with the sender, but for some buffers."""
    sent = 0
    stop = threading.Event()

    def pour(sock: socket.socket) -> None:
        nonlocal sent
        sock.settimeout(0.5)
        while not stop.is_set() and sent < 4 * BIG:
            try:
                sent += sock.send(bytes(1 << 16))
            except TimeoutError:
                stop.set()

    with proxy(pour) as port, relay(port) as dial, dial():
        assert stop.wait(30), f"{sent} bytes were taken and nobody read them"
    assert sent < 4 * BIG


def test_many_at_a_time() -> None:
    with proxy(echo_after_the_end) as port, relay(port) as dial:
        socks = [dial() for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(str(number).encode())
        for sock in socks:
            sock.shutdown(socket.SHUT_WR)
        assert [int(everything(sock)) for sock in socks] == list(range(200))
        for sock in socks:
            sock.close()


def test_a_connection_cut_at_one_end_is_cut_at_the_other() -> None:
    cut = threading.Event()

    def wait_for_the_end(sock: socket.socket) -> None:
        with suppress(ConnectionResetError):
            everything(sock)
        cut.set()

    with proxy(wait_for_the_end) as port, relay(port) as dial:
        sock = dial()
        sock.sendall(b"x")
        time.sleep(0.1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()  # a reset
        assert cut.wait(20)


def test_without_the_proxy_a_connection_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with relay(port) as dial, dial() as sock, suppress(ConnectionResetError):
        assert sock.recv(1) == b""


def test_leaving_ends_every_connection() -> None:
    with proxy(lambda sock: everything(sock) and None) as port:
        with relay(port) as dial:
            sock = dial()
            sock.sendall(b"x")
            time.sleep(0.1)
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        sock.close()


def test_leaving_at_once_is_no_trouble() -> None:
    """As where the command cannot be started; an exception in the thread fails the test."""
    for _ in range(200):
        with Relay(socket.create_server(("127.0.0.1", 0)), "127.0.0.1", 9):
            pass
