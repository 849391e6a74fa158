"""The ledger as the pages read it: records from the file itself, calls from the index beside it.

A fresh read-only connection each time. `following` keeps the index near the ledger while the page
is served.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from audit import query
from audit.errors import AuditError
from audit.filters import Filter
from audit.history import Found, History
from audit.reading import open_ledger
from audit.record import Record

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between looks at a ledger that the index has caught up with."""
BREATH = 0.05
"""Seconds between steps while it has not: the workers need the processor more."""


class LedgerReader:
    """Implements broker.admin.ports.Ledger on the file `path`. Everything raises Unreadable."""

    def __init__(self, path: Path, index: Path | None = None) -> None:
        """`index` is the file for the history's index; else one beside the ledger."""
        self._path = path
        self._history = History(path, index or path.with_name("history.db"))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Takes new records into the index, in a thread, as long as the body runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _follow(self, stop: threading.Event) -> None:
        said = False
        pause = 0.0
        while not stop.wait(pause):
            try:
                pause = BREATH if self._history.follow() else EVERY
                said = False
            except AuditError as error:
                # A search says what is wrong; here it is said once, and tried again.
                if not said:
                    log.warning("the history cannot follow the ledger: %s", type(error).__name__)
                said, pause = True, EVERY * 10

    def calls(self, wanted: Filter, *, limit: int, before: int | None) -> Found:
        return self._history.search(wanted, limit=limit, before=before)

    def show(self, call: str) -> Sequence[Record]:
        with closing(open_ledger(self._path)) as db:
            return query.show(db, call)
