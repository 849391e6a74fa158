"""What the admin surface shows of the running program: the page of metrics, and readiness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from broker.errors import StoreUnavailable
from broker.telemetry.board import Board
from broker.telemetry.exposition import family, render
from broker.telemetry.lookups import Lookups
from broker.telemetry.readiness import Findings, Readiness

KEEP = 1.0
"""Seconds that a page is kept: anyone who reaches it may ask for it."""


class Monitor:
    """Implements broker.admin.ports.Monitor. Belongs to one event loop."""

    def __init__(
        self,
        board: Board,
        lookups: Lookups,
        readiness: Readiness,
        *,
        guarded: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`guarded`: the metrics are for people with an API token only."""
        self.guarded = guarded
        self._board = board
        self._lookups = lookups
        self._readiness = readiness
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._page: tuple[float, str] | None = None

    async def checks(self) -> Findings:
        """See Readiness.look."""
        return await self._readiness.look()

    async def metrics(self) -> str:
        """The page. What was counted is there even if the store cannot be read."""
        async with self._lock:
            if self._page is None or self._monotonic() - self._page[0] >= KEEP:
                checks = await self._readiness.look()
                self._page = (self._monotonic(), await asyncio.to_thread(self._render, checks))
            return self._page[1]

    def _render(self, checks: Findings) -> str:
        families = [family(metric, cells) for metric, cells in self._board.totals().items()]
        for look in (self._lookups.stored, lambda: self._lookups.around(checks)):
            # What cannot be had is left out, so that the rest can still be seen.
            with suppress(StoreUnavailable, OSError):
                families += look()
        return render(families)
