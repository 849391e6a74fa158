"""Every metric there is, by its stable name, and where its numbers lie in a row of cells.

All label values are listed here, or come from the policy file: none from an agent, an upstream or a
request. So the number of series is fixed, and no name of anybody's stands in them.
`docs/metrics.md` is made from this list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from broker.errors import CODES

Kind = Literal["counter", "gauge", "histogram"]

OUTCOMES = ("completed", "denied", "pending", "failed", "answered", "abandoned")
NO_CODE = "none"
STAGES = ("decide", "limit", "hold", "route", "fetch", "commit", "upstream", "deliver")
VAULT_RESULTS = ("ok", "failed", "timeout")
EFFECTS = ("allow", "hold", "deny")
HOLD_OUTCOMES = ("approved", "denied", "expired", "superseded")

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
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

SHADOW = Metric(
    "keybroker_shadow_calls_total",
    "counter",
    "Calls that rules in shadow are about, by what was decided and what would have been.",
    ("decided", "shadow"),
    tuple((one, other) for one in EFFECTS for other in EFFECTS),
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
    SHADOW,
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
