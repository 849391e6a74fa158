"""What the engine keeps about one exchange, from the request's head to the response's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mitmproxy import http
from mitmproxy.proxy import events

from broker.model import Client
from proxy import pages
from proxy.gateway import Claim
from proxy.patience import Timeouts, overdue_sentence
from proxy.ports import Passage

_KEY = "keybroker"


@dataclass(frozen=True, slots=True)
class Wire:
    """The request line as it arrived, before mitmproxy rewrites parts of it."""

    method: bytes
    scheme: bytes
    """Empty for origin form; HTTP/2's `:scheme`."""
    authority: bytes
    """Of an absolute-form target, of CONNECT, or HTTP/2's `:authority`; else empty."""
    path: bytes
    version: bytes
    grpc: bool = False
    """A gRPC client waits for the answer: it reads no body but a status of its own."""
    websocket_key: str = ""

    @classmethod
    def of(cls, request: http.Request) -> Wire:
        data = request.data
        kind = request.headers.get("content-type", "").lower()
        grpc = kind.startswith("application/grpc") and not kind.startswith("application/grpc-web")
        return cls(
            data.method,
            data.scheme,
            data.authority,
            data.path,
            data.http_version,
            grpc=grpc,
            websocket_key=request.headers.get("sec-websocket-key", ""),
        )


def _nobody() -> None:
    return


@dataclass(slots=True, eq=False)
class Exchange:
    """Everything starts out refused: `lifted` and `cleared` are set by the hooks and only there."""

    wire: Wire
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the agent hangs up or resets the stream."""
    claim: Claim | None = None
    """What a request to the gateway claims; None for one through the proxy."""
    has_body: bool = False
    """Something follows the head."""
    deciding: bool = False
    """The head is being decided, while its body may arrive."""
    streaming: bool = False
    """The body goes upstream as it comes."""
    takes_trailers: bool = False
    """The agent said that it reads trailers, or speaks HTTP/2."""
    trailers: http.Headers | None = None
    """Those of the response, as they came."""
    check_trailers: Callable[[http.Headers], http.Headers] | None = None
    """For a body that streams: its trailers as they may leave, or what it raises ends it."""
    agent: Client | None = None
    """Whose call it is, once it was decided."""
    passage: Passage | None = None
    sent: bool = False
    """The request was handed to an upstream connection: some byte of it may have left."""
    cleared: bool = False
    """The response's head was checked and may be delivered."""
    page: http.Response | None = None
    """To deliver instead of the response, or of an engine's error page."""
    faulty: bool = False
    """The engine itself refused the response: the result is a failure, not a completion."""
    answered: bool = False
    """The head of the final response went to the agent."""
    broken: str | None = None
    """Why a WebSocket was ended by the engine."""
    finished: bool = False
    """`passage.finish` was called."""
    settled: bool = False
    """`passage.completed` or `passage.failed` was called."""
    asked: bool = False
    """The whole request was handed to the upstream's connection."""
    headed: bool = False
    """The head of the upstream's response is here."""
    moved: float = 0.0
    """When something of the request or the response last moved at the upstream; monotonic."""
    late: str | None = None
    """The stage in which it was given up."""
    give_up: Callable[[], events.Event] | None = None
    """Makes the event that ends it, for the connection's core."""
    on_end: Callable[[], None] = _nobody
    """Called once the last byte of the answer was handed to the agent's connection."""
    backlog: Callable[[], int] = lambda: 0
    """Bytes waiting for the agent's HTTP/2 flow-control window."""
    upload_backlog: Callable[[], int] = lambda: 0
    """Bytes waiting for the upstream's HTTP/2 flow-control window."""

    def overdue(self, now: float, *, first_byte: float, idle: float) -> str | None:
        """The stage that takes too long, once; None if there is none. Waiting for a decision is
        no stage."""
        if not self.sent or self.finished or self.settled or self.late is not None:
            return None
        stage, limit = "idle", idle
        if not self.headed:
            stage, limit = ("first_byte", first_byte) if self.asked else ("upload", idle)
        if now - self.moved <= limit:
            return None
        self.late = stage
        return stage

    def unfinished(self, timeouts: Timeouts, *, revoked: bool) -> str | None:
        """Why there is no result, in fixed words: others' may quote an upstream's bytes. None if
        that is the story of a connection over which nothing was sent. `revoked`: the agent was."""
        if revoked and self.sent:
            return pages.REVOKED
        if self.gone.is_set():
            return pages.GONE_UNDELIVERED if self.sent else pages.GONE_UNSENT
        if self.late is not None:
            return overdue_sentence(self.late, timeouts)
        if self.answered:
            return pages.BROKE_OFF
        return pages.NOT_HTTP if self.sent else None


def exchange_of(flow: http.HTTPFlow) -> Exchange:
    """The exchange that belongs to a flow. Raises KeyError if no stream of ours made the flow."""
    exchange: Exchange = flow.metadata[_KEY]
    return exchange


def attach(flow: http.HTTPFlow, exchange: Exchange) -> None:
    flow.metadata[_KEY] = exchange
