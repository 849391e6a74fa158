"""Slows password guessing: each wrong guess makes the next one wait longer, per key.

Pure: time is an argument. A guess is counted when it starts, so that many at once gain nothing.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Count:
    failures: int = 0
    blocked_until: float = 0.0
    seen: float = 0.0


class Throttle:
    """Counts wrong guesses per key, such as `user:alice` or `address:192.0.2.1`.

    After `free` wrong guesses the next must wait `first` seconds, then twice that, up to `longest`.
    A key rests after `forget` seconds without a guess. At most `keys` keys are remembered.
    """

    def __init__(
        self,
        *,
        free: int = 4,
        first: float = 1.0,
        longest: float = 60.0,
        forget: float = 900.0,
        keys: int = 10_000,
    ) -> None:
        self._free, self._first, self._longest = free, first, longest
        self._forget, self._keys = forget, keys
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, keys: tuple[str, ...], now: float) -> int:
        """0: the guess may go on, and counts as wrong until `succeeded`. Else: seconds to wait."""
        with self._lock:
            wait = max((self._of(key, now).blocked_until - now for key in keys), default=0.0)
            if wait > 0:
                return math.ceil(wait)
            for key in keys:
                count = self._of(key, now)
                count.failures += 1
                count.seen = now
                over = count.failures - self._free
                if over > 0:
                    # 2**30 is far over any `longest`; the bound keeps the power small.
                    count.blocked_until = now + min(
                        self._first * 2.0 ** min(over - 1, 30), self._longest
                    )
            while len(self._counts) > self._keys:
                self._counts.popitem(last=False)
            return 0

    def wait(self, key: str, now: float) -> int:
        """Seconds until a guess may go on; asking counts for nothing."""
        with self._lock:
            return math.ceil(max(0.0, self._of(key, now).blocked_until - now))

    def succeeded(self, keys: tuple[str, ...]) -> None:
        """The guess was right: its keys start afresh."""
        with self._lock:
            for key in keys:
                self._counts.pop(key, None)

    def forgive(self, keys: tuple[str, ...]) -> None:
        """The guess was right, but the key is shared: only this guess is taken back."""
        with self._lock:
            for key in keys:
                count = self._counts.get(key)
                if count is not None and count.failures > 0:
                    count.failures -= 1
                    if count.failures <= self._free:
                        count.blocked_until = 0.0

    def _of(self, key: str, now: float) -> _Count:
        count = self._counts.get(key)
        if count is None or now - count.seen > self._forget:
            count = self._counts[key] = _Count(seen=now)
        self._counts.move_to_end(key)
        return count
