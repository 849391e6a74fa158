"""The worker's event loop dials what the egress guard pinned, and nothing else (law 7).

A pin is a host and a port with the addresses that were checked for them. Names are answered from
the pins instead of DNS, and `sock_connect`, through which every TCP dial of the loop goes, refuses
an address that was never pinned. uvloop would dial by itself in `create_connection`, so there it is
only given sockets that are connected.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import uvloop

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


class PinningLoop(uvloop.Loop):
    """An event loop for workers; `connect_timeout` is in seconds, for each address tried."""

    def __init__(self, pins: Pins, *, connect_timeout: float = 10.0) -> None:
        super().__init__()
        self.pins = pins
        self.connect_timeout = connect_timeout

    async def create_connection[P: asyncio.BaseProtocol](  # type: ignore[override]  # less than asyncio's
        self,
        protocol_factory: Callable[[], P],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> tuple[asyncio.BaseTransport, P]:
        """As asyncio's, but the socket is always dialled here, and by `sock_connect` alone."""
        dialled = await self._dial(host, port) if sock is None else sock
        try:
            made: Any = await super().create_connection(protocol_factory, sock=dialled, **options)
        except BaseException:
            if sock is None:
                dialled.close()
            raise
        transport, protocol = made
        return transport, protocol

    async def _dial(self, host: Any, port: Any) -> socket.socket:
        failures = []
        for family, kind, proto, _, place in await self.getaddrinfo(host, port):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
            try:
                await self.sock_connect(sock, place)
            except OSError as error:
                sock.close()
                failures.append(error)
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failures[0]

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
        infos = []
        for address in self.pins.addresses(str(host), int(port)) or self._itself(host, port):
            version = ipaddress.ip_address(address).version
            kind = socket.AF_INET if version == 4 else socket.AF_INET6
            place = (address, int(port)) if version == 4 else (address, int(port), 0, 0)
            if family in (0, kind):
                infos.append((kind, type or socket.SOCK_STREAM, proto or 6, "", place))
        if not infos:
            raise Unpinned("this host was not checked by the egress guard")
        return infos

    def _itself(self, host: Any, port: Any) -> tuple[str, ...]:
        """A checked address means itself; uvloop asks when it dials it."""
        try:
            return (host,) if self.pins.holds(host, int(port)) else ()
        except ValueError:  # a name
            return ()

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
