"""A real upstream for tests: HTTP/1.1 and HTTP/2, over TLS with its own CA or in clear text.

It records every request exactly as it arrived and answers by path (see `upstream_routes`), or as
a test programs it:

    with Upstream() as upstream:
        upstream.answer("/pay", Reply(201, body=b"ok"))
        ... call upstream.url + "/pay", trusting upstream.ca_file ...
        assert upstream.requests[0].header("authorization") == "Bearer sk_live_1"
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qsl

from tests.support.throwaway_ca import ThrowawayCA

Pairs = tuple[tuple[str, str], ...]
Certificate = Literal["valid", "expired", "self-signed", "wrong-name"]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the upstream got it; header names, order and case as on the wire."""

    method: str
    target: str
    version: str
    headers: Pairs
    body: bytes
    head: bytes = b""
    """HTTP/1 only: request line and headers, byte for byte."""
    trailers: Pairs = ()
    sni: str | None = None
    connection: int = 0
    """Counts connections from 1: equal numbers mean that the connection was reused."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; of repeated ones the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def values(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first header called `name`, whatever its case."""
        return next(iter(self.values(name)), None)


class Reset(Exception):
    """Raised inside a body: the connection (or stream) is torn down there."""


class Cut(Exception):
    """Raised inside a body, HTTP/1 only: TCP ends there, and TLS does not."""


@dataclass(slots=True)
class Reply:
    """What to answer. A body of bytes gets a Content-Length, an iterable goes chunk by chunk.

    `raw` (HTTP/1 only) is sent instead of everything else, and the connection is closed.
    """

    status: int = 200
    reason: str = "OK"
    headers: Iterable[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] = b""
    trailers: Pairs = ()
    early: Pairs | None = None
    """Header lines of a 103 (Early Hints) before the answer."""
    raw: bytes | None = None
    takeover: Callable[[Conversation], None] | None = field(default=None, repr=False)
    """HTTP/1 only, after the head was sent: the connection is handed to this function."""


Route = Callable[[Received], Reply]


@dataclass(slots=True)
class Conversation:
    """A connection handed to a test's function: read and write bytes as it likes."""

    read: Callable[[int], bytes]
    write: Callable[[bytes], None]


class Upstream:
    """The server, in threads of this process; a context manager. Listens on a free port."""

    def __init__(
        self,
        *,
        names: Iterable[str] = (),
        tls: bool = True,
        http2: bool = False,
        certificate: Certificate = "valid",
        bind: str = "127.0.0.1",
        port: int = 0,
        ca: ThrowawayCA | None = None,
    ) -> None:
        """`names` are further host names to hold certificates for (anything.localhost always is).

        `http2` offers h2 by ALPN beside HTTP/1.1. `ca` lets several upstreams share one authority.
        """
        self.tls, self.http2, self.certificate = tls, http2, certificate
        self.names = ("localhost", "127.0.0.1", "::1", *names)
        self.ca = ca or ThrowawayCA()
        self.requests: list[Received] = []
        self.connections = 0
        self.routes: dict[str, Route] = {}
        self.left = threading.Event()
        """HTTP/2 only: a goodbye was said (see `say_goodbye`)."""
        self.goodbyes: list[Callable[[], None]] = []
        self.windows_open = True
        """HTTP/2 only: False leaves what arrives unacknowledged, so that no more may come."""
        self.heads: dict[str, Callable[[Received, Conversation], None]] = {}
        """HTTP/1 only: paths whose connection is handed over before the body is read."""
        self._bind = (bind, port)
        self._arrived = threading.Condition()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._bind[0] else socket.AF_INET
        self._listener = socket.create_server(self._bind, family=family, backlog=128)
        self.address, self.port = self._listener.getsockname()[:2]
        self._directory = tempfile.TemporaryDirectory(prefix="upstream-")
        self.ca_file = Path(self._directory.name) / "ca.pem"
        self.ca_file.write_bytes(self.ca.pem)
        self.context = self._server_context(self.names) if self.tls else None
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in tuple(self._threads):
            thread.join(10)
        self._directory.cleanup()

    @property
    def url(self) -> str:
        """Without a path: `https://localhost:PORT`."""
        return self.url_for("localhost")

    def url_for(self, host: str) -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def answer(self, path: str, reply: Reply | Route) -> None:
        """From now on `path` (without query) is answered so; wins over the built-in paths."""
        self.routes[path] = (lambda _: reply) if isinstance(reply, Reply) else reply

    def say_goodbye(self) -> None:
        """HTTP/2 only: GOAWAY without an error on every connection; what was begun goes on."""
        for say in self.goodbyes:
            say()
        self.goodbyes.clear()
        self.left.set()

    def wait_for(self, count: int = 1, timeout: float = 10) -> list[Received]:
        """All requests, once there are `count`; TimeoutError after `timeout` seconds."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} requests arrived")
            return list(self.requests)

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._arrived:
            self.requests.clear()

    def note(self, request: Received) -> None:
        """Record `request`."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def reply_to(self, request: Received) -> Reply:
        """Record `request` and find its answer."""
        from tests.support.upstream_routes import built_in

        self.note(request)
        route = self.routes.get(request.path)
        return route(request) if route else built_in(request)

    def _server_context(self, names: Iterable[str]) -> ssl.SSLContext:
        shown = ["elsewhere.example"] if self.certificate == "wrong-name" else list(names)
        context = self.ca.server_context(
            shown,
            expired=self.certificate == "expired",
            own=self.certificate == "self-signed",
        )
        context.set_alpn_protocols(["h2", "http/1.1"] if self.http2 else ["http/1.1"])
        context.sni_callback = self._on_sni
        return context

    def _on_sni(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.server_said = name  # type: ignore[attr-defined]  # read back in _serve
        # OpenSSL refuses `*.localhost` (one label only), so each name gets its own certificate.
        if name and name.endswith(".localhost"):
            if name not in self._contexts:
                self._contexts[name] = self._server_context([name])
            connection.context = self._contexts[name]

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections = number
            self._open.add(connection)
            self._spawn(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        raw, sni = connection, None
        tls: ssl.SSLSocket | None = None
        try:
            connection.settimeout(60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                tls = self.context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                self._open.add(tls)
                connection = tls
                tls.do_handshake()
                sni = getattr(tls, "server_said", None)
                if tls.selected_alpn_protocol() == "h2":
                    from tests.support.upstream_h2 import serve_h2

                    serve_h2(self, tls, sni, number)
                    return
            serve_h1(self, connection, sni, number)
            if tls is not None:
                tls.settimeout(0)  # says that TLS ends, and waits for no answer
                tls.unwrap()
        except Cut:
            pass
        except Reset:
            # RST rather than FIN: the peer must see a broken connection, not an end.
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (OSError, EOFError, ValueError):
            pass  # the peer went away or sent what is not HTTP; what arrived whole is recorded
        finally:
            self._open.discard(raw)
            self._open.discard(connection)
            connection.close()


def serve_h1(server: Upstream, connection: socket.socket, sni: str | None, number: int) -> None:
    """One HTTP/1.1 connection, until it closes."""
    reader = connection.makefile("rb")
    write = connection.sendall
    try:
        while True:
            head = _read_head(reader.readline)
            if not head:
                return
            line, *fields = head.decode("latin-1").split("\r\n")[:-2]
            method, target, version = line.split(" ", 2)
            headers = tuple(
                (name, value.strip(" \t")) for name, _, value in (f.partition(":") for f in fields)
            )
            named = {name.lower(): value for name, value in headers}
            at_head = server.heads.get(target.partition("?")[0])
            if at_head is not None:
                asked = Received(method, target, version, headers, b"", head, (), sni, number)
                server.note(asked)
                at_head(asked, Conversation(reader.read1, write))
                return
            if named.get("expect", "").lower() == "100-continue":
                write(b"HTTP/1.1 100 Continue\r\n\r\n")
            trailers: Pairs = ()
            if "chunked" in named.get("transfer-encoding", "").lower():
                body, trailers = _read_chunked(reader.readline, reader.read)
            else:
                length = int(named.get("content-length", "0"))
                body = reader.read(length)
                if len(body) < length:
                    return  # broken off: not a request
            reply = server.reply_to(
                Received(method, target, version, headers, body, head, trailers, sni, number)
            )
            if reply.raw is not None:
                write(reply.raw)
                return
            for piece in _h1_answer(reply, method):
                write(piece)
            if reply.takeover:
                reply.takeover(Conversation(reader.read1, write))
                return
            if named.get("connection", "").lower() == "close" or version == "HTTP/1.0":
                return
    finally:
        reader.close()


def _read_head(readline: Callable[[], bytes]) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = readline()
        if not line:
            return b""
        head += line
        if head == b"\r\n":
            head = b""  # RFC 9112 2.2: an empty line before the request line is ignored
    return head


def _read_chunked(
    readline: Callable[[], bytes], read: Callable[[int], bytes]
) -> tuple[bytes, Pairs]:
    body = b""
    while size := int(readline().partition(b";")[0], 16):
        body += read(size)
        readline()
    trailers = []
    while (line := readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").strip().partition(":")
        trailers.append((name, value.strip()))
    return body, tuple(trailers)


def _h1_answer(reply: Reply, method: str) -> Iterator[bytes]:
    def lines(pairs: Iterable[tuple[str, str]]) -> bytes:
        return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1") + b"\r\n"

    if reply.early is not None:
        yield b"HTTP/1.1 103 Early Hints\r\n" + lines(reply.early)
    headers = list(reply.headers)
    known = {name.lower() for name, _ in headers}
    bodiless = method == "HEAD" or reply.status in (101, 204, 304)
    whole = isinstance(reply.body, bytes) and not reply.trailers
    if not bodiless and "content-length" not in known:
        if whole:
            headers.append(("Content-Length", str(len(reply.body))))  # type: ignore[arg-type]
        else:
            headers.append(("Transfer-Encoding", "chunked"))
    status = f"HTTP/1.1 {reply.status} {reply.reason}\r\n".encode("latin-1")
    yield status + lines(headers)
    if bodiless:
        return
    pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
    chunked = "content-length" not in known and not whole
    for piece in pieces:
        if piece:
            yield b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    if chunked:
        yield b"0\r\n" + lines(reply.trailers)
