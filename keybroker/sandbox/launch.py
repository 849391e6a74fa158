"""Starts a command in a sandbox and stands for it outside: its signals, its terminal, its end.

`run` and the inside talk over a socket pair: orders in, then a listener and a process descriptor
out, then leave to go on. The socket closes when the command takes over; nothing of it is left.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from keybroker.errors import Unusable
from keybroker.sandbox import bubblewrap, inner, seccomp
from keybroker.sandbox.relay import Relay, open_many
from keybroker.sandbox.view import View

Backend = Literal["bubblewrap", "unshare"]

READY_WITHIN = 30.0
"""Seconds in which the sandbox must stand."""
STOPPED_WITHIN = 1.0
"""Seconds that the sandbox's processes have to stop once their keeper has."""
HELD_BACK = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
)
"""Blocked in the processes between `run` and the command, which get them too on a terminal."""

_PYTHON = (sys.executable, "-I", "-S", "-c")
_ROOT = str(Path(__file__).parents[2])
_BY_ITSELF = (
    f"import sys; sys.path.insert(0, {_ROOT!r});"
    " from keybroker.sandbox.unshared import start; start(int(sys.argv[1]))"
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What every command that is started in it shares."""

    backend: Backend
    view: View
    proxy: tuple[str, int]
    """Where the relay leads."""
    port: int
    """At which the command finds it, on 127.0.0.1."""


class Sandboxed:
    """A command that runs in a sandbox."""

    def __init__(
        self, keeper: subprocess.Popen[bytes], command: int, leaving: ExitStack, tty: int | None
    ) -> None:
        self._keeper = keeper
        self._command = command
        self._leaving = leaving
        self._tty = tty

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def send_signal(self, number: int) -> None:
        """To the command itself, not to those that keep it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._command, number)

    def wait(self) -> int:
        """Until the command has ended and with it all in the sandbox; 128 + N for signal N."""
        try:
            while True:
                _, status = os.waitpid(self._keeper.pid, os.WUNTRACED)
                if not os.WIFSTOPPED(status):
                    break
                self._stop_with_it()
            self._keeper.returncode = os.waitstatus_to_exitcode(status)
        finally:
            self.end()
        return self._keeper.returncode

    def resume(self) -> None:
        """Goes on after a stop, with the terminal if it is ours again."""
        if self._tty is not None and _in_front(self._tty):
            _put_in_front(self._tty, self._keeper.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGCONT)

    def end(self) -> None:
        """Whatever still runs is killed; the terminal comes back."""
        self._leaving.close()

    def _stop_with_it(self) -> None:
        """Ctrl-Z: the shell must see its job stop, which is `run` and what it is piped to."""
        if self._tty is None:
            return
        _until_stopped(self._keeper.pid)
        _put_in_front(self._tty, os.getpgrp())
        before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self.resume()


def start(
    sandbox: Sandbox,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    stderr: int | None = None,
) -> Sandboxed:
    """Starts `command`. `folder` is one that the view shows. Raises Unusable with the reason."""
    check_streams()
    machine = seccomp.machine()
    if machine is None:
        raise Unusable("the sandbox is made for x86-64 and 64-bit Arm")
    program = seccomp.program(machine)
    orders = {
        "command": list(command),
        "cwd": sandbox.view.cwd,
        "port": sandbox.port,
        "filter": base64.b64encode(program).decode(),
        "hidden": sandbox.view.hidden,
        "places": [(place.path, place.kind, place.folder) for place in sandbox.view.places],
        "read_only": bubblewrap.READ_ONLY,
        "empty": bubblewrap.EMPTY,
    }
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs, _in_memory(program) as filter_fd, _blocked():
            fds = [theirs.fileno()]
            if sandbox.backend == "unshare":
                words = [*_PYTHON, _BY_ITSELF]
            else:
                source = Path(inner.__file__).read_text(encoding="utf-8")
                options = bubblewrap.arguments(sandbox.view, str(_empty(folder)), filter_fd)
                words = ["bwrap", *options, *_PYTHON, source]
                fds.append(filter_fd)
            keeper = _popen([*words, str(theirs.fileno())], environment, fds, stderr)
        stack.callback(_kill, keeper)
        ours.settimeout(READY_WITHIN)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ours.sendall(json.dumps(orders).encode() + b"\n")
        listener, command_fd = _ready(ours, sandbox, keeper)
        stack.callback(os.close, command_fd)
        open_many()
        stack.enter_context(Relay(listener, *sandbox.proxy))
        tty = _terminal()
        if tty is not None:
            stack.callback(os.close, tty)
            stack.callback(_take_back, tty, keeper.pid)
            if _in_front(tty):
                _put_in_front(tty, keeper.pid)
        ours.sendall(inner.GO)
        if said := _rest(ours):
            raise Unusable(_sentence(said))
        return Sandboxed(keeper, command_fd, stack.pop_all(), tty)
    raise AssertionError  # the stack swallows nothing


def _popen(
    words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int], stderr: int | None
) -> subprocess.Popen[bytes]:
    alone = _terminal(close=True) is None
    try:
        return subprocess.Popen(
            words,
            env=dict(environment),
            pass_fds=fds,
            stderr=stderr,
            # Of its own, so that a signal to "my group" from inside ends nobody outside.
            start_new_session=alone,
            process_group=-1 if alone else 0,
        )
    except OSError as error:
        raise Unusable(f"{words[0]} cannot be started ({error.strerror})") from error


def _empty(folder: Path) -> Path:
    """What stands in the place of a hidden file."""
    file = folder / "nothing"
    file.touch(0o444)
    return file


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read."""
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield file.fileno()


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ready(
    ours: socket.socket, sandbox: Sandbox, keeper: subprocess.Popen[bytes]
) -> tuple[socket.socket, int]:
    try:
        data, fds, _, _ = socket.recv_fds(ours, 65536, 2)
    except TimeoutError:
        raise Unusable(f"the sandbox was not ready after {READY_WITHIN:g} seconds") from None
    except ConnectionResetError:
        data, fds = b"", []
    if len(fds) == 2 and data == inner.READY:
        return socket.socket(fileno=fds[0]), fds[1]
    for fd in fds:
        os.close(fd)
    if data:
        raise Unusable(_sentence(data + _rest(ours)))
    status = keeper.wait(READY_WITHIN)
    raise Unusable(f"{sandbox.backend} could not set the sandbox up (exit status {status})")


def _rest(ours: socket.socket) -> bytes:
    """What else is said before the socket closes, as it does when the command starts."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := ours.recv(65536):
            data += piece
    return data


def _sentence(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return "the sandbox could not be set up"


def _kill(keeper: subprocess.Popen[bytes]) -> None:
    if keeper.returncode is None:
        keeper.kill()
        keeper.wait()


# --- streams and terminal ----------------------------------------------------------------------


def check_streams() -> None:
    """Raises Unusable for a standard stream that would be a way out by itself.

    A folder leads to all others; a socket of the network outside can be connected anew.
    """
    for fd, name in enumerate(("input", "output", "error")):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            raise Unusable(f"standard {name} is a folder, which a sandbox cannot be given")
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(fd)) as sock:
                harmless = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
            if not harmless:
                raise Unusable(
                    f"standard {name} is a network socket, which would lead out of the sandbox;"
                    " put a pipe between: `.. | cat`"
                )


def _terminal(*, close: bool = False) -> int | None:
    """The controlling terminal; None if this process has none."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    if close:
        os.close(fd)
    return fd


def _in_front(tty: int) -> bool:
    try:
        return os.tcgetpgrp(tty) == os.getpgrp()
    except OSError:
        return False


def _put_in_front(tty: int, group: int) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(tty, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _until_stopped(group: int) -> None:
    """Waits until those of `group` have stopped who will.

    One that has not yet would still take from the terminal what is typed for the shell.
    """
    until = time.monotonic() + STOPPED_WITHIN
    while any(map(_will_stop, _running(group))) and time.monotonic() < until:
        time.sleep(0.005)


def _running(group: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name may hold anything, a bracket too (proc_pid_stat(5)).
            state, _, its = (process / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            if int(its) == group and state not in (b"T", b"Z", b"X"):
                yield process


def _will_stop(process: Path) -> bool:
    """False for one that ignores it, as the first process of a namespace does (kernel)."""
    try:
        lines = (process / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    ignored = int(said["SigIgn"], 16) >> (signal.SIGTSTP - 1) & 1
    return not ignored and said["NSpid"].split()[-1] != "1"


def _take_back(tty: int, keeper: int) -> None:
    """The terminal, from the sandbox's group or from one that was made in it."""
    try:
        holder = os.tcgetpgrp(tty)
    except OSError:
        return
    if holder == keeper or not _lives(holder):
        _put_in_front(tty, os.getpgrp())


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
