"""The live stream: one `approvals` event whenever the held calls change. It carries no details.

The stream ends when its session ends. What changed is fetched by the page, with its own checks.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from anyio.to_thread import run_sync

from broker.admin.ports import MOST_HELD, Services

HEARTBEAT = 15.0
"""Seconds between comments that keep intermediaries from closing the stream."""
TICK = 2.0
"""Seconds within which the end of the session is noticed when nothing else happens."""


def event(name: str, data: object) -> str:
    """One server-sent event (WHATWG HTML, 9.2)."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def server_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


async def stream(
    services: Services, token: str, *, tick: float = TICK, heartbeat: float = HEARTBEAT
) -> AsyncIterator[str]:
    """Events for the session with this token, until it ends."""
    yield "retry: 2000\n\n"
    # No counter is negative: the first wait returns at once, so a page that reconnects is told.
    seen, beat = -1, time.monotonic()
    while await _lives(services, token):
        counter = await services.changes.wait(seen, tick)
        if counter != seen:
            seen = counter
            if not await _lives(services, token):  # the wait may have outlived the session
                break
            pending = len(await run_sync(services.desk.list, "pending", MOST_HELD))
            yield event("approvals", {"pending": pending, "now": server_now()})
        if time.monotonic() - beat >= heartbeat:
            beat = time.monotonic()
            yield f": heartbeat\n\n{event('clock', {'now': server_now()})}"
    yield event("signed-out", {})


async def _lives(services: Services, token: str) -> bool:
    return await run_sync(services.sessions.get, token) is not None
