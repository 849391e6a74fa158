"""The worker's event loop dials what the egress guard pinned, and nothing else (law 7).

A pin is a host and a port with the addresses that were checked for them. Names are answered from
the pins instead of DNS, and `sock_connect`, through which every TCP dial of the loop goes, refuses
an address that was never pinned.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_MOST = 4096
"""Pins kept; the least recently checked go first, and a dial without a pin is refused."""


class Pins:
    """The checked addresses. A later check replaces a name's; dials under way stay good."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[str, int], tuple[str, ...]] = OrderedDict()
        self._places: OrderedDict[tuple[str, int], None] = OrderedDict()

    def pin(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """From now on (host, port) means `addresses`, in this order."""
        _put(self._names, (host, port), tuple(addresses))
        for address in addresses:
            _put(self._places, (_canonical(address), port), None)

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses pinned for (host, port); none if it was not checked."""
        return self._names.get((host, port), ())

    def holds(self, address: str, port: int) -> bool:
        """Whether (address, port) was checked, under whatever name."""
        return (_canonical(address.partition("%")[0]), port) in self._places


@lru_cache(4096)
def _canonical(address: str) -> str:
    """One spelling for each address. Raises ValueError."""
    return str(ipaddress.ip_address(address))


def _put[K, V](table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _MOST:
        table.popitem(last=False)


class Unpinned(OSError):
    """Something tried to dial a place that the egress guard had not checked."""


TOO_SLOW = "no connection in time"


class PinningLoop(asyncio.SelectorEventLoop):
    """An event loop for workers; `connect_timeout` is in seconds, for each address tried."""

    def __init__(self, pins: Pins, *, connect_timeout: float = 10.0) -> None:
        super().__init__()
        self.pins = pins
        self.connect_timeout = connect_timeout

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name is asyncio's
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        if flags & socket.AI_PASSIVE:  # asked by those who listen, not by those who dial
            return await super().getaddrinfo(
                host, port, family=family, type=type, proto=proto, flags=flags
            )
        infos = []
        for address in self.pins.addresses(str(host), int(port)):
            version = ipaddress.ip_address(address).version
            kind = socket.AF_INET if version == 4 else socket.AF_INET6
            place = (address, int(port)) if version == 4 else (address, int(port), 0, 0)
            if family in (0, kind):
                infos.append((kind, type or socket.SOCK_STREAM, proto or 6, "", place))
        if not infos:
            raise Unpinned("this host was not checked by the egress guard")
        return infos

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            host, port = address[0], address[1]
            if not self.pins.holds(host, port):
                raise Unpinned("this address was not checked by the egress guard")
            try:
                async with asyncio.timeout(self.connect_timeout):
                    return await super().sock_connect(sock, address)
            except TimeoutError as error:
                raise TimeoutError(TOO_SLOW) from error
        return await super().sock_connect(sock, address)
