"""Connections that the policy passes on undecrypted: only their beginning, end and size are
known."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from audit.record import JSON, Draft
from broker.stores.sqlite import Store
from rules.model import Decision

log = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenTunnel:
    """A tunnel that is in the ledger and may be passed on."""

    call: str
    agent: str
    store: Store = field(repr=False)
    started: float = field(default_factory=time.monotonic)

    async def closed(self, sent: int, received: int) -> None:
        """Records the end: bytes from the agent, bytes from the upstream."""
        data = {
            "sent_bytes": sent,
            "received_bytes": received,
            "duration_ms": round((time.monotonic() - self.started) * 1000),
        }
        draft = Draft("tunnel.closed", data, self.call, self.agent)
        try:
            await asyncio.wrap_future(self.store.submit(lambda tx: tx.append(draft)))
        except Exception as error:  # noqa: BLE001 - the tunnel is over whether or not it is recorded
            log.error("the end of tunnel %s could not be recorded: %s", self.call, error)


class Tunnels:
    """Opens tunnels, in the ledger first."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def open(
        self,
        call: str,
        agent: str,
        host: str,
        port: int,
        address: str,
        decision: Decision,
        policy_version: int,
    ) -> OpenTunnel:
        """Returns once tunnel.opened is durable. Raises LedgerUnavailable."""
        data: dict[str, JSON] = {
            "host": host,
            "port": port,
            "address": address,
            "rules": list(decision.rules),
            "policy": policy_version,
        }
        draft = Draft("tunnel.opened", data, call, agent)
        await asyncio.wrap_future(self._store.submit(lambda tx: tx.append(draft)))
        return OpenTunnel(call, agent, self._store)
