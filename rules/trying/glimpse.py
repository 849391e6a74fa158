"""What is known of a call that was not kept: method, place, time and source, of the rest little.

A condition asked of a glimpse holds, does not hold, or cannot be told (None): the last whenever two
requests that look alike here may differ in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from rules.bodies import Body, Field, Member, RpcCalls, ToolCalls
from rules.conditions import (
    Condition,
    GrpcMethod,
    Methods,
    Paths,
    Scheme,
    Source,
    Upgrade,
    Window,
)
from rules.errors import Unreadable
from rules.model import Subject
from rules.reading.call import Reading
from rules.request import Request, Via
from rules.request import Scheme as SchemeName

_GRPC = "application/grpc"


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What the ledger says openly of a request. None: not known, of a run: from none."""

    method: str
    scheme: SchemeName
    host: str
    port: int
    path: str
    moment: datetime | None = None
    via: Via = "proxy"
    run: str | None = None
    """Id of the run that it came from."""
    size: int | None = None
    """Bytes of the body."""

    def request(self) -> Request:
        """A request that looks so, with nothing in it that is not known."""
        return Request(
            method=self.method,
            scheme=self.scheme,
            host=self.host,
            port=self.port,
            path=self.path,
            query=None,
            headers=(),
            body=b"",
            via=self.via,
            moment=self.moment,
            run=self.run,
        )


class Look:
    """A glimpse of an agent's call, to ask conditions of."""

    def __init__(self, glimpse: Glimpse, subject: Subject) -> None:
        self.glimpse = glimpse
        self._subject = subject
        self.request = glimpse.request()
        self.call = Reading(self.request, subject)

    def tell(self, condition: Condition, *, wide: bool) -> bool | None:
        """Whether the condition holds in this reading; None if it cannot be told."""
        asked = _ASKED.get(type(condition))
        return None if asked is None else asked(self, condition, wide)

    def _plainly(self, condition: Condition, wide: bool) -> bool | None:
        """All that it looks at is known."""
        return _holds(condition, self.call, wide)

    def _of_upgrade(self, condition: Condition, wide: bool) -> bool | None:
        return self._same(condition, wide, self.request, replace(self.request, upgrade="websocket"))

    def _of_grpc(self, condition: Condition, wide: bool) -> bool | None:
        grpc = replace(self.request, headers=(("content-type", _GRPC),))
        return self._same(condition, wide, self.request, grpc)

    def _of_rpc(self, condition: Condition, wide: bool) -> bool | None:
        """What is called stands in a body; but it may also do so in the query, or be said over a
        WebSocket."""
        if self.glimpse.size != 0:
            return None
        socket = replace(self.request, upgrade="websocket")
        queried = replace(self.request, query="method=x")
        return self._same(condition, wide, self.request, socket, queried)

    def _of_size(self, condition: Condition, wide: bool) -> bool | None:
        size = self.glimpse.size
        if size is None or not isinstance(condition, Body) or condition.test.types:
            return None
        request = replace(self.request, unread=True, length=size)
        return _holds(condition, Reading(request, self._subject), wide)

    def _of_value(self, condition: Condition, wide: bool) -> bool | None:
        # Widely, and where a name must be absent, the query counts too.
        if self.glimpse.size != 0 or not isinstance(condition, Field | Member):
            return None
        return None if wide or condition.test.exists is False else False

    def _same(self, condition: Condition, wide: bool, *requests: Request) -> bool | None:
        told = {_holds(condition, Reading(r, self._subject), wide) for r in requests}
        return told.pop() if len(told) == 1 else None


def _holds(condition: Condition, call: Reading, wide: bool) -> bool:
    """As `Matcher.holds` takes it: what cannot be read holds widely only."""
    try:
        return condition.holds(call, wide=wide)
    except Unreadable:
        return wide


_ASKED: dict[type[Condition], Callable[[Look, Condition, bool], bool | None]] = {
    Scheme: Look._plainly,
    Methods: Look._plainly,
    Paths: Look._plainly,
    Window: Look._plainly,
    Source: Look._plainly,
    Upgrade: Look._of_upgrade,
    GrpcMethod: Look._of_grpc,
    Body: Look._of_size,
    Field: Look._of_value,
    Member: Look._of_value,
    RpcCalls: Look._of_rpc,
    ToolCalls: Look._of_rpc,
}
