"""What is used of the policy's limits: counted at the decision, given back if nothing was sent.

Each operation is one durable transaction on the store, so that all workers count together. A held
call is counted in the transaction that opens its approval instead (broker.holds), and given back
with the move that ends the approval without a send (broker.stores.approvals).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from audit.journal import Transaction
from broker.stores import limits as rows
from broker.stores.sqlite import Store
from rules.limits import Demand, Over


class Usage:
    """The transactions on what is used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reserve(
        self, call: str, agent: str, demands: Sequence[Demand], *, worker: str
    ) -> Future[tuple[Over, ...]]:
        """Counts all the demands, or none if some go beyond their limit; the future gives these.

        Once "sent" is recorded for the call they count for their time from then on; until then for
        as long as they are not given back, which is done for `worker` if it dies.
        """
        caller = rows.Caller(call, agent, worker)

        def work(tx: Transaction) -> tuple[Over, ...]:
            return rows.reserve(tx.db, caller, demands, self._store.clock())

        return self._store.submit(work)

    def give_back(self, call: str) -> Future[None]:
        """Certainly nothing was sent. Harmless if the call is in the ledger as sent: then its
        result decides."""
        return self._store.submit(lambda tx: rows.give_back(tx.db, call))

    def prune(self) -> None:
        """Takes out what counts no more, some of it at a time. Raises StoreUnavailable."""
        now = self._store.clock()
        if rows.any_due(self._store.read(), now):
            self._store.write(lambda tx: rows.prune(tx.db, now))
