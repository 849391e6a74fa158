"""Runs a command that dies with its parent: `python tether.py PARENT_PID COMMAND ARGUMENT...`

Run as a file, so it imports nothing of this project. On Linux the kernel is asked to kill the
command when the parent *thread* ends (prctl(2), PR_SET_PDEATHSIG), which survives the exec; doing
that in `preexec_fn` instead is not safe in a process with threads. Elsewhere it just runs it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns: becomes the command, or ends with a status other than 0."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the request above was made; then nobody would tell us.
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - a list of our own, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
