"""How the reads of one Vault go, as a frozen value that monitoring can take at any moment."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime

from broker.secrets.breaker import State
from broker.secrets.trouble import Kind

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds of the latency histogram's buckets; the last one beyond has none."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations of reads that asked Vault, log-in and second try included."""

    counts: tuple[int, ...]
    """How many fell into each of BUCKETS, and at the end how many took longer; not cumulative."""
    total: float
    """Seconds, all together."""

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class VaultHealth:
    """What one worker knows of its Vault. Counters grow from the worker's start on."""

    state: State
    """Of the circuit breaker: `closed` is well, `open` asks nothing, `half_open` is about to try
    or tries with one read."""
    since: datetime
    """When Vault began to serve, or stopped to, as far as this worker knows."""
    last_error: Kind | None
    last_error_at: datetime | None
    requests: int
    """Reads asked for, those refused at once included."""
    failures: dict[Kind, int]
    """Reads in which Vault as a whole or the log-in to it failed, by kind; a secret that is
    missing or unusable is no failure of Vault's."""
    short_circuited: int
    """Reads refused at once because the breaker was open."""
    in_flight: int
    """Reads that ask Vault now; at most the bulkhead's size."""
    waiting: int
    """Reads that wait for their turn."""
    latency: Latency
    log_ins: int
    renewals: int
    token_ends_at: datetime | None
    """None without a token, or with one that does not end as far as is known."""


class Meter:
    """Counts; for one thread."""

    def __init__(self) -> None:
        self.requests = 0
        self.short_circuited = 0
        self.waiting = 0
        self.in_flight = 0
        self.failures: dict[Kind, int] = {}
        self.last_error: Kind | None = None
        self.last_error_at: datetime | None = None
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0

    def took(self, seconds: float) -> None:
        """One read that asked Vault is over."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._total += seconds

    def failed(self, kind: Kind, now: datetime) -> None:
        """One read failed because of Vault or the log-in."""
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.last_error, self.last_error_at = kind, now

    @property
    def latency(self) -> Latency:
        return Latency(tuple(self._counts), self._total)
