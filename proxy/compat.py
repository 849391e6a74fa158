"""What of mitmproxy's inside is replaced, and by what; `install()` does it, for one minor version.

The engine uses mitmproxy's protocol core (connections, TLS and HTTP layers) and none of its addons.
What replaces its parts (`stream`, `http1`, `http2`, `websocket`, `chain`) is not covered by its
compatibility promise, hence the pin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import mitmproxy.proxy.layers.http as http_layers
from mitmproxy import http, version
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import _http1, _upstream_proxy
from mitmproxy.proxy.server import TimeoutWatchdog

from proxy import http2, pages, websocket
from proxy.chain import Chain, ChainedTunnel
from proxy.http1 import Http1Client, Http1Server, assembled, connection_close
from proxy.stream import Stream
from proxy.truncation import UpstreamTls

SUPPORTED = "12.2"


class EngineMismatch(RuntimeError):
    """The installed mitmproxy is not the minor version that this file was written against."""


def _none(host: str, port: int) -> tuple[str, ...]:
    return ()


@dataclass(slots=True)
class CoreOptions:
    """The options that mitmproxy's core reads, as plain attributes (a test finds any new one).

    Lazy, no raw TCP, no large-body streaming: else a connection is opened or a request sent before
    the `request` hook has run. `body_size_limit` is kept for requests only (see `Stream`).
    """

    body_size_limit: str
    tcp_timeout: int
    head_timeout: float
    connection_strategy: str = "lazy"
    stream_large_bodies: None = None
    store_streamed_bodies: bool = False
    validate_inbound_headers: bool = True
    normalize_outbound_headers: bool = True
    rawtcp: bool = False
    websocket: bool = True
    http2: bool = True
    http3: bool = False
    http2_ping_keepalive: int = 58
    http_connect_send_host_header: bool = True
    keep_host_header: bool = False
    proxy_debug: bool = False
    chain: Chain | None = None
    """The way out; this and what follows is read by `proxy.chain` alone."""
    checked: Callable[[str, int], tuple[str, ...]] = _none
    """The addresses of a place that the egress guard has checked."""
    chain_timeout: float = 10.0


def check_version(found: str = version.VERSION) -> None:
    """Raises EngineMismatch unless mitmproxy is of the one minor version that is supported."""
    if not found.startswith(SUPPORTED + "."):
        raise EngineMismatch(
            f"Keybroker needs mitmproxy {SUPPORTED}.x and found {found}; "
            f"install the locked version (make setup)."
        )


def install() -> None:
    """Checks the version and puts our layers in the place of mitmproxy's. Idempotent."""
    check_version()
    http_layers.HttpStream = Stream  # type: ignore[misc]
    http_layers.Http1Server = Http1Server  # type: ignore[attr-defined]
    http_layers.Http1Client = Http1Client  # type: ignore[attr-defined]
    http_layers.Http2Server = http2.Http2Server  # type: ignore[attr-defined]
    http_layers.Http2Client = http2.Http2Client  # type: ignore[attr-defined]
    _upstream_proxy.HttpUpstreamProxy = ChainedTunnel  # type: ignore[misc]
    http_layers.tls.ServerTLSLayer = UpstreamTls  # type: ignore[attr-defined]
    http_layers.websocket.WebsocketLayer = websocket.WebSocketLayer  # type: ignore[attr-defined]
    # Stock checks the types of all fields of every message that is made, which costs a tenth of a
    # call; mypy has checked those that we make.
    http.MessageData.__post_init__ = _nothing  # type: ignore[method-assign]
    http1.connection_close = connection_close
    _http1.make_error_response = _page


def _page(status_code: int, message: str = "") -> bytes:
    return assembled(pages.of_core(status_code))


def _nothing(_: object) -> None:
    return


class Watchdog(TimeoutWatchdog):
    """Closes a connection on which nothing moves, unless something else has its clocks on it.

    Stock looks at the time only, also when it was disarmed after it had begun to wait.
    """

    def __init__(
        self, timeout: int, callback: Callable[[], Awaitable[None]], busy: Callable[[], bool]
    ) -> None:
        super().__init__(timeout, callback)
        self._busy = busy

    async def watch(self) -> None:
        """Until it struck, or is cancelled."""
        while True:
            await self.can_timeout.wait()
            left = self.last_activity + self.timeout - time.time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._busy():
                self.last_activity = time.time()
            else:
                await self.callback()
                return
