"""The lock of a directory that one process at a time may use, whichever command it is."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_POLL = 0.03


class FileLock:
    """An advisory lock (flock(2)) on a side file; the kernel drops it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def take(self, *, exclusive: bool, patience: float) -> bool:
        """Tries for `patience` seconds; True once it is held. Raises OSError."""
        if self.held:
            return False
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(_POLL)
            else:
                self._descriptor = descriptor
                return True

    def release(self) -> None:
        """Lets go; nothing happens if it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Unlocked by name, as a forked child may hold the same descriptor open.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
