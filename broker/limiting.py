"""Between deciding and fetching: an allowed call takes its share of the limits, or is refused or
held. One that then does not leave gives it back, whatever the reason."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress

from audit.errors import LedgerUnavailable
from broker.dispatching import Dispatcher
from broker.judging import Judge, Ruling
from broker.parts import Parts, Stages
from broker.passage import Passage
from broker.telemetry.journey import Journey

RETRY = 1.0
"""Seconds after which a store that failed is asked again to take what is given back."""


class Turnstile:
    """Where allowed calls are counted. One a worker; belongs to one event loop."""

    def __init__(self, parts: Parts, stages: Stages, judge: Judge, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._stages = stages
        self._judge = judge
        self._dispatcher = dispatcher

    async def admit(self, journey: Journey, ruling: Ruling) -> Ruling:
        """Counts an allowed call; the ruling, or one that holds the call, which then is not
        counted yet. Raises Refusal if it is denied."""
        decision = ruling.decision
        if decision.effect != "allow" or not decision.limits:
            return ruling
        try:
            with journey.stage("limit"):
                over = await self._stages.ledgered(
                    self._parts.usage.reserve(
                        journey.call,
                        ruling.subject.name,
                        decision.limits,
                        worker=self._parts.worker,
                    )
                )
            if not isinstance(over, tuple):
                raise TypeError("the store did not say whether there is room")
        except BaseException:
            self._give_back(journey.call)  # it may have become durable after it was given up
            raise
        return self._judge.beyond(ruling, over) if over else ruling

    async def send(self, journey: Journey, ruling: Ruling) -> Passage:
        """Sends an admitted call as the dispatcher does; gives back what it took if that fails."""
        if not ruling.decision.limits:
            return await self._dispatcher.send(journey, ruling, approval=None)
        try:
            return await self._dispatcher.send(journey, ruling, approval=None)
        except BaseException:
            self._give_back(journey.call)
            raise

    def _give_back(self, call: str) -> None:
        """Never waits; tries again until the store takes it, as the share would be lost for as long
        as this worker lives."""
        loop = asyncio.get_running_loop()

        def look(done: Future[None]) -> None:
            if not done.cancelled() and isinstance(done.exception(), LedgerUnavailable):
                with suppress(RuntimeError):  # the loop is over, and recovery gives it back
                    loop.call_soon_threadsafe(loop.call_later, RETRY, self._give_back, call)

        self._parts.usage.give_back(call).add_done_callback(look)
