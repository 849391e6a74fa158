"""The last steps inside the sandbox, before the command takes this process over.

It opens the listener that becomes the command's proxy and hands it out, looks whether the sandbox
is what it should be, gives up what is left, and starts the command. Standard library only: it is
run as source text, by `python -I -S -c`, where Keybroker's own files may be out of sight. Whatever
goes wrong is said on the control socket, and the command does not start.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import sys
from typing import Any, NoReturn

READY, GO = b"ready\n", b"go\n"


class Unheld(Exception):
    """The sandbox is not what it should be; the sentence says in what."""


def read_orders(control: socket.socket) -> dict[str, Any]:
    """The first line from the outside: what to do, as JSON. Raises EOFError if it is cut."""
    data = b""
    while not data.endswith(b"\n"):
        piece = control.recv(65536)
        if not piece:
            raise EOFError("keybroker run is gone")
        data += piece
    orders: dict[str, Any] = json.loads(data)
    return orders


def complain(control: socket.socket, sentence: str) -> NoReturn:
    """Says why not, and ends this process."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps({"error": sentence}).encode() + b"\n")
    os._exit(1)


def enter(control: socket.socket, orders: dict[str, Any]) -> NoReturn:
    """From here to the command. Never returns."""
    command = orders["command"]
    try:
        listener = socket.create_server(("127.0.0.1", orders["port"]), backlog=1024)
        look_around(orders["hidden"])
        os.chdir(orders["cwd"])
        me = os.pidfd_open(os.getpid())
        socket.send_fds(control, [READY], [listener.fileno(), me])
        listener.close()
        os.close(me)
        # Now it is known to `run`, which may have handed the terminal over in the meantime.
        if control.recv(len(GO)) != GO:
            os._exit(1)
        _give_up()
    except (OSError, Unheld, EOFError) as error:
        complain(control, f"the sandbox could not be finished: {error}")
    try:
        os.execvp(command[0], command)  # noqa: S606 -- the command, by its own arguments
    except OSError as error:
        complain(control, f"{command[0]} cannot be started in the sandbox ({error.strerror})")


def look_around(hidden: list[str]) -> None:
    """Raises Unheld where this process can do or see what it should not."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            raise Unheld(f"the process has capabilities ({name} {status[name]})")
    if status["NoNewPrivs"] != "1":
        raise Unheld("programs could gain privileges")
    if status["Seccomp"] != "2":
        raise Unheld("system calls are not filtered")
    if len([name for name in os.listdir("/proc") if name.isdigit()]) > 3:
        raise Unheld("other processes can be seen")
    if _has_route():
        raise Unheld("there is a way into a network")
    for path in hidden:
        _look_for(path)
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        if os.access(path, os.W_OK):
            raise Unheld(f"{path} can be written")


def _has_route() -> bool:
    """Whether there is any route but those to this network's own loopback."""
    with open("/proc/self/net/route") as file:
        if len(file.readlines()) > 1:
            return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing: asks for the route (TEST-NET-1)
        except OSError:
            return False
        return True


def _look_for(path: str) -> None:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            empty = not os.listdir(path)
        else:
            empty = stat.S_ISREG(found.st_mode) and not found.st_size
    except OSError:
        return
    if not empty:
        raise Unheld(f"{path} can be seen")


def _give_up() -> None:
    # 1, not 0: a helper that core_pattern pipes to is called in spite of 0 (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them; the command must not
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(fd: int) -> NoReturn:
    """Takes the orders from the control socket `fd` and follows them."""
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    try:
        orders = read_orders(control)
    except (OSError, EOFError, ValueError):
        os._exit(1)
    enter(control, orders)


if __name__ == "__main__":
    main(int(sys.argv[1]))
