"""A corporate proxy for tests: CONNECT with Basic authentication, in clear text or over TLS.

with ConnectProxy("keybroker", "its password") as proxy:
    ... point egress.proxy at proxy.url ...
    assert proxy.asked == ["127.0.0.1:8443"]
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self


class ConnectProxy:
    """In threads of this process; a context manager. Notes whom it was asked for, and by whom."""

    def __init__(
        self, username: str = "", password: str = "", *, tls: ssl.SSLContext | None = None
    ) -> None:
        """`refuse` is a status to answer every CONNECT with; `mute`: it says nothing at all."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.wanted = f"Basic {pair}" if username else None
        self.tls = tls
        self.refuse: int | None = None
        self.mute = False
        self.extra = b""
        """What it sends behind its answer, before anything was asked of the upstream."""
        self.talk: Callable[[socket.socket, str], None] | None = None
        """Has the connection instead, once the head (its second argument) has come."""
        self.asked: list[str] = []
        self.heads: list[str] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, ValueError):
            connection = self.tls.wrap_socket(raw, server_side=True) if self.tls else raw
            self._open.add(connection)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)
                if not byte:
                    return
                head += byte
            self._answer(connection, head.decode("ascii"))

    def _answer(self, connection: socket.socket, head: str) -> None:
        self.heads.append(head)
        line, *fields = head.split("\r\n")[:-2]
        method, target, version = line.split(" ")
        self.asked.append(target)
        named = dict(field.split(": ", 1) for field in fields)
        if self.talk is not None:
            self.talk(connection, head)
            connection.close()
            return
        if self.mute:
            connection.recv(1)
            return
        status = self.refuse or (200 if named.get("Proxy-Authorization") == self.wanted else 407)
        if (method, version) != ("CONNECT", "HTTP/1.1") or named["Host"] != target:
            status = 400
        connection.sendall(f"HTTP/1.1 {status} So\r\nX-Proxy: corp\r\n\r\n".encode() + self.extra)
        if status != 200:
            connection.close()
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), 20) as upstream:
            self._open.add(upstream)
            back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
            back.start()
            _pump(connection, upstream)
            back.join(20)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
