"""How a fault inside the data plane is told: where it was, never what it said."""

from __future__ import annotations

import logging
from types import TracebackType

log = logging.getLogger(__name__)


def report(where: str, error: BaseException | None) -> None:
    """Type and place of a fault, never its message: that may hold what is secret."""
    trace: TracebackType | None = error.__traceback__ if error else None
    place = "?"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    log.error("fault in %s: %s at %s", where, type(error).__name__ if error else "unknown", place)
