"""The embedded vault's files held still, so that a copy of them is one moment's.

A server that runs is stopped (SIGSTOP) for as long as the copy takes: raft's files are then what a
kill at that moment would leave, which the server is made to come back from. Calls wait meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.secrets.filelock import FileLock
from broker.secrets.server import Server
from broker.secrets.trouble import VaultUnavailable

_PATIENCE = 10.0
_POLL = 0.005


@contextmanager
def still(directory: Path) -> Iterator[Callable[[], bool]]:
    """While inside, nothing writes the vault in `directory`.

    Gives a function that says whether that was so until now: a supervisor may have replaced the
    server meanwhile. Raises VaultUnavailable if the server cannot be stopped.
    """
    lock = FileLock(directory / "lock")
    deadline = time.monotonic() + _PATIENCE
    while True:
        if lock.take(exclusive=True, patience=0):  # nobody runs it, and nobody can begin to
            try:
                yield lambda: True
            finally:
                lock.release()
            return
        pid = Server(directory.resolve()).running_pid()
        if pid is not None:
            break
        if time.monotonic() > deadline:
            raise VaultUnavailable(f"The vault in {directory} is starting or stopping; try again.")
        time.sleep(_POLL)
    try:
        os.kill(pid, signal.SIGSTOP)
        _await_stop(pid, deadline)
        yield lambda: Server(directory.resolve()).running_pid() == pid and _stopped(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _await_stop(pid: int, deadline: float) -> None:
    while not _stopped(pid):
        if time.monotonic() > deadline:
            raise VaultUnavailable(f"The vault's process {pid} could not be held still.")
        time.sleep(_POLL)


def _stopped(pid: int) -> bool:
    """Whether every thread of the process stands still (proc(5), ps(1): state T)."""
    if not Path("/proc/self").exists():
        shown = subprocess.run(
            ["ps", "-p", str(pid), "-o", "state="], capture_output=True, text=True, check=False
        )
        return shown.stdout.startswith("T")
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        states = [(t / "stat").read_text().rpartition(")")[2].split()[0] for t in threads]
    except OSError:
        return False
    return bool(states) and all(state == "T" for state in states)
