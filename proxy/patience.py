"""How long each stage of a call may take on the engine's side, and what is said of one that took
longer. Waiting for a decision has no limit here: that is the middle's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy.connection import Server

from proxy.dialing import TOO_SLOW


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

    def __init__(self, timeouts: Timeouts, hang_up: Callable[[Server], None]) -> None:
        self._timeouts = timeouts
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
            within = f"{self._timeouts.connect:g} s"
            self._note(server, f"The upstream did not accept a connection within {within}.")

    def connected(self, server: Server) -> None:
        """There is a TCP connection; where TLS is to follow, it must in time."""
        if server.tls:
            loop = asyncio.get_running_loop()
            self._timers[server] = loop.call_later(self._timeouts.tls, self._expired, server)

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
        return self._sentences.get((host, port))

    def _expired(self, server: Server) -> None:
        self._note(
            server, f"The upstream did not complete the TLS handshake in {self._timeouts.tls:g} s."
        )
        self.over(server)
        self._hang_up(server)

    def _note(self, server: Server, sentence: str) -> None:
        self._sentences[_place(server)] = sentence


def _place(server: Server) -> tuple[str, int]:
    assert server.address is not None
    return server.address[0], server.address[1]


def overdue_sentence(stage: str, timeouts: Timeouts) -> str:
    """Of an exchange that was given up (see `Exchange.overdue`)."""
    if stage == "first_byte":
        return f"The upstream did not begin to answer within {timeouts.first_byte:g} s."
    if stage == "upload":
        return f"Nothing of the request's body moved for {timeouts.idle} s."
    return f"The upstream sent nothing for {timeouts.idle} s in the middle of its response."
