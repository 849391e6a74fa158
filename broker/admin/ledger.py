"""The ledger as the pages read it: a fresh read-only connection each time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from audit import query
from audit.reading import open_ledger
from audit.record import Record


class LedgerReader:
    """Implements broker.admin.ports.Ledger on the file `path`. Everything raises Unreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path

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
