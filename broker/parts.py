"""What the path of a call is made of: its parts, its limits, and stages that end in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from audit.errors import LedgerUnavailable
from broker.agents import Agents
from broker.changes import Changes
from broker.holds import Holds
from broker.internal import Internal
from broker.placeholders import Placeholders
from broker.policies import Policies
from broker.ports import Egress, NewId, Notifier, SecretSource
from broker.sending import Sending
from broker.telemetry.journey import Listener
from broker.telemetry.meters import Meters
from broker.tunnels import Tunnels


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    hold_wait: float = 25.0
    stage: float = 10.0
    """How long any one stage may take, the wait for people aside."""
    body: int = 10 * 1024 * 1024
    waiting: int = 1000
    """Calls of one agent that may wait for people at a time, in this worker."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the path needs; adapters and services are put together in keybroker.compose."""

    agents: Agents
    policies: Policies
    holds: Holds
    sending: Sending
    tunnels: Tunnels
    changes: Changes
    secrets: SecretSource
    egress: Egress
    internal: Internal
    notifier: Notifier
    digest_key: bytes
    placeholders: Placeholders
    new_id: NewId
    worker: str
    meters: Meters
    listeners: Sequence[Listener] = ()
    """Told of every call that ended."""


class Stages:
    """Waits for one stage at a time, and never longer than a stage may take."""

    def __init__(self, limit: float) -> None:
        """`limit` is in seconds."""
        self._limit = limit

    async def within[T](self, stage: Awaitable[T]) -> T:
        """The stage's result; raises TimeoutError when it takes too long."""
        async with asyncio.timeout(self._limit):
            return await stage

    async def ledgered[T](self, change: Future[T]) -> T:
        """What a change of the store gives once it is durable; raises LedgerUnavailable if that
        takes too long, and what the change raised."""
        try:
            return await self.within(asyncio.wrap_future(change))
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time") from error
