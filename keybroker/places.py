"""The children that should run, whoever fills each place at the moment.

One that dies is started again after a pause, which doubles while it keeps dying.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from keybroker.children import Child

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a child that died is started again; doubles while it keeps dying."""
SETTLED = 30.0
"""Seconds after which a child counts as healthy."""


class Place:
    """One child that should run. It is for one thread."""

    def __init__(
        self, name: str, start: Callable[[], Child], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._start = start
        self._clock = clock
        self.child: Child | None = None
        self._since = 0.0
        self._pause = SHORTEST_PAUSE
        self._due = 0.0

    def start(self) -> Child:
        """Starts it now."""
        self._since = self._clock()
        self.child = self._start()
        return self.child

    def fell(self) -> int | None:
        """The exit status of a child that has just been found dead, once; else None."""
        if self.child is None or (status := self.child.process.poll()) is None:
            return None
        self.child.release()
        self.child = None
        now = self._clock()
        if now - self._since > SETTLED:
            self._pause = SHORTEST_PAUSE
        self._due = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return status

    def postpone(self) -> None:
        """Waits one more pause."""
        self._due = self._clock() + self._pause

    @property
    def due(self) -> bool:
        """Whether it is empty and may be filled again."""
        return self.child is None and self._clock() >= self._due
