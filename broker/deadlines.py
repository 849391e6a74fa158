"""One limit for many waits: each ends in time, and one timer serves them all.

`asyncio.timeout` sets a timer for every wait and takes it back, which costs more than the stage of
a call that it bounds. Waits that all have the same limit run out in the order in which they began,
so here the timer stands at the oldest one only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


class _Wait:
    """One task that waits."""

    __slots__ = ("before", "ends_at", "overdue", "task")

    def __init__(self, task: asyncio.Task[Any], ends_at: float) -> None:
        self.task = task
        self.ends_at = ends_at
        self.before = task.cancelling()
        """How often others had asked the task to end when the wait began."""
        self.overdue = False


class Deadlines:
    """Belongs to one event loop, the one it is first awaited on."""

    def __init__(self, limit: float) -> None:
        """`limit` is in seconds."""
        self._limit = limit
        self._waits: dict[_Wait, None] = {}
        """Those that wait, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    async def within[T](self, stage: Awaitable[T]) -> T:
        """The stage's result; raises TimeoutError, and cancels it, when it takes too long (at most
        a fiftieth of the limit early)."""
        task = asyncio.current_task()
        assert task is not None, "a stage is awaited in a task"
        loop = task.get_loop()
        wait = _Wait(task, loop.time() + self._limit)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.ends_at, self._look, loop)
        try:
            return await stage
        except asyncio.CancelledError as error:
            # Ours, unless somebody else wants the task to end as well.
            if wait.overdue and task.cancelling() <= wait.before + 1:
                raise TimeoutError from error
            raise
        finally:
            if wait.overdue:
                task.uncancel()
            else:
                del self._waits[wait]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends what is overdue, or is about to be: what began together ends together, and who waits
        for its turn gets none from one that ran out a moment before."""
        now = loop.time() + self._limit / 50
        self._timer = None
        for wait in tuple(self._waits):
            if wait.ends_at > now:
                self._timer = loop.call_at(wait.ends_at, self._look, loop)
                return
            del self._waits[wait]
            wait.overdue = True
            wait.task.cancel()
