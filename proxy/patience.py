"""How long each stage of a call may take on the engine's side, and what is said of one that took
longer. Waiting for a decision has no limit here: that is the middle's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy.connection import Server

from proxy.chain import Chain
from proxy.dialing import TOO_SLOW

UPSTREAM = "The upstream"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds."""

    head: float = 30.0
    """For a request's head, once it has begun; also for the first one and for the agent's TLS
    handshake."""
    idle: int = 600
    """A connection on which nothing moves is closed, and so is a body that stands still; waiting
    for a decision does not count."""
    connect: float = 10.0
    """For a TCP connection to each address of an upstream."""
    tls: float = 10.0
    """For the TLS handshake with an upstream."""
    first_byte: float = 600.0
    """From the end of the request to the whole head of the response."""


class Dials:
    """What became of one agent connection's connections to upstreams, by host and port."""

    def __init__(
        self,
        timeouts: Timeouts,
        hang_up: Callable[[Server], None],
        chain: Chain | None = None,
    ) -> None:
        self._timeouts = timeouts
        self._chain = None if chain is None else chain.place
        self._hang_up = hang_up
        self._timers: dict[Server, asyncio.TimerHandle] = {}
        self._sentences: dict[tuple[str, int], str] = {}

    def begun(self, server: Server) -> None:
        """It is being dialled."""
        if server.address is not None:
            self._sentences.pop(_place(server), None)

    def failed(self, server: Server) -> None:
        """There was no TCP connection."""
        if TOO_SLOW in (server.error or ""):
            self._note(server, slow_connect_sentence(self._timeouts, self._who(server)))
        elif self._is_proxy(server):
            self._note(server, f"{self._who(server)} could not be reached.")

    def connected(self, server: Server) -> None:
        """There is a TCP connection; where TLS is to follow, it must in time."""
        if server.tls:
            self._watch(server, server)

    def chained(self, server: Server, tunnel: Server) -> None:
        """TLS begins with an upstream, over a connection to the proxy on the way out."""
        self._watch(server, tunnel)

    def not_established(self, server: Server) -> None:
        """TLS failed."""
        if self._is_proxy(server) and _place(server) not in self._sentences:
            self._note(server, f"TLS with {self._who(server).lower()} failed.")
        self.over(server)

    def established(self, server: Server) -> None:
        """TLS is there."""
        self.over(server)

    def over(self, server: Server) -> None:
        """It is closed, or needs no watching any more."""
        timer = self._timers.pop(server, None)
        if timer is not None:
            timer.cancel()

    def sentence(self, host: str, port: int) -> str | None:
        """Why there is no connection to a place, if it took too long."""
        found = self._sentences.get((host, port))
        if found is None and self._chain is not None:
            found = self._sentences.get(self._chain)
        return found

    def _watch(self, server: Server, carrier: Server) -> None:
        loop = asyncio.get_running_loop()
        self._timers[server] = loop.call_later(self._timeouts.tls, self._expired, server, carrier)

    def _expired(self, server: Server, carrier: Server) -> None:
        self._note(server, slow_tls_sentence(self._timeouts, self._who(server)))
        self.over(server)
        self._hang_up(carrier)

    def _is_proxy(self, server: Server) -> bool:
        return server.address is not None and _place(server) == self._chain

    def _who(self, server: Server) -> str:
        return "The egress proxy" if self._is_proxy(server) else UPSTREAM

    def _note(self, server: Server, sentence: str) -> None:
        self._sentences[_place(server)] = sentence


def _place(server: Server) -> tuple[str, int]:
    assert server.address is not None
    return server.address[0], server.address[1]


def slow_connect_sentence(timeouts: Timeouts, who: str = UPSTREAM) -> str:
    """Of a TCP connection that was not there in time."""
    return f"{who} did not accept a connection within {timeouts.connect:g} s."


def slow_tls_sentence(timeouts: Timeouts, who: str = UPSTREAM) -> str:
    """Of a TLS handshake that was not over in time."""
    return f"{who} did not complete the TLS handshake in {timeouts.tls:g} s."


def overdue_sentence(stage: str, timeouts: Timeouts) -> str:
    """Of an exchange that was given up (see `Exchange.overdue`)."""
    if stage == "first_byte":
        return f"The upstream did not begin to answer within {timeouts.first_byte:g} s."
    if stage == "upload":
        return f"Nothing of the request's body moved for {timeouts.idle} s."
    return f"The upstream sent nothing for {timeouts.idle} s in the middle of its response."
