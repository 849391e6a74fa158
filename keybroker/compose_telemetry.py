"""What operators see, put together: the style of the log, who is told of calls, and what /readyz
looks at: the store, the policy, the vault, the workers, the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from broker.errors import StoreUnavailable
from broker.telemetry.journey import Listener, counted
from broker.telemetry.lookups import free_bytes
from broker.telemetry.meters import Meters
from broker.telemetry.readiness import Check, Readiness
from keybroker import compose
from keybroker.logs import Style
from keybroker.values import bracketed
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


def log_style(settings: Settings) -> Style:
    """How to log, by the settings and the environment. Raises Unusable."""
    return Style(settings.log.format, settings.log.level).overridden()


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told of every call that ended. Close them."""

    listeners: tuple[Listener, ...]
    close: Callable[[], None]


def observers(settings: Settings, name: str, meters: Meters) -> Observers:
    """Those of the worker `name`. Raises InvalidInput."""
    told: list[Listener] = [counted(meters)]
    if settings.log.calls:
        from broker.telemetry.logs import called

        told.append(called(logging.getLogger("keybroker.calls"), place=_place))
    telemetry = settings.telemetry
    if telemetry.otlp is None:
        return Observers(tuple(told), lambda: None)

    from broker.telemetry.otlp import Exporter
    from broker.telemetry.traces import traced
    from certs.bundle import system_bundle

    exporter = Exporter(
        telemetry.otlp,
        roots=str(telemetry.ca_bundle or system_bundle()),
        resource={
            "service.name": "keybroker",
            "service.version": version("keybroker"),
            "service.instance.id": name,
        },
        headers_file=telemetry.headers_file,
        tell=lambda result, count: meters.spans.add(result, by=count),
    )
    told.append(
        traced(
            exporter.emit,
            ratio=telemetry.sample,
            clock=time.monotonic,
            unix_ns=time.time_ns,
        )
    )
    return Observers(tuple(told), exporter.close)


def _place(host: str, port: int) -> str:
    return f"{bracketed(host)}:{port}"


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
    # There and back: SQLite writes nothing where a value is replaced by itself.
    for step in (1, -1):
        tx.db.execute("UPDATE counters SET value = value + ? WHERE topic = 'policies'", (step,))


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
