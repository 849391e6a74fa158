"""A writer process for tests: `python -m tests.audit.writer DB COUNT NAME [BATCH]`.

Prints NAME-i once record i is durable. COUNT 0 writes until it is killed.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import batched, count
from pathlib import Path

from audit.journal import Journal, Transaction
from audit.record import Draft
from tests.audit.ledgers import KEY


def main(path: str, total: str, name: str, batch: str = "8") -> None:
    journal = Journal(Path(path), clock=lambda: datetime.now(UTC), head_key=KEY)

    def appending(i: int) -> Future[None]:
        def work(tx: Transaction) -> None:
            tx.append(Draft("user.login", {"user": f"{name}-{i}", "method": "test"}))

        return journal.commit(work)

    for chunk in batched(range(int(total)) if int(total) else count(), int(batch)):
        for i, future in [(i, appending(i)) for i in chunk]:
            future.result()
            print(f"{name}-{i}", flush=True)
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
