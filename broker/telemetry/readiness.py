"""Whether calls can go through now: checks in parallel, in bounded time, at most once a second.

So nobody who may ask can load the vault or the store by asking, and a check that hangs is not begun
again until it has come back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from broker.errors import KeybrokerError

type Check = Callable[[], str | None]
"""None if all is well, else one sentence. Raising is not being well. Runs in a thread."""
type Findings = Mapping[str, str | None]
"""By check: None, or what is wrong."""

LIMIT = 2.0
"""Seconds that an answer may take in all."""
KEEP = 1.0
"""Seconds that an answer is kept."""


class Readiness:
    """Runs the checks. Belongs to one event loop."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        limit: float = LIMIT,
        keep: float = KEEP,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._limit = limit
        self._keep = keep
        self._monotonic = monotonic
        self._threads = ThreadPoolExecutor(max(1, len(checks)), thread_name_prefix="ready")
        self._running: dict[str, Future[str | None]] = {}
        self._lock = asyncio.Lock()
        self._found: tuple[float, Findings] | None = None

    async def look(self) -> Findings:
        """What every check finds, or found within the last second. Never raises."""
        async with self._lock:
            if self._found is None or self._monotonic() - self._found[0] >= self._keep:
                findings = await self._look()
                self._found = (self._monotonic(), findings)
            return self._found[1]

    def close(self) -> None:
        """Begins no check any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> Findings:
        for name, check in self._checks.items():
            if name not in self._running:
                self._running[name] = self._threads.submit(check)
        await asyncio.to_thread(wait, self._running.values(), self._limit)
        findings: dict[str, str | None] = {}
        for name in self._checks:
            running = self._running[name]
            if not running.done():
                findings[name] = f"no answer within {self._limit:g} s"
                continue
            del self._running[name]
            findings[name] = _finding(running)
        return findings


def _finding(done: Future[str | None]) -> str | None:
    error = done.exception()
    if error is None:
        return done.result()
    # Others' errors may quote anything; ours are made for people.
    return str(error) if isinstance(error, KeybrokerError) else type(error).__name__
