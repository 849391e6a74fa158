"""Every metric there is, by its stable name, and the instruments that count.

All label values are listed here, or come from the policy file: none from an agent, an upstream or a
request. So the number of series is fixed, and no name of anybody's stands in them.
`docs/metrics.md` is made from this list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from broker.errors import CODES

Kind = Literal["counter", "gauge", "histogram"]

OUTCOMES = ("completed", "denied", "pending", "failed", "answered", "abandoned")
NO_CODE = "none"
STAGES = ("decide", "hold", "route", "fetch", "commit", "upstream", "deliver")
VAULT_RESULTS = ("ok", "failed", "timeout")
HOLD_OUTCOMES = ("approved", "denied", "expired", "superseded")

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LONG_SUM = len(LONG) + 1
"""Where the sum stands in a histogram with these buckets."""
HUMAN = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 14400.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `values`: the combinations of its labels' values, where they are fixed."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ((),)
    buckets: tuple[float, ...] = ()
    """Upper bounds, for histograms; +Inf goes without saying."""

    @property
    def width(self) -> int:
        """Cells of one combination: a histogram has its buckets, +Inf and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    @property
    def size(self) -> int:
        return self.width * len(self.values)


def _each(*values: str) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


# --- counted as things happen, in whichever process they happen -----------------------------------

CALLS = Metric(
    "keybroker_calls_total",
    "counter",
    "Calls that ended, by outcome and, for Keybroker's own refusals, by code.",
    ("outcome", "code"),
    (
        ("completed", NO_CODE),
        *(("denied", code) for code in CODES if code != "approval_pending"),
        ("pending", "approval_pending"),
        *(("failed", code) for code in CODES if code != "approval_pending"),
        ("answered", NO_CODE),
        ("abandoned", NO_CODE),
    ),
)
CALL_DURATION = Metric(
    "keybroker_call_duration_seconds",
    "histogram",
    "From a call's arrival to the end of its answer, waiting for people included.",
    buckets=LONG,
)
STAGE_DURATION = Metric(
    "keybroker_call_stage_duration_seconds",
    "histogram",
    "Where calls spend their time, by stage.",
    ("stage",),
    _each(*STAGES),
    LONG,
)
CALLS_HELD = Metric(
    "keybroker_calls_held", "gauge", "Calls whose agents wait for a decision at the moment."
)
RESPONSES = Metric(
    "keybroker_upstream_responses_total",
    "counter",
    "Responses of upstreams, by class of status.",
    ("class",),
    _each("1xx", "2xx", "3xx", "4xx", "5xx", "other"),
)
BYTES = Metric(
    "keybroker_body_bytes_total",
    "counter",
    "Bytes of bodies: of requests that were sent, of responses as received and as delivered.",
    ("body",),
    _each("request", "received", "delivered"),
)
MASKED = Metric(
    "keybroker_masked_secrets_total",
    "counter",
    "Places in responses at which an injected secret was masked.",
)
CONNECTIONS = Metric("keybroker_connections", "gauge", "Connections of agents that are open.")
CONNECTIONS_TOTAL = Metric(
    "keybroker_connections_total", "counter", "Connections that agents opened."
)
LEDGER_LAG = Metric(
    "keybroker_ledger_lag_seconds",
    "histogram",
    "From handing a change to the ledger until it is durable.",
    buckets=FAST,
)
LEDGER_FAILED = Metric(
    "keybroker_ledger_failed_total", "counter", "Changes that the ledger could not take."
)
VAULT_DURATION = Metric(
    "keybroker_vault_request_duration_seconds",
    "histogram",
    "Reading one secret, log-in and second try included, by result.",
    ("result",),
    _each(*VAULT_RESULTS),
    FAST,
)
BREAKERS_OPEN = Metric(
    "keybroker_vault_breakers_open",
    "gauge",
    "Workers that refuse reads of secrets at once, or try with one, since the vault failed.",
)
RESTARTS = Metric(
    "keybroker_worker_restarts_total",
    "counter",
    "Processes of `up` that died and were started again.",
)
POLICY_REJECTED = Metric(
    "keybroker_policy_rejected_total",
    "counter",
    "Policy files that were not taken up because they are not valid; the old one stays.",
)

SPANS = Metric(
    "keybroker_trace_spans_total",
    "counter",
    "Spans of traces, by what became of them; none where `telemetry.otlp` is not set.",
    ("result",),
    _each("exported", "failed", "dropped"),
)

COUNTED: tuple[Metric, ...] = (
    CALLS,
    CALL_DURATION,
    STAGE_DURATION,
    CALLS_HELD,
    RESPONSES,
    BYTES,
    MASKED,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    LEDGER_LAG,
    LEDGER_FAILED,
    VAULT_DURATION,
    BREAKERS_OPEN,
    RESTARTS,
    POLICY_REJECTED,
    SPANS,
)

# --- read from the store or the machine when somebody asks ----------------------------------------

PENDING = Metric(
    "keybroker_approvals_pending",
    "gauge",
    "Held calls that wait for a decision, by risk.",
    ("risk",),
)
OLDEST = Metric(
    "keybroker_approvals_oldest_pending_seconds",
    "gauge",
    "Age of the oldest held call that waits for a decision; 0 if none does.",
)
HOLD = Metric(
    "keybroker_hold_seconds",
    "histogram",
    "From the opening of an approval to its decision or other end, by outcome.",
    ("outcome",),
    _each(*HOLD_OUTCOMES),
    HUMAN,
)
RECORDS = Metric("keybroker_ledger_records_total", "counter", "Ledger records by type.", ("type",))
POLICY_VERSION = Metric("keybroker_policy_version", "gauge", "The policy version in force.")
WORKERS = Metric(
    "keybroker_workers",
    "gauge",
    "Worker processes that should run, and that take calls now.",
    ("state",),
    _each("configured", "accepting"),
)
READY = Metric("keybroker_ready", "gauge", "What /readyz looks at: 1 fine, 0 not.", ("check",))
VAULT_UP = Metric("keybroker_vault_up", "gauge", "1 if the vault answers and is unsealed, else 0.")
DISK_FREE = Metric(
    "keybroker_disk_free_bytes", "gauge", "Free space where the store lies, for this user."
)
BUILD_INFO = Metric("keybroker_build_info", "gauge", "Always 1.", ("version", "python"))
PROCESS_CPU = Metric(
    "keybroker_process_cpu_seconds_total",
    "counter",
    "User and system CPU time, by process (Linux).",
    ("process",),
)
PROCESS_MEMORY = Metric(
    "keybroker_process_resident_memory_bytes",
    "gauge",
    "Resident memory, by process (Linux).",
    ("process",),
)
PROCESS_FDS = Metric(
    "keybroker_process_open_fds",
    "gauge",
    "Open files and sockets, by process (Linux).",
    ("process",),
)
PROCESS_START = Metric(
    "keybroker_process_start_time_seconds",
    "gauge",
    "When the process started, Unix time.",
    ("process",),
)

LOOKED_UP: tuple[Metric, ...] = (
    PENDING,
    OLDEST,
    HOLD,
    RECORDS,
    POLICY_VERSION,
    WORKERS,
    READY,
    VAULT_UP,
    DISK_FREE,
    BUILD_INFO,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_FDS,
    PROCESS_START,
)

METRICS: tuple[Metric, ...] = (*COUNTED, *LOOKED_UP)


def _layout(metrics: Sequence[Metric]) -> dict[Metric, int]:
    places, at = {}, 0
    for metric in metrics:
        places[metric] = at
        at += metric.size
    return places


PLACES: Mapping[Metric, int] = _layout(COUNTED)
"""At which cell of a row each counted metric begins."""
CELLS = sum(metric.size for metric in COUNTED)
"""Cells that a row needs."""


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

    def durable(self, seconds: float) -> None:
        """One change is on disk, that long after it was handed over."""
        self.ledger_lag.observe(seconds)

    def lost(self, changes: int) -> None:
        """So many changes were not taken."""
        self.ledger_failed.add(by=changes)
