"""The instruments that count, over one process's row of cells. Threads may share them.

They are on every call's path: an addition under a lock, and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

from broker.telemetry.metrics import (
    BREAKERS_OPEN,
    BYTES,
    CALL_DURATION,
    CALLS,
    CALLS_HELD,
    CELLS,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    LEDGER_FAILED,
    LEDGER_LAG,
    LONG,
    MASKED,
    PLACES,
    POLICY_REJECTED,
    RESPONSES,
    RESTARTS,
    SHADOW,
    SPANS,
    STAGE_DURATION,
    VAULT_DURATION,
    Metric,
)

_LONG_SUM = len(LONG) + 1
"""Where the sum stands in a histogram with these buckets."""


class Counter:
    """Adds to one cell for each combination of label values; a gauge also takes away."""

    __slots__ = ("_cells", "_lock", "at")

    def __init__(self, metric: Metric, cells: memoryview[float], lock: Lock) -> None:
        first = PLACES[metric]
        self.at = {values: first + i for i, values in enumerate(metric.values)}
        """The cell of each combination."""
        self._cells = cells
        self._lock = lock

    def add(self, *values: str, by: float = 1.0) -> None:
        """Raises KeyError for values that the metric does not have."""
        at = self.at[values]
        with self._lock:
            self._cells[at] += by

    def set(self, value: float, *values: str) -> None:
        """What a gauge shows from now on."""
        with self._lock:
            self._cells[self.at[values]] = value

    def clear(self) -> None:
        """Back to nothing, as a gauge is when its process begins."""
        with self._lock:
            for at in self.at.values():
                self._cells[at] = 0.0


class Histogram:
    """Counts observations by bucket, and sums them up."""

    __slots__ = ("_bounds", "_cells", "_lock", "_width", "at")

    def __init__(self, metric: Metric, cells: memoryview[float], lock: Lock) -> None:
        first = PLACES[metric]
        self.at = {v: first + i * metric.width for i, v in enumerate(metric.values)}
        self._bounds = metric.buckets
        self._width = metric.width
        self._cells = cells
        self._lock = lock

    def observe(self, seconds: float, *values: str) -> None:
        """Raises KeyError for values that the metric does not have."""
        at = self.at[values]
        bucket = at + bisect_left(self._bounds, seconds)
        total = at + self._width - 1
        with self._lock:
            self._cells[bucket] += 1.0
            self._cells[total] += seconds


class Meters:
    """The instruments of one process, over its row of cells."""

    def __init__(self, cells: memoryview[float] | None = None) -> None:
        """Without cells it counts for itself, and nobody sees it."""
        own = memoryview(bytearray(CELLS * 8)).cast("d") if cells is None else cells
        self._cells = own
        self._lock = lock = Lock()
        self.calls = Counter(CALLS, own, lock)
        self.call_duration = Histogram(CALL_DURATION, own, lock)
        self.stage_duration = Histogram(STAGE_DURATION, own, lock)
        self.calls_held = Counter(CALLS_HELD, own, lock)
        self.responses = Counter(RESPONSES, own, lock)
        self._responses_at = {n: self.responses.at[(f"{n}xx",)] for n in range(1, 6)}
        self._other_at = self.responses.at[("other",)]
        self.bytes = Counter(BYTES, own, lock)
        self.masked = Counter(MASKED, own, lock)
        self.connections = Counter(CONNECTIONS, own, lock)
        self.connections_total = Counter(CONNECTIONS_TOTAL, own, lock)
        self.ledger_lag = Histogram(LEDGER_LAG, own, lock)
        self.ledger_failed = Counter(LEDGER_FAILED, own, lock)
        self.vault_duration = Histogram(VAULT_DURATION, own, lock)
        self.breakers_open = Counter(BREAKERS_OPEN, own, lock)
        self.restarts = Counter(RESTARTS, own, lock)
        self.policy_rejected = Counter(POLICY_REJECTED, own, lock)
        self.spans = Counter(SPANS, own, lock)
        self.shadow = Counter(SHADOW, own, lock)
        # What a process that died had open is closed.
        self.calls_held.clear()
        self.connections.clear()
        self.breakers_open.clear()

    # As journeys tell it: everything of a call under one lock, since each call pays for it

    def call_ended(
        self, outcome: str, code: str, seconds: float, stages: Sequence[tuple[str, float]]
    ) -> None:
        """A call is over, after so many seconds; so many of them in each stage.

        Raises KeyError for words that the metrics do not have.
        """
        cells, at, stage_at = self._cells, self.calls.at, self.stage_duration.at
        ended = at[outcome, code]
        whole = self.call_duration.at[()]
        places = [(stage_at[(name,)], bisect_left(LONG, s), s) for name, s in stages]
        with self._lock:
            cells[ended] += 1.0
            cells[whole + bisect_left(LONG, seconds)] += 1.0
            cells[whole + _LONG_SUM] += seconds
            for place, bucket, s in places:
                cells[place + bucket] += 1.0
                cells[place + _LONG_SUM] += s

    def bodies_passed(
        self, sent: int, received: int, delivered: int, masked: int, status: int | None
    ) -> None:
        """Bytes of bodies, places masked, and the first digit of an upstream's status."""
        cells, bytes_at = self._cells, self.bytes.at
        with self._lock:
            cells[bytes_at[("request",)]] += sent
            cells[bytes_at[("received",)]] += received
            cells[bytes_at[("delivered",)]] += delivered
            cells[self.masked.at[()]] += masked
            if status is not None:
                cells[self._responses_at.get(status, self._other_at)] += 1.0

    # As the engine tells it (proxy.ports.Traffic)

    def opened(self) -> None:
        """An agent opened a connection."""
        self.connections.add()
        self.connections_total.add()

    def closed(self) -> None:
        """A connection is over."""
        self.connections.add(by=-1)

    # As the ledger's journal tells it (audit.journal.Watch)

    def durable(self, seconds: Sequence[float]) -> None:
        """Changes are on disk, each that long after it was handed over."""
        for each in seconds:
            self.ledger_lag.observe(each)

    def lost(self, changes: int) -> None:
        """So many changes were not taken."""
        self.ledger_failed.add(by=changes)
