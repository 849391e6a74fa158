"""Numbers that are looked up when somebody asks: from the store, where the truth lies, and of the
machine.

Votes and records come from any process, commands included: nobody else could count them.
"""

from __future__ import annotations

import os
import platform
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from broker.stores.sqlite import Store, to_moment
from broker.telemetry import metrics
from broker.telemetry.board import Board, Process
from broker.telemetry.exposition import Family, family, gauge

# The first record that resolves it: an approved call that is never executed ends a second time.
_RESOLVED = """
SELECT json_extract(l.data, '$.state'), a.opened_at, l.time
FROM ledger l JOIN approvals a ON a.id = json_extract(l.data, '$.approval')
WHERE l.type = 'approval.resolved' AND l.seq > ? AND l.seq <= ? AND NOT EXISTS (
  SELECT 1 FROM ledger e WHERE json_extract(e.data, '$.approval') = a.id
  AND e.type = 'approval.resolved' AND e.seq < l.seq)
"""


class Tally:
    """Counts the ledger's records. What was counted once stays counted: the past cannot change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seq = 0
        self._records: Counter[str] = Counter()
        self._holds = {outcome: [0.0] * metrics.HOLD.width for outcome in metrics.HOLD_OUTCOMES}

    def look(self) -> list[Family]:
        """Counts what is new. Raises StoreUnavailable."""
        db = self._store.read()
        (tip,) = db.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()
        span = (self._seq, tip)
        records = db.execute(
            "SELECT type, count(*) FROM ledger WHERE seq > ? AND seq <= ? GROUP BY type", span
        ).fetchall()
        resolved = db.execute(_RESOLVED, span).fetchall()
        self._seq = tip
        for kind, count in records:
            self._records[kind] += count
        for outcome, opened, ended in resolved:
            cells = self._holds.get(outcome)
            if cells is not None:
                seconds = max(0.0, (to_moment(ended) - to_moment(opened)).total_seconds())
                cells[bisect_left(metrics.HOLD.buckets, seconds)] += 1.0
                cells[-1] += seconds
        return [
            gauge(metrics.RECORDS, {(k,): float(n) for k, n in sorted(self._records.items())}),
            family(metrics.HOLD, [cell for cells in self._holds.values() for cell in cells]),
        ]


class Lookups:
    """Everything of `metrics.LOOKED_UP`."""

    def __init__(self, store: Store, board: Board, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._board = board
        self._clock = clock
        self._tally = Tally(store)
        self._lock = threading.Lock()

    def stored(self) -> list[Family]:
        """What the store tells. Raises StoreUnavailable."""
        with self._lock:
            return [
                *self._approvals(),
                *self._tally.look(),
                gauge(metrics.POLICY_VERSION, {(): float(self._policy_version())}),
            ]

    def around(self, checks: Mapping[str, str | None]) -> list[Family]:
        """What needs no store; `checks` is what /readyz found. Raises OSError."""
        processes = self._board.processes()
        ready: dict[tuple[str, ...], float] = {
            (name,): float(fault is None) for name, fault in checks.items()
        }
        build = (version("keybroker"), platform.python_version())
        return [
            gauge(metrics.WORKERS, _workers(processes)),
            gauge(metrics.READY, ready),
            gauge(metrics.VAULT_UP, {(): ready.get(("vault",), 0.0)}),
            gauge(metrics.DISK_FREE, {(): float(free_bytes(self._store.path.parent))}),
            gauge(metrics.BUILD_INFO, {build: 1.0}),
            *_of_processes(processes),
        ]

    def _approvals(self) -> list[Family]:
        rows = (
            self._store.read()
            .execute(
                "SELECT json_extract(card, '$.risk'), count(*), min(opened_at)"
                " FROM approvals WHERE state = 'pending' GROUP BY 1 ORDER BY 1"
            )
            .fetchall()
        )
        opened = [to_moment(oldest) for _, _, oldest in rows]
        age = (self._clock() - min(opened)).total_seconds() if opened else 0.0
        # The built-in tiers that hold are always there.
        pending: dict[tuple[str, ...], float] = {
            ("medium",): 0.0,
            ("high",): 0.0,
        }
        pending |= {(str(risk),): float(count) for risk, count, _ in rows}
        return [
            gauge(metrics.PENDING, pending),
            gauge(metrics.OLDEST, {(): max(0.0, age)}),
        ]

    def _policy_version(self) -> int:
        row = self._store.read().execute("SELECT coalesce(max(version), 0) FROM policies")
        return int(row.fetchone()[0])


def free_bytes(directory: Path) -> int:
    """Space on the disk of `directory` that this user may fill. Raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def _workers(processes: Sequence[Process]) -> dict[tuple[str, ...], float]:
    workers = [p for p in processes if p.name.startswith("worker-")]
    return {
        ("configured",): float(len(workers)),
        ("accepting",): float(sum(p.accepting for p in workers)),
    }


def _of_processes(processes: Sequence[Process]) -> list[Family]:
    """From /proc; where there is none, only when they started."""
    cpu: dict[tuple[str, ...], float] = {}
    memory: dict[tuple[str, ...], float] = {}
    files: dict[tuple[str, ...], float] = {}
    for process in (p for p in processes if p.alive):
        label, place = (process.name,), Path(f"/proc/{process.pid}")
        try:
            # proc(5): the fields after the command's name, which may hold anything but `)`.
            fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
            cpu[label] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            memory[label] = float(int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
            files[label] = float(len(os.listdir(place / "fd")))  # noqa: PTH208 -- counted only
        except (OSError, ValueError, IndexError):
            continue
    return [
        gauge(metrics.PROCESS_CPU, cpu),
        gauge(metrics.PROCESS_MEMORY, memory),
        gauge(metrics.PROCESS_FDS, files),
        gauge(metrics.PROCESS_START, {(p.name,): p.started for p in processes if p.alive}),
    ]
