"""What /readyz looks at, put together: the store, the policy, the vault, the workers, the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import StoreUnavailable
from broker.telemetry.lookups import free_bytes
from broker.telemetry.readiness import Check, Readiness
from keybroker import compose
from keybroker.workspace import Workspace

if TYPE_CHECKING:
    from audit.journal import Transaction
    from broker.services import Services
    from broker.telemetry.board import Board
    from keybroker.settings import Settings

LEAST_FREE = 32 * 1024 * 1024
"""Bytes on the store's disk; below that nothing can be recorded before long."""
PATIENCE = 5.0
"""Seconds that the store and the vault have for an answer, whoever waits for it."""


def readiness(
    workspace: Workspace, settings: Settings, services: Services, board: Board
) -> Readiness:
    """The checks of this workspace. Close it."""

    def store() -> str | None:
        # A write like any other, which leaves everything as it is: through the ledger's lock, its
        # seal and the disk.
        probe = services.store.submit(_touch)
        try:
            probe.result(PATIENCE)
        except TimeoutError:
            probe.cancel()
            return "the store takes no writes in time"
        except Exception as error:
            raise StoreUnavailable(str(error)) from error
        return None

    def policy() -> str | None:
        services.policies.refresh()
        return None if services.policies.current() else "no policy is in force"

    def workers() -> str | None:
        accepting = any(p.accepting for p in board.processes() if p.name.startswith("worker-"))
        return None if accepting else "no worker takes calls"

    def disk() -> str | None:
        free = free_bytes(workspace.database.parent)
        return None if free >= LEAST_FREE else f"the store's disk has {free} bytes left"

    checks: dict[str, Check] = {
        "store": store,
        "policy": policy,
        "vault": _vault(workspace, settings),
        "workers": workers,
        "disk": disk,
    }
    return Readiness(checks)


def _touch(tx: Transaction) -> None:
    tx.db.execute("UPDATE counters SET value = value WHERE topic = 'policies'")


def _vault(workspace: Workspace, settings: Settings) -> Check:
    from broker.secrets.api import Api, Health

    embedded = None if settings.vault else compose.embedded_vault(workspace)
    access = compose.external_access(settings.vault) if settings.vault else None

    def ask() -> Health:
        if access is None:
            assert embedded is not None
            return embedded.health()
        api = Api(access, timeout=PATIENCE)
        try:
            return api.health()
        finally:
            api.close()

    def check() -> str | None:
        health = ask()
        well = health.reachable and health.initialized and not health.sealed
        return None if well else health.sentence

    return check
