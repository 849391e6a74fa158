"""Child processes of `up`, seen from both sides.

A child inherits three descriptors: the read end of a pipe whose end of file means that the parent
is gone (it then leaves at once), the write end of a pipe on which it says that it is ready, or why
it cannot be, and the lock of the workspace, so that a new `up` waits until the last old child left.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from audit.errors import AuditError
from broker.errors import KeybrokerError
from certs.errors import CertsError
from rules.errors import RulesError

Ready = Callable[[], None]

ORPHANED = 70
"""Exit status of a child whose parent is gone (EX_SOFTWARE of sysexits.h)."""

DESCRIPTORS = 65_536
"""Files and connections that a child may have open at a time, where the system allows it."""

READY_WITHIN = 60.0
"""Seconds a child has to begin serving."""


# --- in the child ------------------------------------------------------------------------------


@contextmanager
def child(life_fd: int, ready_fd: int) -> Iterator[Ready]:
    """Ties this process to its parent; the body calls what it is given once it serves.

    An error before that is told to the parent, which prints it as its own.
    """
    # Ctrl-C on a terminal goes to the whole group; only the parent decides about stopping.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A core file would hold secrets; systemd-coredump and the like go by this limit, too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _open_many()
    threading.Thread(target=_leave_with_parent, args=(life_fd,), daemon=True).start()
    told = False

    def tell(message: dict[str, object]) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(ready_fd, json.dumps(message).encode() + b"\n")
            os.close(ready_fd)

    try:
        yield lambda: tell({"ready": True})
    except (KeybrokerError, AuditError, RulesError, CertsError) as error:
        if not told:
            tell({"error": str(error)})
            raise SystemExit(1) from None
        raise
    except OSError as error:
        if not told:
            tell({"error": f"{error.strerror or type(error).__name__} ({error.filename or '-'})"})
            raise SystemExit(1) from None
        raise


def _open_many() -> None:
    # Each waiting call holds a connection, and the usual 1024 are soon held: then nobody gets in.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # a system with another bound; then it stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _leave_with_parent(life_fd: int) -> None:
    # No clean-up: whatever is under way was made durable before it became visible.
    while os.read(life_fd, 1):
        pass
    os._exit(ORPHANED)


# --- in the parent -----------------------------------------------------------------------------


@dataclass
class Child:
    """One running child."""

    name: str
    process: subprocess.Popen[bytes]
    life: int
    """Write end of the life pipe; closed when the child is reaped."""
    ready: int
    """Read end of the pipe on which it reports."""

    def release(self) -> None:
        """Closes the pipes of a child that is gone."""
        for fd in (self.life, self.ready):
            if fd >= 0:
                os.close(fd)
        self.life = self.ready = -1

    def report(self) -> str | None:
        """Waits until the child serves (None), or is gone: then why, in one sentence."""
        data = b""
        while not data.endswith(b"\n"):
            if not select.select([self.ready], [], [], READY_WITHIN)[0]:
                return f"{self.name} is still not ready after {READY_WITHIN:g} seconds"
            piece = os.read(self.ready, 65536)
            if not piece:
                break
            data += piece
        try:
            message = json.loads(data)
        except ValueError:
            return f"{self.name} ended before it was ready; what it printed says why"
        return None if message.get("ready") else str(message.get("error"))


def start(name: str, workspace: Path, arguments: Sequence[str], *, keep: Sequence[int]) -> Child:
    """Starts `keybroker ARGUMENTS` as a child; it inherits the descriptors in `keep`.

    Raises OSError where the machine has no room for one more process.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        life_read, life_write = os.pipe()
        theirs.callback(os.close, life_read)
        ours.callback(os.close, life_write)
        ready_read, ready_write = os.pipe()
        theirs.callback(os.close, ready_write)
        ours.callback(os.close, ready_read)
        process = subprocess.Popen(
            [
                sys.executable,
                # Not the current directory, where somebody could have put a module of ours.
                "-P",
                "-m",
                "keybroker",
                *arguments,
                "--workspace",
                str(workspace),
                "--life-fd",
                str(life_read),
                "--ready-fd",
                str(ready_write),
            ],
            stdin=subprocess.DEVNULL,
            # Standard output is the parent's: `--json` promises one line there.
            stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
            pass_fds=(life_read, ready_write, *keep),
            start_new_session=True,
        )
        ours.pop_all()
        return Child(name, process, life_write, ready_read)


def _has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return False
    return True
