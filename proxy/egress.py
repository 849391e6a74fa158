"""The egress guard (laws 6 and 7): resolves a name once, judges its addresses, pins the good.

Nothing is dialled that was not pinned: the worker's event loop (`proxy.dialing`) knows the pins
only. Keybroker's own listeners and the place where people open its page are never reachable,
whatever the settings allow.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache

from broker.errors import Refusal
from broker.ports import Route
from proxy.addresses import Address, Network, embedded, objection, parse
from proxy.dialing import Pins
from rules.hosts import is_address

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, in order of preference. Raises OSError."""

LOOPBACK = ("127.0.0.1", "::1")
_OWN = "one of Keybroker's own listeners"
_WAY_OUT = "the proxy that calls leave by"
BY_NAME = "looked up by the egress proxy"
"""Stands for an address in the ledger, where none was known here."""


class EgressGuard:
    """Implements `broker.ports.Egress` for one worker. Use it from the worker's event loop only."""

    def __init__(
        self,
        allow_networks: Iterable[Network] = (),
        *,
        listeners: Iterable[tuple[str, int]] = (),
        names: Iterable[tuple[str, int]] = (),
        resolve: Resolve | None = None,
        timeout: float = 5.0,
        keep: float = 5.0,
        proxy: tuple[str, int] | None = None,
        by_name: bool = False,
    ) -> None:
        """`listeners`: Keybroker's own (address, port); `0.0.0.0` and `::` are any local address.

        `names`: (host, port) at which something in front of Keybroker leads to its admin page.

        `timeout`: seconds a resolution may take. `keep`: seconds for which one resolution serves
        later checks of the same host, so that a burst of calls asks the resolver once.

        `proxy`: (host, port) through which every upstream is reached. It alone is then pinned, and
        what was checked of upstreams is in `targets`. `by_name`: it looks names up itself, so that
        only addresses that stand in the request are checked here.
        """
        self.pins = Pins()
        """What may be dialled."""
        self.targets = Pins()
        """What the proxy may be asked for, by address."""
        self._proxy = proxy
        self._by_name = by_name
        self._ways_out: set[Address] = set()
        allowed = tuple(allow_networks)
        # What an address is never changes, nor does what is allowed.
        self._kind = lru_cache(4096)(lambda text: objection(parse(text), allowed))
        self._listeners: set[tuple[Address, int]] = set()
        self._names = frozenset(names)
        for address, port in listeners:
            self.protect(address, port)
        # Threads of its own: slow look-ups must not starve the pool that the worker shares.
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="resolver")
        self._resolve = resolve or self._ask_system
        self._timeout = timeout
        self._keep = keep
        self._running: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}

    def protect(self, address: str, port: int) -> None:
        """From now on (address, port) is one of Keybroker's own listeners.

        A name stands for all its addresses, "" for every local one. Raises OSError for a name that
        does not resolve.
        """
        for text in _spelled_out(address):
            self._listeners.add((parse(text), port))

    async def check(self, host: str, port: int) -> Route:
        """See `broker.ports.Egress`. `host` is canonical (`rules.hosts`)."""
        if (host, port) in self._names:
            raise _refused(host, _OWN)
        if self._proxy is not None:
            await self._pin_proxy()
            if (host, port) == self._proxy:
                raise _refused(host, _WAY_OUT)
            if self._by_name and not _is_local_name(host) and not is_address(host):
                return Route(host, port, (BY_NAME,))
        found = await self._addresses(host, port)
        objections = {text: self._objection(text, port) for text in found}
        good = tuple(text for text, against in objections.items() if against is None)
        if not good:
            # The kind, not the address: an agent must not map the inside by asking for names.
            kinds = " and ".join(sorted({str(against) for against in objections.values()}))
            raise _refused(host, kinds)
        (self.pins if self._proxy is None else self.targets).pin(host, port, good)
        return Route(host, port, good)

    async def _pin_proxy(self) -> None:
        """The proxy is where the settings say, be it inside; agents may not call it themselves."""
        assert self._proxy is not None
        try:
            found = await self._addresses(*self._proxy)
        except Refusal as refusal:
            raise Refusal(
                "upstream_unreachable", "The name of the egress proxy does not resolve."
            ) from refusal
        self.pins.pin(*self._proxy, found)
        self._ways_out.update(parse(text) for text in found)

    def _objection(self, text: str, port: int) -> str | None:
        if any(own_port == port for _, own_port in self._listeners):
            address = parse(text)
            if any(self._is_own(candidate, port) for candidate in (address, *embedded(address))):
                return _OWN
        if self._proxy is not None and port == self._proxy[1]:
            address = parse(text)
            if not self._ways_out.isdisjoint((address, *embedded(address))):
                return _WAY_OUT
        return self._kind(text)

    def _is_own(self, address: Address, port: int) -> bool:
        for listener, own_port in self._listeners:
            if own_port != port:
                continue
            if address == listener:
                return True
            # Dialling the unspecified address reaches this host; a wildcard listener is everywhere.
            if (address.is_unspecified or listener.is_unspecified) and is_local(address):
                return True
        return False

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        if is_address(host):  # else it is no use to try: to fail costs more than all the rest
            with suppress(ValueError):
                return (str(parse(host)),)
        if _is_local_name(host):
            return LOOPBACK  # RFC 6761 6.3: never asked of DNS
        key = (host, port)
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(self._resolve(host, port))
            self._running[key] = task
            task.add_done_callback(lambda done: self._resolved(key, done))
        try:
            # Shielded: calls share the task, and one that is cancelled must not take it along.
            found = await asyncio.wait_for(asyncio.shield(task), self._timeout)
        except TimeoutError:
            raise Refusal(
                "upstream_unreachable", f"The name {host} did not resolve in time."
            ) from None
        except OSError:
            found = ()
        if not found:
            raise Refusal("upstream_unreachable", f"The name {host} does not resolve.")
        return found

    def _resolved(self, key: tuple[str, int], task: asyncio.Task[Sequence[str]]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed or not self._keep:
            self._forget(key, task)
        else:
            asyncio.get_running_loop().call_later(self._keep, self._forget, key, task)

    def _forget(self, key: tuple[str, int], task: asyncio.Task[Sequence[str]]) -> None:
        if self._running.get(key) is task:
            del self._running[key]

    async def _ask_system(self, host: str, port: int) -> Sequence[str]:
        infos = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
        )
        return tuple(dict.fromkeys(str(info[4][0]) for info in infos))


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _refused(host: str, kinds: str) -> Refusal:
    return Refusal(
        "egress_refused",
        f"{host} may not be called: it is at {kinds}, which Keybroker's settings do not allow.",
    )


def _spelled_out(address: str) -> Sequence[str]:
    if not address:
        return ("0.0.0.0", "::")  # noqa: S104 - to be refused, not to listen on
    if address == "localhost":
        return LOOPBACK
    try:
        return (str(parse(address)),)
    except ValueError:
        infos = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
        return tuple(str(info[4][0]) for info in infos)


def is_local(address: Address) -> bool:
    """Whether `address` is one of this host's own; the unspecified address and loopback are."""
    if address.is_unspecified or address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
