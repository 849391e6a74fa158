"""The admin page as a process: uvicorn on the sockets that `up` holds.

No access log (the one-time link carries its token in the query) and no trust in forwarded headers
(addresses slow down password guessing).
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import uvicorn

from broker.admin.app import create_app
from broker.admin.ledger import LedgerReader
from broker.services import utc_now
from broker.telemetry.board import Board, Row
from broker.telemetry.lookups import Lookups
from broker.telemetry.monitor import Monitor
from keybroker import logs
from keybroker.children import Ready
from keybroker.compose import open_workspace
from keybroker.compose_telemetry import log_style, readiness
from keybroker.compose_tls import admin_serving
from keybroker.workspace import Workspace

if TYPE_CHECKING:
    from certs.serving import Serving

GRACE = 3
"""Seconds that open event streams get at the end."""
FOLLOW = 0.5
"""Seconds between looks for a new certificate."""


class _Server(uvicorn.Server):
    """Says when it serves, and that it still does."""

    def __init__(self, config: uvicorn.Config, row: Row, ready: Ready) -> None:
        super().__init__(config)
        self._row = row
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._beating = asyncio.create_task(self._row.keep_beating())
            self._ready()


def serve(
    workspace: Workspace, *, socket_fds: Sequence[int], url: str, board: Board, ready: Ready
) -> None:
    """Serves until SIGTERM."""
    settings = workspace.settings()
    logs.start("admin", log_style(settings))
    serving = admin_serving(settings)
    row = board.row("admin")
    ledger = LedgerReader(workspace.database)
    with (
        closing(open_workspace(workspace, watch=row.meters)) as services,
        closing(readiness(workspace, settings, services, board)) as ready_checks,
        ledger.following(),
    ):
        monitor = Monitor(
            board,
            Lookups(services.store, board, clock=utc_now),
            ready_checks,
            guarded=settings.telemetry.metrics == "token",
        )
        app = create_app(
            services,
            url=url,
            ledger=ledger,
            monitor=monitor,
            longest=settings.admin.session.longest,
            idle=settings.admin.session.idle,
        )
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE,
            ssl_context_factory=None if serving is None else lambda *_: serving.context,
        )
        if serving is not None:
            threading.Thread(target=_follow, args=(serving,), daemon=True).start()
        sockets = [socket.socket(fileno=fd) for fd in socket_fds]
        _Server(config, row, ready).run(sockets=sockets)


def _follow(serving: Serving) -> None:
    """What is wrong with a new certificate is said once, by `up`."""
    while True:
        time.sleep(FOLLOW)
        serving.look()
