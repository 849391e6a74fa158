"""What a line of the log is about, beside its sentence: an event's name and ids to search for."""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.telemetry.journey import Journey, Listener

type Fact = str | int | float | None


def about(event: str, **facts: Fact) -> dict[str, dict[str, Fact]]:
    """For `extra=`: what a machine reads of the line. None is left out. Never a secret."""
    return {"about": {"event": event, **facts}}


def called(log: logging.Logger, *, place: Callable[[str, int], str]) -> Listener:
    """The listener that writes one line a call. No path and no query: these may hold the agent's
    own secrets, logs go further than the ledger does, and the ledger has them under the call's id.

    `place` writes a host with its port.
    """

    def write(journey: Journey) -> None:
        request = journey.request
        where = None if request is None else place(request.host, request.port)
        milliseconds = round((journey.ended - journey.began) * 1000, 1)
        log.info(
            "call %s of %s: %s %s %s (%s %d) in %g ms",
            journey.call,
            journey.agent or "a stranger",
            request.method if request else "-",
            where or "-",
            journey.outcome,
            journey.code,
            journey.status,
            milliseconds,
            extra=about(
                "call.ended",
                call=journey.call,
                agent=journey.agent or None,
                method=request.method if request else None,
                host=where,
                outcome=journey.outcome,
                code=journey.code,
                status=journey.status,
                duration_ms=milliseconds,
                rules=" ".join(journey.rules) or None,
                policy=journey.policy,
                approval=journey.approval,
            ),
        )

    return write
