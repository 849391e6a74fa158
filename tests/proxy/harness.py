"""The engine in a thread of its own, as a worker runs it, with a scripted pipeline at its port."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import httpx

from broker.errors import CODES, Refusal
from broker.frames import BadFrame
from broker.model import Client
from certs.authority import Authority
from proxy.chain import Chain
from proxy.dialing import PinningLoop
from proxy.egress import EgressGuard
from proxy.engine import Engine
from proxy.patience import Timeouts
from rules.canonical import canonicalise
from rules.errors import Ambiguous
from rules.request import Headers, RawRequest, Request

CREDENTIALS = "Basic " + base64.b64encode(b"bot:token").decode()


@dataclass(frozen=True)
class FakeAnswer:
    status: int
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True)
class FakeHead:
    status: int
    reason: str
    headers: Headers
    answer: FakeAnswer | None = None


@dataclass
class FakePassage:
    """Passes everything on unchanged and notes what it is told."""

    request: Request
    call: str = "call-1"
    refused: bool = False
    told: list[str] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    socket_closed: bool = False
    sent_frames: bytearray = field(default_factory=bytearray)
    uploaded: int = 0
    """Bytes of an unread body that were shown before they left."""
    most: int | None = None
    """How many there may be."""

    def send(self, chunk: bytes) -> None:
        if not chunk:
            self.told.append("sent")
        self.uploaded += len(chunk)
        if self.most is not None and self.uploaded > self.most:
            raise Refusal("body_too_large", "too much")

    def send_trailers(self, raw: Sequence[tuple[bytes, bytes]]) -> Headers:
        self.told.append(f"trailers {raw!r}")
        if any(name.lower() == b"x-no" for name, _ in raw):
            raise Refusal("request_ambiguous", "not that one")
        return tuple((n.decode().lower(), v.decode()) for n, v in raw)

    def trailers(self, fields: Headers, *, deliver: bool) -> Headers:
        self.told.append(f"trailers came {fields!r} {deliver}")
        return fields if deliver else ()

    def frames_from_agent(self, data: bytes) -> bytes:
        if data.startswith(b"\xff"):
            raise BadFrame("odd")
        self.sent_frames += data
        return data

    def frames_from_upstream(self, data: bytes) -> bytes:
        if data.startswith(b"\xff"):
            raise BadFrame("odd")
        self.received += data
        return data

    def head(self, status: int, reason: str, headers: Headers) -> FakeHead:
        self.told.append(f"head {status}")
        return FakeHead(status, reason, headers)

    def feed(self, chunk: bytes) -> bytes:
        if len(self.received) < 65536:
            self.received += chunk
        return chunk

    def finish(self) -> bytes:
        self.told.append("finish")
        return b""

    async def completed(self) -> None:
        self.told.append("completed")

    async def failed(self, sentence: str, *, sent: bool) -> FakeAnswer:
        self.told.append(f"failed sent={sent}: {sentence}")
        return refused("upstream_unreachable", sentence)


@dataclass
class FakeTunnel:
    ended: list[tuple[int, int]] = field(default_factory=list)

    async def closed(self, sent: int, received: int) -> None:
        self.ended.append((sent, received))


def refused(code: str, sentence: str = "no") -> FakeAnswer:
    return FakeAnswer(
        CODES[code].status,
        (("content-type", "application/problem+json"), ("keybroker-code", code)),
        f'{{"code": "{code}", "detail": "{sentence}"}}'.encode(),
    )


Script = Callable[[Client, RawRequest, asyncio.Event], Awaitable[object]]


class FakePipeline:
    """By default every authenticated, canonical call is let through, egress checked."""

    def __init__(self, egress: EgressGuard) -> None:
        self.egress = egress
        self.raw: list[RawRequest] = []
        self.gone: list[asyncio.Event] = []
        self.passages: list[FakePassage] = []
        self.tunnels: list[FakeTunnel] = []
        self.script: Script = self.let_through
        self.make_passage: Callable[[Request], Any] = FakePassage
        self.tunnel_hosts: set[str] = set()
        self.streaming = False
        """Whether every head decides its call."""
        self.begin_script: Callable[[], Awaitable[object]] | None = None
        self.forgotten: set[Client] = set()

    def authenticate(self, proxy_authorization: Sequence[str]) -> Client:
        if list(proxy_authorization) != [CREDENTIALS]:
            raise Refusal("agent_unauthenticated", "Give the agent's name and token.")
        return Client("bot", "t1")

    def identify(self, name: str, token: str) -> Client:
        if (name, token) != ("bot", "token"):
            raise Refusal("agent_unauthenticated", "Give the agent's name and token.")
        return Client("bot", "t1")

    def knows(self, client: Client) -> bool:
        return client not in self.forgotten

    async def handle(self, client: Client, raw: RawRequest, gone: asyncio.Event) -> Any:
        self.raw.append(raw)
        self.gone.append(gone)
        return await self.script(client, raw, gone)

    async def begin(self, client: Client, raw: RawRequest) -> Any:
        assert raw.unread
        if self.begin_script is not None:
            return await self.begin_script()
        if not self.streaming:
            return None
        self.raw.append(raw)
        return await self.let_through(client, raw, asyncio.Event())

    async def let_through(self, client: Client, raw: RawRequest, gone: asyncio.Event) -> object:
        try:
            request = canonicalise(raw)
            await self.egress.check(request.host, request.port)
        except Ambiguous as error:
            return refused("request_ambiguous", error.sentence)
        except Refusal as error:
            return refused(error.code, error.detail)
        passage = self.make_passage(request)
        self.passages.append(passage)
        return passage

    def streams(self) -> bool:
        return self.streaming or self.begin_script is not None

    async def tunnel(self, client: Client, host: str, port: int, sni: str | None) -> Any:
        if host not in self.tunnel_hosts:
            return None
        await self.egress.check(host, port)
        self.tunnels.append(FakeTunnel())
        return self.tunnels[-1]

    def refusal_answer(self, refusal: Refusal, call: str | None = None) -> FakeAnswer:
        answer = refused(refusal.code, refusal.detail)
        return replace(answer, status=refusal.status)


class Http2Only(ssl.SSLContext):
    """httpx offers http/1.1 first, and the engine honours the order; here it offers h2 alone."""

    def set_alpn_protocols(self, alpn_protocols: object) -> None:
        super().set_alpn_protocols(["h2"])


class Worker:
    """An engine on its own `PinningLoop` in a thread; a context manager."""

    def __init__(
        self,
        directory: Path,
        upstream_ca: Path | None = None,
        *,
        body_limit: int = 1 << 20,
        head_timeout: float = 30,
        timeouts: Timeouts | None = None,
        chain: Chain | None = None,
        proxy_ca: Path | None = None,
        allow: Sequence[str] = ("127.0.0.0/8", "::1/128"),
        reuse_port: bool = False,
        port: int = 0,
        express: bool = True,
    ) -> None:
        self.connect_timeout = (timeouts or Timeouts()).connect
        self.egress = EgressGuard(
            [ip_network(n) for n in allow],
            proxy=None if chain is None else chain.place,
            by_name=chain is not None and chain.by_name,
        )
        self.pipeline = FakePipeline(self.egress)
        self.authority = Authority.load_or_create(directory / "ca")
        self.ca_file = directory / "proxy-ca.pem"
        self.ca_file.write_bytes(self.authority.pem)
        self.engine = Engine(
            self.pipeline,
            self.authority,
            self.egress,
            ("127.0.0.1", port),
            body_limit=body_limit,
            reuse_port=reuse_port,
            ca_bundle=upstream_ca,
            timeouts=timeouts or Timeouts(head=head_timeout),
            chain=chain,
            proxy_bundle=proxy_ca,
            express=express,
        )

    def __enter__(self) -> Self:
        self._loop = PinningLoop(self.egress.pins, connect_timeout=self.connect_timeout)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.port = self.run(self.engine.start())
        return self

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit[T](self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.submit(work).result(30)

    def __exit__(self, *exc: object) -> None:
        self.run(self.engine.stop())
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    @property
    def proxy(self) -> str:
        return f"http://bot:token@127.0.0.1:{self.port}"

    def h1_client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx.Client(proxy=self.proxy, verify=context, timeout=10)

    def h2_client(self) -> httpx.Client:
        """An HTTP/2 client that goes through the proxy."""
        context = Http2Only(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return httpx.Client(proxy=self.proxy, verify=context, http1=False, http2=True, timeout=10)

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def connect(self, authority: str, *headers: str) -> socket.socket:
        """A connection after CONNECT, which must have been granted."""
        raw = self.dial()
        raw.sendall(connect_head(authority, *headers))
        head = read_head(raw)
        assert head.startswith(b"HTTP/1.1 200"), head
        return raw

    def tls(
        self, authority: str, *, sni: str | None = "", alpn: Sequence[str] = ("http/1.1",)
    ) -> ssl.SSLSocket:
        """TLS inside CONNECT; `sni` "" is the authority's host, None leaves it out."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.set_alpn_protocols(list(alpn))
        host = authority.rpartition(":")[0]
        name = host if sni == "" else sni
        context.check_hostname = name is not None
        return context.wrap_socket(self.connect(authority), server_hostname=name)


class RawH2:
    """HTTP/2 frames by hand over a TLS connection whose ALPN is h2."""

    def __init__(self, tls: ssl.SSLSocket, authority: str) -> None:
        assert tls.selected_alpn_protocol() == "h2"
        self.tls, self.authority = tls, authority
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.initiate_connection()
        self.done: dict[int, int] = {}
        """Status of the streams that have ended; 0 for those reset."""
        self.bodies: dict[int, bytearray] = {}
        self._status: dict[int, int] = {}
        self.flush()

    def flush(self) -> None:
        self.tls.sendall(self.h2.data_to_send())

    def request(self, path: str, *extra: tuple[str, str], method: str = "GET") -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [
            (":method", method),
            (":scheme", "https"),
            (":authority", self.authority),
            (":path", path),
            *extra,
        ]
        self.h2.send_headers(stream, head, end_stream=True)
        self.flush()
        return stream

    def wait(self, stream: int) -> int:
        """The status of `stream` once it has ended; 0 if it was reset or the connection closed."""
        while stream not in self.done:
            if not self.read():
                return 0
        return self.done[stream]

    def read(self) -> bool:
        """Takes in what has come; False if the connection closed."""
        data = self.tls.recv(65536)
        for event in self.h2.receive_data(data) if data else ():
            self._note(event)
        self.flush()
        return bool(data)

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            assert event.headers is not None
            assert event.stream_id is not None
            self._status[event.stream_id] = int(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.done[event.stream_id] = self._status[event.stream_id]
        elif isinstance(event, h2.events.StreamReset):
            self.done[event.stream_id] = 0


def connect_head(authority: str, *headers: str) -> bytes:
    lines = [
        f"CONNECT {authority} HTTP/1.1",
        f"Host: {authority}",
        f"Proxy-Authorization: {CREDENTIALS}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def read_head(connection: socket.socket) -> bytes:
    """Reads up to the blank line, byte by byte so that nothing of the body is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except (ConnectionResetError, ssl.SSLError):
        pass
    return data


def exchange(connection: socket.socket, head: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
    """Sends a request; reads status, head and (by its Content-Length or chunks) the body."""
    connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
    return read_response(connection)


def read_response(connection: socket.socket, method: str = "GET") -> tuple[int, bytes, bytes]:
    head = read_head(connection)
    if not head:
        return 0, b"", b""
    status = int(head.split(b" ", 2)[1])
    lower = head.lower()
    body = b""
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return status, head, body
    if b"\r\ntransfer-encoding: chunked" in lower:
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                line += connection.recv(1)
            size = int(line, 16)
            chunk = b""
            while len(chunk) < size + 2:
                chunk += connection.recv(size + 2 - len(chunk))
            if size == 0:
                return status, head, body
            body += chunk[:-2]
    if b"\r\ncontent-length: " in lower:
        size = int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            chunk = connection.recv(size - len(body))
            if not chunk:
                break
            body += chunk
        return status, head, body
    return status, head, read_all(connection)


def wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Returns once `condition` holds; fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
