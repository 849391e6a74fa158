"""The ledger as the pages read it: a fresh read-only connection each time, counts kept a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from audit import query
from audit.reading import open_ledger
from audit.record import Record

COUNTS_TTL = 5.0
"""Seconds that counts are kept: they visit the whole ledger, and anyone may ask for them."""


class LedgerReader:
    """Implements broker.admin.ports.Ledger on the file `path`. Everything raises Unreadable."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._monotonic = path, monotonic
        self._lock = threading.Lock()
        self._counts: tuple[float, Mapping[str, int]] | None = None

    def calls(
        self,
        *,
        agent: str | None,
        outcome: str | None,
        host: str | None,
        limit: int,
        before: int | None,
    ) -> Sequence[query.CallSummary]:
        with closing(open_ledger(self._path)) as db:
            return query.calls(
                db, agent=agent, outcome=outcome, host=host, limit=limit, before=before
            )

    def show(self, call: str) -> Sequence[Record]:
        with closing(open_ledger(self._path)) as db:
            return query.show(db, call)

    def counts(self) -> Mapping[str, int]:
        with self._lock:
            now = self._monotonic()
            if self._counts is None or now - self._counts[0] >= COUNTS_TTL:
                with closing(open_ledger(self._path)) as db:
                    self._counts = (now, query.counts(db))
            return self._counts[1]
