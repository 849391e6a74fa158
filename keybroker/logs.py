"""How the child processes log: one line a record on stderr, and never an exception's own text.

An exception can carry what was being handled when it was raised, a secret included; what kind it
was and where it was raised says enough.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

_Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Terse(logging.Formatter):
    """Gives an exception as its type and the places it came through."""

    def formatException(self, ei: _Info) -> str:  # noqa: N802 -- the name is logging's
        """One line."""
        kind, _, trace = ei
        frames = traceback.extract_tb(trace)
        places = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames))
        return f"  {kind.__name__ if kind else 'no exception'} at {places}"


def log_to_stderr(name: str) -> None:
    """Warnings and worse of this process go to stderr, under `name`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Terse(f"keybroker {name}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
