"""One worker of the proxy: puts the engine and the pipeline to work, follows the policy, drains.

Workers share nothing but the store. A worker dies with `up` and is replaced by it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from broker.errors import KeybrokerError, SecretUnavailable
from broker.telemetry.board import Board, Row
from keybroker import compose, logs
from keybroker.children import Ready
from keybroker.compose_telemetry import log_style
from keybroker.errors import Unusable
from keybroker.values import Listen
from keybroker.workspace import Workspace
from rules.errors import InvalidFile

log = logging.getLogger(__name__)

FOLLOW = 0.2
"""Seconds between looks for a new version of the policy."""
DRAIN_MARGIN = 5.0
"""Seconds beyond `hold_wait` that calls under way have to finish."""


def worker_name(index: int) -> str:
    """The name under which a worker's calls are in flight."""
    return f"worker-{index}"


def work(
    workspace: Workspace,
    *,
    index: int,
    listen: Listen,
    own: Sequence[Listen],
    admin_url: str,
    board: Board,
    ready: Ready,
) -> None:
    """Serves until SIGTERM, then finishes what is under way. Raises KeybrokerError, OSError."""
    settings = workspace.settings()
    logs.start(worker_name(index), log_style(settings))
    row = board.row(worker_name(index))
    with closing(compose.open_workspace(workspace, settings, row.meters)) as services:
        if services.policies.refresh() is None:
            raise Unusable("no policy was published yet; `keybroker up` does that")
        parts = compose.worker_parts(
            workspace,
            settings,
            services,
            name=worker_name(index),
            listen=listen,
            own=own,
            admin_url=admin_url,
            meters=row.meters,
        )
        with (
            closing(parts),
            asyncio.Runner(loop_factory=parts.new_loop) as runner,
        ):
            runner.run(_serve(parts, services, row, settings.proxy.hold_wait + DRAIN_MARGIN, ready))


async def _serve(
    parts: compose.WorkerParts,
    services: compose.Services,
    row: Row,
    grace: float,
    ready: Ready,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    over = threading.Event()

    def protect_vault() -> None:
        for port in parts.vault_ports():
            loop.call_soon_threadsafe(parts.egress.protect, "127.0.0.1", port)

    protect_vault()
    follower = threading.Thread(
        target=_follow,
        args=(services, protect_vault, parts.look, over),
        name="follower",
        daemon=True,
    )
    engine = parts.new_engine()
    _spare_the_collector()
    await engine.start()
    follower.start()
    beating = asyncio.create_task(row.keep_beating(parts.watch_vault))
    row.accept(True)
    ready()
    try:
        await stop.wait()
        row.accept(False)
        parts.pipeline.drain()
        if not await engine.drain(grace):
            log.warning("calls were still under way when the time to finish was over")
    finally:
        row.accept(False)
        beating.cancel()
        over.set()
        await asyncio.to_thread(follower.join)


def _spare_the_collector() -> None:
    """What is there before the first call stays, so the cycle collector need not look at it; and a
    call makes hundreds of objects, nearly all gone by its end, before there is anything to find."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _follow(
    services: compose.Services,
    protect_vault: Callable[[], None],
    look: Callable[[], None],
    over: threading.Event,
) -> None:
    """Takes up new versions of the policy, off the event loop; the one before stays on errors.

    `look` does likewise for the listener's certificate.
    """
    said: str | None = None
    while not over.wait(FOLLOW):
        try:
            services.policies.refresh()
            protect_vault()
            look()
            said = None
        except (KeybrokerError, InvalidFile) as error:
            if isinstance(error, SecretUnavailable) or str(error) == said:
                continue
            said = str(error)
            log.error("the policy could not be followed: %s", said)
