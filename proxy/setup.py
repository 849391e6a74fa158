"""What all connections of an engine share, and what is known of one when a lane takes it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from broker.model import Client
from proxy.compat import CoreOptions
from proxy.patience import Timeouts
from proxy.ports import Pipeline, Tunnel
from proxy.tls import Tls


@dataclass(slots=True)
class Setup:
    """What all connections of an engine share."""

    pipeline: Pipeline
    tls: Tls
    options: CoreOptions
    timeouts: Timeouts
    names: frozenset[tuple[str, int]] = frozenset()
    """The authority that the settings give the gateway."""
    express: bool = True
    """Plain calls may take the express lane."""
    draining: bool = False

    @property
    def body_limit(self) -> int:
        """Bytes of a request body."""
        return int(self.options.body_size_limit)


@dataclass(frozen=True, slots=True)
class Entered:
    """An agent that is inside its tunnel: it was authenticated, and its CONNECT was granted."""

    agent: Client
    place: tuple[str, int]
    """Host and port of the CONNECT."""
    sni: str | None = None
    encrypted: bool = True
    """Nothing of the tunnel's content was read yet; else TLS is there, and has been undone."""
    tunnel: Tunnel | None = None
    """To pass it on as it is: the policy says so."""


class Connection(Protocol):
    """One agent's connection, whoever serves it."""

    @property
    def live(self) -> object:
        """True if a call has begun and is not answered yet."""
        ...

    @property
    def watched(self) -> Client | None:
        """Whose tunnel, WebSocket or streaming body this is: no decision looks at it any more."""
        ...

    def cut(self) -> None:
        """Closes it; bytes already written are still delivered."""
        ...

    def revoke(self) -> None:
        """Closes it, as its agent is no longer known."""
        ...

    def give_up_late(self) -> None:
        """Ends the calls whose upstream takes too long; to be called about once a second."""
        ...


class Lanes(Protocol):
    """The engine, as those see it who may hand a connection over."""

    def serve(
        self,
        connection: Connection,
        over: asyncio.Future[None],
        after: Connection | None = None,
    ) -> None:
        """`connection` is served from now on, until `over` is done; `after` was the same one."""
        ...

    def hand_over(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        data: bytes,
        entered: Entered | None,
    ) -> None:
        """The full engine takes the transport; `data` was read from it already. `connection` is
        nobody any more."""
        ...
