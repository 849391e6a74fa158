"""What the data plane needs of the middle, and of the certificate authority: duties, in prose.

The engine knows these shapes only, so that it can be tested with a fake at exactly this place and
a second engine can be written against it. Header text is ISO-8859-1 both ways: every byte survives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeGuard, runtime_checkable

from broker.errors import Refusal
from broker.model import Client
from rules.request import Headers, RawRequest, Request


@runtime_checkable
class Answer(Protocol):
    """Keybroker's own answer: a final status (200 to 599), headers without framing, a body."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def body(self) -> bytes: ...


class Head(Protocol):
    """A response's head as it is to be delivered; if `answer` is set, that goes instead of it."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def answer(self) -> Answer | None: ...


@runtime_checkable
class Passage(Protocol):
    """A call that may go upstream, once: decided, committed, with its credential in place.

    The engine sends exactly `request`; if its body is unread, the agent's follows as it comes, each
    part shown to `send` first. It then calls either `head`, `feed` for every chunk,
    `finish` once and `completed`; or, at whatever point it breaks, `failed`. One of these last two,
    once.
    """

    @property
    def call(self) -> str: ...
    @property
    def request(self) -> Request: ...
    @property
    def refused(self) -> bool:
        """Set by `feed` or `finish`: the rest cannot be passed on, so the response breaks off."""
        ...

    def send(self, chunk: bytes) -> None:
        """Takes note of a part of an unread body before it leaves, and of its end (an empty one).
        Raises Refusal if it must not leave: the call has then failed."""
        ...

    def send_trailers(self, raw: Sequence[tuple[bytes, bytes]]) -> Headers:
        """The trailers of an unread body as they may leave; asked before its end is shown to
        `send`. Raises Refusal as that does."""
        ...

    def head(self, status: int, reason: str, headers: Headers) -> Head:
        """The head to deliver for the one received; hop-by-hop headers are gone from both."""
        ...

    def frames_from_agent(self, data: bytes) -> bytes:
        """Once `head` has let a 101 through: what to send upstream. Raises BadFrame: the socket is
        over."""
        ...

    def frames_from_upstream(self, data: bytes) -> bytes:
        """The same the other way."""
        ...

    @property
    def socket_closed(self) -> bool:
        """Whether both sides have closed the socket."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """What to deliver for a received chunk; may be empty."""
        ...

    def finish(self) -> bytes:
        """What is left to deliver at the end of the body."""
        ...

    def trailers(self, fields: Headers, *, deliver: bool) -> Headers:
        """What to deliver of the trailers that came behind the body, after `finish`; nothing
        without `deliver`, which says that the agent can take some."""
        ...

    async def completed(self) -> None:
        """Records the result."""
        ...

    async def failed(self, sentence: str, *, sent: bool) -> Answer:
        """Records the failure. `sent` is False only if certainly no byte of the request left."""
        ...


@runtime_checkable
class Tunnel(Protocol):
    """A connection that may be passed on undecrypted."""

    async def closed(self, sent: int, received: int) -> None:
        """Records the end: bytes from the agent, bytes from the upstream."""
        ...


_answers: dict[type, bool] = {}
_passages: dict[type, bool] = {}


def is_answer(value: object) -> TypeGuard[Answer]:
    """Whether it has the shape of an Answer: looked at once for each type, as that is dear."""
    kind = type(value)
    if kind not in _answers:
        _answers[kind] = isinstance(value, Answer)
    return _answers[kind]


def is_passage(value: object) -> TypeGuard[Passage]:
    """Whether it has the shape of a Passage, likewise."""
    kind = type(value)
    if kind not in _passages:
        _passages[kind] = isinstance(value, Passage)
    return _passages[kind]


class Pipeline(Protocol):
    """The path of a call through the middle."""

    def authenticate(self, proxy_authorization: Sequence[str]) -> Client:
        """Whose these Proxy-Authorization values are (all, in order). Quick. Raises Refusal."""
        ...

    def identify(self, name: str, token: str) -> Client:
        """Whose these are, for who does not send Proxy-Authorization. Quick. Raises Refusal."""
        ...

    def knows(self, client: Client) -> bool:
        """Whether the agent and its token are still good. Quick; raises nothing."""
        ...

    async def handle(
        self, client: Client, raw: RawRequest, gone: asyncio.Event
    ) -> Answer | Passage:
        """Decides a call; may wait for people. Never raises. `gone`: the agent hung up."""
        ...

    async def begin(self, client: Client, raw: RawRequest) -> Answer | Passage | None:
        """Decides a call on its head, its body unread; None: it needs the body. Never raises."""
        ...

    def streams(self) -> bool:
        """Whether some rule lets bodies leave before they are whole. Quick; raises nothing."""
        ...

    async def tunnel(self, client: Client, host: str, port: int, sni: str | None) -> Tunnel | None:
        """A tunnel if the policy says so (the address is then checked and pinned), else None."""
        ...

    def refusal_answer(self, refusal: Refusal, call: str | None = None) -> Answer:
        """The refusal as the agent is to see it."""
        ...


class Traffic(Protocol):
    """Told of connections of agents; quick, and never raises."""

    def opened(self) -> None: ...
    def closed(self) -> None: ...


class Leaf(Protocol):
    """A server certificate for one name. Times are UTC."""

    @property
    def cert_pem(self) -> bytes: ...
    @property
    def key_pem(self) -> bytes: ...
    @property
    def not_after(self) -> datetime: ...


class Authority(Protocol):
    """Signs what agents see instead of the upstream's certificate."""

    def leaf(self, host: str) -> Leaf:
        """A certificate for a name or address; the same object while it is good for use."""
        ...


__all__ = [
    "Answer",
    "Authority",
    "Head",
    "Leaf",
    "Passage",
    "Pipeline",
    "Request",
    "Traffic",
    "Tunnel",
    "is_answer",
    "is_passage",
]
