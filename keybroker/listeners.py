"""The sockets that `up` holds for its children, so that a port is ours before anything is started.

The proxy's ports are only bound here, never listened on: with SO_REUSEPORT each worker listens for
itself, and the kernel hands no connection to a socket that does not listen. The admin page's
sockets are inherited, so that a restarted page loses no connection.
"""

from __future__ import annotations

import errno
import socket

from keybroker.errors import Unusable
from keybroker.values import Listen

BACKLOG = 128


def addresses(listen: Listen) -> list[tuple[socket.AddressFamily, str]]:
    """The local addresses that `listen` means. Raises Unusable if its name has none."""
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise Unusable(f"{listen.host} is no address of this machine ({error.strerror})") from error
    pairs = [(family, str(place[0])) for family, _, _, _, place in found]
    return list(dict.fromkeys(pairs))


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for connections of the last run to leave TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        if not shared:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _explain(error: OSError, listen: Listen, setting: str) -> Unusable:
    if error.errno == errno.EADDRINUSE:
        why = "is in use by another program: stop that, or choose another port"
    elif error.errno == errno.EACCES:
        why = "may not be used by this user: choose a port above 1023"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "is no address of this machine: choose one that is"
    else:
        why = f"cannot be listened on ({error.strerror})"
    return Unusable(f"{listen} {why} (`{setting}.listen` in keybroker.yaml)")


def claim_shared(listen: Listen, setting: str) -> list[socket.socket]:
    """Binds without listening, so that workers can share the port. Raises Unusable."""
    held: list[socket.socket] = []
    port = listen.port
    try:
        for family, host in addresses(listen):
            # Alone first: SO_REUSEPORT would let us sit down beside another program's listener.
            with _bound(family, host, port, shared=False) as probe:
                port = probe.getsockname()[1]
            held.append(_bound(family, host, port, shared=True))
    except OSError as error:
        close(held)
        raise _explain(error, listen, setting) from error
    return held


def claim(listen: Listen, setting: str) -> list[socket.socket]:
    """Listens. 127.0.0.1 takes [::1] along, so that nobody else answers at `localhost` there.

    Raises Unusable.
    """
    wanted = addresses(listen)
    if listen.host == "127.0.0.1" and _has_ipv6():
        wanted.append((socket.AF_INET6, "::1"))
    held: list[socket.socket] = []
    port = listen.port
    try:
        for family, host in wanted:
            held.append(_bound(family, host, port, shared=False))
            port = held[0].getsockname()[1]
    except OSError as error:
        close(held)
        raise _explain(error, Listen(listen.host, port), setting) from error
    return held


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def places(sockets: list[socket.socket]) -> list[Listen]:
    """The addresses that the sockets are bound to."""
    return [Listen(*sock.getsockname()[:2]) for sock in sockets]


def close(sockets: list[socket.socket]) -> None:
    """Closes them all."""
    for sock in sockets:
        sock.close()
