"""Wakes whoever waits for an approval to change, whichever process changed it.

One look at the store's counter (microseconds) serves all that wait; nobody looks while nobody
waits.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from broker.errors import StoreUnavailable
from broker.stores import approvals as rows
from broker.stores.sqlite import Store

INTERVAL = 0.02
"""Seconds between two looks at the store."""


class Changes:
    """Belongs to one event loop, the one it is first awaited on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: defaultdict[str | None, set[asyncio.Future[None]]] = defaultdict(set)
        self._poller: asyncio.Task[None] | None = None

    async def wait(self, since: int, timeout: float) -> int:
        """The counter of approvals' changes, as soon as it differs from `since`; after `timeout`
        seconds without a change, as it is. Raises StoreUnavailable."""
        await self._wait_for(None, since, timeout)
        return self._store.counter("approvals")

    async def wait_for(self, approval: str, since: int, timeout: float) -> None:
        """Returns when the approval has changed after the counter stood at `since`, or after
        `timeout` seconds. Raises StoreUnavailable."""
        await self._wait_for(approval, since, timeout)

    def now(self) -> int:
        """The counter; take it before looking at what you then wait for."""
        return self._store.counter("approvals")

    async def _wait_for(self, approval: str | None, since: int, timeout: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[approval].add(waiter)
        try:
            # Waiting first, looking second: a change in between is seen by one of the two.
            if self._poller is None or self._poller.done():
                self._poller = asyncio.create_task(self._poll(since))
            if self._changed(approval, since):
                return
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting[approval].discard(waiter)
            if not self._waiting[approval]:
                del self._waiting[approval]

    def _changed(self, approval: str | None, since: int) -> bool:
        if self._store.counter("approvals") == since:
            return False
        return approval is None or approval in rows.changed_since(self._store.read(), since)

    async def _poll(self, seen: int) -> None:
        while self._waiting:
            await asyncio.sleep(INTERVAL)
            try:
                counter = self._store.counter("approvals")
                if counter == seen:
                    continue
                changed: list[str | None] = [None, *rows.changed_since(self._store.read(), seen)]
            except StoreUnavailable:
                continue  # unreadable for a moment; who waits has a time-out of their own
            seen = counter
            for approval in changed:
                for waiter in self._waiting.get(approval, ()):
                    if not waiter.done():
                        waiter.set_result(None)
