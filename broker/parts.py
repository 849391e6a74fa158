"""What the path of a call is made of: its parts, its limits, and stages that end in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from audit.errors import LedgerUnavailable
from broker.agents import Agents
from broker.changes import Changes
from broker.deadlines import Deadlines
from broker.holds import Holds
from broker.internal import Internal
from broker.limits import Usage
from broker.placeholders import Placeholders
from broker.policies import Policies
from broker.ports import Clock, Egress, NewId, Notifier, SecretSource
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
    usage: Usage
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
    clock: Clock
    listeners: Sequence[Listener] = ()
    """Told of every call that ended."""


class Stages(Deadlines):
    """Waits for one stage at a time, and never longer than a stage may take."""

    async def ledgered[T](self, change: Future[T]) -> T:
        """What a change of the store gives once it is durable; raises LedgerUnavailable if that
        takes too long, and what the change raised."""
        try:
            return await self.within(outcome(change))
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time") from error


async def outcome[T](change: Future[T]) -> T:
    """What the ledger's thread made of a change. Who stops waiting cancels what has not begun.

    As asyncio.wrap_future does it, but for what each call would pay for there.
    """
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    change.add_done_callback(lambda _: _tell(loop, told))
    try:
        await told
    except asyncio.CancelledError:
        change.cancel()
        raise
    return change.result()


def _tell(loop: asyncio.AbstractEventLoop, told: asyncio.Future[None]) -> None:
    """Called in the ledger's thread, or at once if the change was over already."""
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_wake, told)


def _wake(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
