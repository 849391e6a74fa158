"""One connection of an agent: blocking, HTTP/1.1, as little work as can be."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass

_REQUEST = (
    "{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: bench/1\r\n"
    "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
)


@dataclass(frozen=True, slots=True)
class Door:
    """How a call reaches the upstream: directly, or through a proxy."""

    upstream: int
    """Its port on localhost."""
    context: ssl.SSLContext
    proxy: int | None = None
    authorization: str | None = None
    """The value of Proxy-Authorization."""

    def open(self) -> Line:
        return Line(self)


class Line:
    """A kept-alive connection; `get` and `post` raise AssertionError unless the answer is 200."""

    def __init__(self, door: Door) -> None:
        self._port = door.upstream
        plain = socket.create_connection(("127.0.0.1", door.proxy or door.upstream), timeout=60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if door.proxy is not None:
            credential = (
                f"Proxy-Authorization: {door.authorization}\r\n" if door.authorization else ""
            )
            place = f"localhost:{door.upstream}"
            plain.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{credential}\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                piece = plain.recv(4096)
                assert piece, answer
                answer += piece
            assert answer.split(b" ", 2)[1] == b"200", answer
        self._socket = door.context.wrap_socket(plain, server_hostname="localhost")
        self._buffer = b""

    def get(self, path: str) -> None:
        """One call; the body is read to its end and dropped."""
        self.ask(path)
        self.answer()

    def ask(self, path: str) -> None:
        head = _REQUEST.format(method="GET", path=path, port=self._port) + "\r\n"
        self._socket.sendall(head.encode())

    def post(self, path: str, size: int) -> None:
        """One call with a body of `size` bytes."""
        head = _REQUEST.format(method="POST", path=path, port=self._port)
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        self._socket.sendall(head.encode())
        chunk = b"x" * 65536
        while size > 0:
            self._socket.sendall(chunk[:size])
            size -= len(chunk)
        self.answer()

    def first_event(self, path: str) -> float:
        """Seconds between the upstream's writing the first event and its arrival here."""
        self.ask(path)
        fields = self._head()
        assert b"text/event-stream" in fields
        while b"\n\n" not in self._buffer:
            self._fill()
        arrived = time.monotonic_ns()
        written = int(self._buffer.partition(b"data: ")[2].partition(b"\n")[0])
        self._rest(fields)
        return (arrived - written) / 1e9

    def answer(self) -> None:
        self._rest(self._head())

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.split(b" ", 2)[1] == b"200", head + self._buffer
        return head.lower()

    def _rest(self, fields: bytes) -> None:
        if b"transfer-encoding: chunked" not in fields:
            self._skip(int(fields.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            return
        size = -1
        while size:
            while b"\r\n" not in self._buffer:
                self._fill()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(line, 16)
            self._skip(size + 2)

    def _skip(self, size: int) -> None:
        while len(self._buffer) < size:
            size -= len(self._buffer)
            self._buffer = b""
            self._fill()
        self._buffer = self._buffer[size:]

    def _fill(self) -> None:
        piece = self._socket.recv(1 << 18)
        assert piece, "the connection was closed"
        self._buffer += piece

    def close(self) -> None:
        self._socket.close()
