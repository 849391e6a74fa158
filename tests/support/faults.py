"""A TCP proxy that passes bytes on, until it is told to misbehave.

with FaultProxy(bao.port) as way:
    ... https://127.0.0.1:{way.port} ...
    way.silent()          # takes connections and bytes, and gives nothing back
    way.cut_after(120)    # passes 120 bytes of answers on each connection, then resets it
    way.refuse()          # nothing listens any more
    way.slow(0.05)        # one byte of an answer at a time, with pauses
    way.heal()
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self


class FaultProxy:
    """From a port of its own on 127.0.0.1 to `target` there."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._limit: int | None = None
        self._pause = 0.0
        self._silent = False
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = False
        self.port = 0
        self.accepted = 0
        """Connections taken so far."""

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self.refuse()

    def heal(self) -> None:
        """Passes everything on again."""
        self._limit, self._pause, self._silent = None, 0.0, False
        if self._listener is None:
            self._listen()

    def silent(self) -> None:
        """Connections stand, answers do not come."""
        self._silent = True

    def cut_after(self, size: int) -> None:
        """New and open connections end after that many more bytes of answers."""
        self._limit = size

    def slow(self, pause: float) -> None:
        """Answers come byte by byte."""
        self._pause = pause

    def refuse(self) -> None:
        """Closes the port and every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop()

    def drop(self) -> None:
        """Resets every open connection; new ones are taken."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._over:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        with self._lock:
            self._open |= {near, far}
        try:
            self._shovel(near, far)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {near, far}
            near.close()
            far.close()

    def _shovel(self, near: socket.socket, far: socket.socket) -> None:
        left = self._limit
        while True:
            ready, _, _ = select.select([near, far], [], [], 1.0)
            for sock in ready:
                data = sock.recv(65536)
                if not data:
                    return
                if sock is near:
                    far.sendall(data)
                    continue
                if self._silent:
                    continue
                if self._limit is not None:
                    left = self._limit if left is None else left
                    near.sendall(data[:left])
                    left -= len(data)
                    if left <= 0:
                        # A reset rather than an end: SO_LINGER of zero seconds.
                        near.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                        return
                elif self._pause:
                    for byte in data:
                        near.sendall(bytes([byte]))
                        time.sleep(self._pause)
                else:
                    near.sendall(data)
