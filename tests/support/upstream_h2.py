"""The HTTP/2 side of the test upstream: one thread reads, one thread a stream answers."""

from __future__ import annotations

import contextlib
import select
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.support.upstream import Pairs, Received, Reply, Reset, Upstream

CONNECTION_LEVEL = {"connection", "keep-alive", "transfer-encoding", "upgrade"}


@dataclass(slots=True)
class _Stream:
    headers: Pairs
    body: bytearray = field(default_factory=bytearray)
    trailers: Pairs = ()


def _text(pairs: Iterable[tuple[bytes | str, bytes | str]]) -> Pairs:
    def plain(value: bytes | str) -> str:
        return value.decode("latin-1") if isinstance(value, bytes) else value

    return tuple((plain(name), plain(value)) for name, value in pairs)


class _Connection:
    def __init__(self, server: Upstream, tls: ssl.SSLSocket, sni: str | None, number: int) -> None:
        self.server, self.tls, self.sni, self.number = server, tls, sni, number
        # Requests are recorded as they come, so nothing is validated or repaired on arrival.
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.turn = threading.Condition()  # guards self.h2 and the writing side of the socket
        self.streams: dict[int, _Stream] = {}
        self.gone: set[int] = set()
        self.closed = False

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.tls.sendall(data)

    def run(self) -> None:
        answers: list[threading.Thread] = []
        with self.turn:
            self.h2.initiate_connection()
            self.flush()
        self.server.goodbyes.append(self.leave)
        try:
            while not self.closed:
                # Wait without the lock, read with it: an SSL object serves one thread at a time.
                if not self.tls.pending() and not select.select([self.tls], [], [], 0.5)[0]:
                    continue
                with self.turn:
                    data = self.tls.recv(1 << 16)
                    if not data:
                        return
                    for event in self.h2.receive_data(data):
                        self.on_event(event, answers)
                    self.flush()
                    self.turn.notify_all()
        except h2.exceptions.ProtocolError:
            with contextlib.suppress(OSError):
                self.flush()
        finally:
            with self.turn:
                self.closed = True
                self.turn.notify_all()
            for thread in answers:
                thread.join(10)

    def leave(self) -> None:
        """GOAWAY; hyper-h2 would take its own for the end."""
        with self.turn:
            last = max(self.h2.highest_inbound_stream_id, 0)
            payload = last.to_bytes(4, "big") + bytes(4)
            self.tls.sendall(len(payload).to_bytes(3, "big") + b"\x07\0" + bytes(4) + payload)

    def on_event(self, event: h2.events.Event, answers: list[threading.Thread]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.streams[event.stream_id] = _Stream(_text(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id].body += event.data
            if self.server.windows_open:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.streams[event.stream_id].trailers = _text(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.gone.add(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.closed = True
        elif isinstance(event, h2.events.StreamEnded):
            thread = threading.Thread(target=self.answer, args=(event.stream_id,), daemon=True)
            answers.append(thread)
            thread.start()

    def answer(self, stream: int) -> None:
        asked = self.streams.pop(stream)
        pseudo = {name: value for name, value in asked.headers if name.startswith(":")}
        reply = self.server.reply_to(
            Received(
                pseudo.get(":method", ""),
                pseudo.get(":path", ""),
                "HTTP/2",
                asked.headers,
                bytes(asked.body),
                trailers=asked.trailers,
                sni=self.sni,
                connection=self.number,
            )
        )
        try:
            self.send_reply(stream, reply, pseudo.get(":method") == "HEAD")
        except Reset:
            with self.turn, contextlib.suppress(OSError, h2.exceptions.ProtocolError):
                self.h2.reset_stream(stream)
                self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass  # the client went away or gave the stream up

    def send_reply(self, stream: int, reply: Reply, bodiless: bool) -> None:
        headers = [(n.lower(), v) for n, v in reply.headers if n.lower() not in CONNECTION_LEVEL]
        with self.turn:
            if reply.early is not None:
                early = [(n.lower(), v) for n, v in reply.early]
                self.h2.send_headers(stream, [(":status", "103"), *early])
            self.h2.send_headers(
                stream, [(":status", str(reply.status)), *headers], end_stream=bodiless
            )
            self.flush()
        if bodiless:
            return
        for piece in [reply.body] if isinstance(reply.body, bytes) else reply.body:
            self.send_data(stream, piece)
        with self.turn:
            if reply.trailers:
                trailers = [(n.lower(), v) for n, v in reply.trailers]
                self.h2.send_headers(stream, trailers, end_stream=True)
            else:
                self.h2.end_stream(stream)
            self.flush()

    def send_data(self, stream: int, data: bytes) -> None:
        rest = memoryview(data)  # what is left of 100 MB is not copied for every frame
        while rest:
            with self.turn:
                while not (
                    room := min(
                        self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size
                    )
                ):
                    self.turn.wait(1)
                    if self.closed or stream in self.gone:
                        raise BrokenPipeError
                self.h2.send_data(stream, bytes(rest[:room]))
                self.flush()
            rest = rest[room:]


def serve_h2(server: Upstream, tls: ssl.SSLSocket, sni: str | None, number: int) -> None:
    """One HTTP/2 connection, until it closes."""
    _Connection(server, tls, sni, number).run()
