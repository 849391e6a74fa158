"""The same conversation through both lanes: the raw bytes of an agent, those of an upstream, and
everything that anybody saw of it, in a form that can be compared."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.proxy.harness import FakePassage, FakePipeline, Worker
from tests.support.throwaway_ca import ThrowawayCA

PATIENCE = 0.15
"""Seconds of silence after which nothing more is expected."""


# -- the upstream


class Visit:
    """One connection, as the upstream has it."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection = connection
        self.number = number
        """Counts from 1."""
        self.heard = bytearray()
        self._rest = b""

    def request(self) -> bytes:
        """The next whole request (by its Content-Length); empty if the other side is gone."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return b""
        length = re.search(rb"\r\ncontent-length: *(\d+)", self._rest[:end].lower())
        size = end + 4 + (int(length[1]) if length else 0)
        while len(self._rest) < size:
            if not self._more():
                return b""
        whole, self._rest = self._rest[:size], self._rest[size:]
        return whole

    def _more(self) -> bool:
        data = self.connection.recv(65536)
        self.heard += data
        self._rest += data
        return bool(data)

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def stay(self) -> None:
        """Until the other side closes."""
        while self._more():
            pass

    def reset(self) -> None:
        """Tears the connection down (RST)."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def garbage(self) -> None:
        """Breaks TLS, and closes TCP."""
        socket.socket.sendall(self.connection, b"\x17\x03\x03\x00\x20" + b"g" * 32)
        self.fin()

    def fin(self) -> None:
        """Closes TCP without the end of TLS."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


Talk = Callable[[Visit], None]


class Peer:
    """A server that does with each connection what a test says; a context manager."""

    def __init__(self, ca: ThrowawayCA, talk: Talk, *, tls: bool = True) -> None:
        self._context = ca.server_context(["localhost", "127.0.0.1"]) if tls else None
        self._talk = talk
        self.visits: list[Visit] = []
        self._raw: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for raw in self._raw:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                raw.settimeout(20)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._raw.append(raw)
                self._spawn(self._serve, raw)

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection = raw
            if self._context is not None:
                connection = self._context.wrap_socket(raw, server_side=True)
            visit = Visit(connection, len(self.visits) + 1)
            self.visits.append(visit)
            try:
                self._talk(visit)
                if self._context is not None and connection.fileno() >= 0:
                    raw = connection.unwrap()  # type: ignore[attr-defined]
            finally:
                connection.close()
                raw.close()


def answers(*replies: bytes | Sequence[bytes], then: str = "stay") -> Talk:
    """Each request on a connection gets the next of the replies, in pieces where it is a list.

    `then`: what follows the last one: stay, close (TLS ends too), fin (it does not), garbage (it
    breaks) or reset.
    """

    def talk(visit: Visit) -> None:
        for reply in replies:
            if not visit.request():
                return
            for piece in [reply] if isinstance(reply, bytes) else reply:
                visit.write(piece)
                if not isinstance(reply, bytes):
                    time.sleep(0.01)
        if then == "stay":
            visit.stay()
        elif then == "reset":
            visit.reset()
        elif then == "fin":
            visit.fin()
        elif then == "garbage":
            visit.garbage()

    return talk


# -- the agent


class Agent:
    """A raw agent inside its tunnel."""

    def __init__(self, tls: ssl.SSLSocket, place: str) -> None:
        self.tls, self.place = tls, place
        self.got = b""
        self.ended = "open"

    def send(self, *pieces: bytes) -> None:
        """`PLACE` in the bytes becomes host and port of the upstream."""
        for at, piece in enumerate(pieces):
            if at:
                time.sleep(0.02)
            with contextlib.suppress(OSError):
                self.tls.sendall(piece.replace(b"PLACE", self.place.encode()))

    def read(self, count: int = 1, patience: float = 5.0, methods: Sequence[str] = ()) -> None:
        """Until `count` answers are whole in all, or the other side closes."""
        while self.ended == "open" and len(parse(self.got, methods)) < count:
            if not self._more(patience):
                return

    def linger(self, patience: float = PATIENCE) -> None:
        """Whatever comes until there is silence, or the end."""
        while self.ended == "open" and self._more(patience):
            pass

    def _more(self, patience: float) -> bool:
        self.tls.settimeout(patience)
        try:
            data = self.tls.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            self.ended = "closed"
        self.got += data
        return True

    def close(self) -> None:
        """As most clients: no end of TLS."""
        self.ended = "gone"
        self.tls.close()

    def close_notify(self) -> None:
        """TLS ends, TCP does not yet; nothing more is read."""
        self.ended = "gone"
        self.tls.settimeout(0.3)
        with contextlib.suppress(OSError):
            self.tls.unwrap()

    def fin(self) -> None:
        """TCP is half closed; the agent still reads."""
        socket.socket.shutdown(self.tls, socket.SHUT_WR)  # that of TLS would forget its keys

    def reset(self) -> None:
        self.ended = "gone"
        self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()


Say = Callable[[Agent], None]


def says(*pieces: bytes, answers: int = 1, methods: Sequence[str] = (), rest: bool = False) -> Say:
    """Sends the pieces in turn, and reads so many answers; `rest`: and whatever follows."""

    def say(agent: Agent) -> None:
        agent.send(*pieces)
        agent.read(answers, methods=methods)
        if rest:
            agent.linger()

    return say


# -- what came of it


@dataclass(frozen=True)
class Reply:
    """One response as the agent read it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True

    @property
    def code(self) -> str:
        return dict(self.fields).get("keybroker-code", "")


def parse(data: bytes, methods: Sequence[str] = ()) -> list[Reply]:
    """The whole responses at the beginning of `data`; `methods`: of the requests, GET if none."""
    return [reply for reply in _replies(data, methods) if reply.whole]


def _replies(data: bytes, methods: Sequence[str]) -> Iterator[Reply]:
    at, number = 0, 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        lines = data[at:end].decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        pairs = [line.partition(":") for line in lines[1:]]
        fields = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        kept = tuple(pair for pair in fields if pair[0] != "keybroker-request-id")
        method = methods[number] if number < len(methods) else "GET"
        at = end + 4
        named = dict(fields)
        if method == "HEAD" or status in (204, 304) or status < 200:
            yield Reply(status, kept, b"")
        elif "content-length" in named:
            size = int(named["content-length"])
            body = data[at : at + size]
            yield Reply(status, kept, _masked(body), whole=len(body) == size)
            at += size
        elif named.get("transfer-encoding") == "chunked":
            body, after = _unchunked(data, at)
            yield Reply(status, kept, body, whole=after >= 0)
            if after < 0:
                return
            at = after
        else:
            yield Reply(status, kept, data[at:], whole=False)  # until the end
            return
        number += status >= 200
    if data[at:]:
        yield Reply(0, (), data[at:], whole=False)


def _masked(body: bytes) -> bytes:
    return re.sub(rb"engine-[0-9a-f]{16}", b"engine-N", body)


def _unchunked(data: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        chunk = data[end + 2 : end + 2 + size]
        body += chunk
        at = end + 2 + size + 2
        if len(data) < at:
            break
        if size == 0:
            return body, at
    return body, -1


@dataclass(frozen=True)
class Outcome:
    """Everything that anybody saw."""

    replies: tuple[Reply, ...]
    ended: str
    """The agent's connection: open, closed (by the proxy), gone (by the agent)."""
    told: tuple[tuple[str, ...], ...]
    """What each passage was told."""
    delivered: tuple[bytes, ...]
    """What of the bodies each passage was shown."""
    asked: tuple[object, ...]
    """The raw requests that the middle saw."""
    arrived: tuple[bytes, ...]
    """The bytes that came in on each of the upstream's connections."""

    @property
    def statuses(self) -> list[int]:
        return [reply.status for reply in self.replies]

    @property
    def codes(self) -> list[str]:
        return [reply.code for reply in self.replies]


@dataclass
class Both:
    """One worker for each lane."""

    express: Worker
    core: Worker
    ca: ThrowawayCA
    setups: list[Callable[[FakePipeline], None]] = field(default_factory=list)

    def outcomes(
        self,
        talk: Talk,
        say: Say,
        *,
        methods: Sequence[str] = (),
        setup: Callable[[FakePipeline], None] = lambda _: None,
    ) -> tuple[Outcome, Outcome]:
        """What came of the conversation in the express lane, and in the full engine."""
        return (
            run(self.express, self.ca, talk, say, methods, setup),
            run(self.core, self.ca, talk, say, methods, setup),
        )

    def same(
        self,
        talk: Talk,
        say: Say,
        *,
        methods: Sequence[str] = (),
        setup: Callable[[FakePipeline], None] = lambda _: None,
    ) -> Outcome:
        """The one outcome that it has in both lanes."""
        express, core = self.outcomes(talk, say, methods=methods, setup=setup)
        assert express == core
        return express


@contextlib.contextmanager
def both(directory: Path, ca: ThrowawayCA, **options: object) -> Iterator[Both]:
    """Two workers that differ in their lane alone."""
    bundle = directory / "upstream-ca.pem"
    bundle.write_bytes(ca.pem)
    for name in ("express", "core"):
        (directory / name).mkdir()
    with (
        Worker(directory / "express", bundle, **options) as express,  # type: ignore[arg-type]
        Worker(directory / "core", bundle, express=False, **options) as core,  # type: ignore[arg-type]
    ):
        yield Both(express, core, ca)


def run(
    worker: Worker,
    ca: ThrowawayCA,
    talk: Talk,
    say: Say,
    methods: Sequence[str] = (),
    setup: Callable[[FakePipeline], None] = lambda _: None,
) -> Outcome:
    """One conversation, to its end."""
    fresh = FakePipeline(worker.egress)
    worker.pipeline.__dict__.clear()
    worker.pipeline.__dict__.update(fresh.__dict__)
    worker.pipeline.script = worker.pipeline.let_through
    setup(worker.pipeline)
    with Peer(ca, talk) as peer:
        place = f"localhost:{peer.port}"
        with worker.tls(place) as tls:
            agent = Agent(tls, place)
            say(agent)
        settle(worker)
        passages: list[FakePassage] = worker.pipeline.passages
        port = str(peer.port)
        return Outcome(
            replies=tuple(
                dataclasses.replace(reply, body=reply.body.replace(port.encode(), b"0"))
                for reply in _replies(agent.got, methods)
            ),
            ended=agent.ended,
            told=tuple(tuple(passage.told) for passage in passages),
            delivered=tuple(bytes(passage.received) for passage in passages),
            asked=tuple(
                dataclasses.replace(
                    raw,
                    connect=None,
                    authority=raw.authority and raw.authority.replace(port, "0"),
                    headers=tuple((n, v.replace(port.encode(), b"0")) for n, v in raw.headers),
                )
                for raw in worker.pipeline.raw
            ),
            arrived=tuple(bytes(v.heard).replace(port.encode(), b"0") for v in peer.visits),
        )


def settle(worker: Worker) -> None:
    """Until nobody is connected any more, and each passage has its end."""
    until = time.monotonic() + 5
    while worker.engine._connections or any(
        not passage.told or passage.told[-1].split(" ")[0] not in ("completed", "failed")
        for passage in worker.pipeline.passages
    ):
        assert time.monotonic() < until, [p.told for p in worker.pipeline.passages]
        time.sleep(0.005)
