"""The way out through somebody else's proxy (`egress.proxy`): every connection to an upstream is a
CONNECT there, to the address that was checked here, and TLS goes end to end through it.

What is asked of the proxy is made here and nowhere else. Its password is read when it is needed,
and kept in nothing that could be shown.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _upstream_proxy
from mitmproxy.proxy.tunnel import TunnelState

SAID = "The egress proxy "
"""Begins each sentence of ours on why there is no way through; nothing of the proxy's is in it."""
MAX_ANSWER = 64 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\n\r?\n")

Commands = Generator[commands.Command, Any, None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """For Basic authentication (RFC 7617)."""

    username: str
    password: Callable[[], str] = field(repr=False)
    """Asked anew for every connection. Raises OSError, ValueError."""

    def value(self) -> str:
        """Of Proxy-Authorization."""
        pair = f"{self.username}:{self.password()}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@dataclass(frozen=True, slots=True)
class Chain:
    """The proxy between us and every upstream."""

    scheme: str
    host: str
    port: int
    credentials: Credentials | None = None
    by_name: bool = False
    """CONNECT names the host and the proxy looks it up; else it names a checked address."""

    @property
    def place(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def via(self) -> tuple[str, tuple[str, int]]:
        """As mitmproxy says it."""
        return self.scheme, self.place

    def connect(
        self, host: str, port: int, addresses: Callable[[str, int], tuple[str, ...]]
    ) -> bytes:
        """The CONNECT for a place. Raises LookupError if no address of it was checked, OSError and
        ValueError if the password cannot be had."""
        name = host if self.by_name else next(iter(addresses(host, port)), None)
        if name is None:
            raise LookupError("no address of this host was checked")
        target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.credentials is not None:
            lines.append(f"Proxy-Authorization: {self.credentials.value()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


class ChainedTunnel(_upstream_proxy.HttpUpstreamProxy):
    """One connection through the proxy: asks it with `Chain.connect`, and for no longer than a
    connection may take."""

    _clock: commands.RequestWakeup | None = None

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup) and event.command is self._clock:
            if self.tunnel_state is TunnelState.ESTABLISHING:
                yield from self._fail(SAID + "did not answer in time")
            return
        if (
            isinstance(event, events.DataReceived)
            and event.connection == self.tunnel_connection
            and self.tunnel_state is TunnelState.CLOSED
        ):
            # It was hung up on, and this was under way. Below nobody expects anything from a
            # connection that never came about: the agent's would be torn down.
            return
        yield from super()._handle_event(event)

    def start_handshake(self) -> Commands:
        options: Any = self.context.options
        assert self.conn.address is not None
        try:
            asked = options.chain.connect(*self.conn.address[:2], options.checked)
        except LookupError:
            yield from self._fail(SAID + "was not asked, as no address was checked")
            return
        except (OSError, ValueError):
            yield from self._fail(SAID + "was not asked, as its password cannot be read")
            return
        self._clock = commands.RequestWakeup(options.chain_timeout)
        yield self._clock
        yield commands.SendData(self.tunnel_connection, asked)

    def receive_handshake_data(
        self, data: bytes
    ) -> Generator[commands.Command, Any, tuple[bool, str | None]]:
        yield from ()
        self.buf += data
        seen = bytes(self.buf)
        end = _HEAD_END.search(seen)
        if end is None:
            return False, SAID + "answered at length" if len(seen) > MAX_ANSWER else None
        status = _STATUS.match(seen)
        if status is None:
            return False, SAID + "answered with something that is not HTTP"
        if not status[1].startswith(b"2"):
            return False, SAID + _refusal(int(status[1]))
        if len(seen) > end.end():
            # TLS begins with us: whatever comes before was not the upstream's.
            return False, SAID + "sent more than its answer"
        self.buf.maybe_extract_at_most(len(seen))
        return True, None

    def _fail(self, sentence: str) -> Commands:
        self.conn.error = sentence
        yield from self.on_handshake_error(sentence)
        yield from self._handshake_finished(sentence)


def _refusal(status: int) -> str:
    if status == 407:
        return "does not accept Keybroker's credentials (407)"
    if status in (403, 405):
        return f"does not let this host be called ({status})"
    return f"could not reach the host ({status})"


def stack_to(context: Context) -> tunnel.LayerStack:
    """The layers through which `context.server` is reached by way of its proxy."""
    return ChainedTunnel.make(context, send_connect=True)


def tunnel_below(context: Context) -> Server | None:
    """The connection to the proxy that carries the one of this context; None if there is none."""
    below = [one for one in context.layers if isinstance(one, ChainedTunnel)]
    return below[-1].tunnel_connection if below else None
