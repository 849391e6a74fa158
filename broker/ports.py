"""What the pipeline needs from the world: duties, in prose. Adapters implement these; fakes
stand here.

The core gets time, randomness and ids as arguments; everything that does I/O is one of these ports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.secret import SecretVersion
from rules.model import SecretRef

Clock = Callable[[], datetime]
"""The present, as an aware datetime in UTC."""
NewId = Callable[[str], str]
"""A fresh id with the given prefix; unique, sortable by time, not guessable."""
RandomBytes = Callable[[int], bytes]


class SecretSource(Protocol):
    """Where secret values come from."""

    def read(self, ref: SecretRef) -> Awaitable[SecretVersion]:
        """The newest version, read now (never cached), within a bounded time.

        Raises SecretUnavailable with one sentence; an empty, missing or unusable value is that too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """A host that may be dialled, with the addresses that were checked."""

    host: str
    port: int
    addresses: tuple[str, ...]


class Egress(Protocol):
    """Guards where connections may go (laws 6 and 7)."""

    def check(self, host: str, port: int) -> Awaitable[Route]:
        """Resolves once and pins what it found: later dials of (host, port) use these addresses
        only.

        Raises Refusal("egress_refused") when no address is allowed, Refusal("upstream_unreachable")
        when the name does not resolve.
        """
        ...


class Notifier(Protocol):
    """Tells people that something waits. It never carries what the agent wrote beyond the
    summary."""

    def opened(self, approval_id: str, summary: str, agent: str, risk: str) -> None:
        """Called after the approval is durable. Must not raise and must not block."""
        ...
