"""The admin page as a process: uvicorn on the sockets that `up` holds.

No access log (the one-time link carries its token in the query) and no trust in forwarded headers
(addresses slow down password guessing).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing

import uvicorn

from broker.admin.app import create_app
from broker.admin.ledger import LedgerReader
from keybroker.children import Ready
from keybroker.compose import open_workspace
from keybroker.logs import log_to_stderr
from keybroker.workspace import Workspace

GRACE = 3
"""Seconds that open event streams get at the end."""


class _Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Ready) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(workspace: Workspace, *, socket_fds: Sequence[int], url: str, ready: Ready) -> None:
    """Serves until SIGTERM."""
    log_to_stderr("admin")
    with closing(open_workspace(workspace)) as services:
        session = workspace.settings().admin.session
        app = create_app(
            services,
            url=url,
            ledger=LedgerReader(workspace.database),
            longest=session.longest,
            idle=session.idle,
        )
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE,
        )
        sockets = [socket.socket(fileno=fd) for fd in socket_fds]
        _Server(config, ready).run(sockets=sockets)
