"""One call's way through the program: what was done when, told once, at its end.

Being on a call's path it only notes; whoever listens at the end (metrics, the log, traces) does the
rest, and must be quick. No body, query, header or secret is ever in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType

from broker.errors import Refusal
from broker.telemetry.meters import Meters
from broker.telemetry.metrics import NO_CODE
from rules.model import Shadow
from rules.request import RawRequest, Request

log = logging.getLogger(__name__)

type Listener = Callable[[Journey], None]
"""Told of a journey that has ended; belongs to the event loop, so it must not block."""


class _Stage:
    """Notes how long its body took, and whether it went well."""

    __slots__ = ("_journey", "_name", "_start")

    def __init__(self, journey: Journey, name: str) -> None:
        self._journey = journey
        self._name = name

    def __enter__(self) -> None:
        self._start = monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journey.stages.append((self._name, self._start, monotonic(), kind is None))


class Journey:
    """From arrival to the end of the answer. Times are seconds of `time.monotonic`."""

    __slots__ = (
        "_listeners",
        "agent",
        "approval",
        "began",
        "call",
        "code",
        "delivered",
        "ended",
        "masked",
        "opener",
        "outcome",
        "policy",
        "raw",
        "received",
        "request",
        "rules",
        "sent",
        "shadow",
        "stages",
        "status",
    )

    def __init__(
        self,
        call: str,
        agent: str,
        listeners: Sequence[Listener] = (),
        *,
        raw: RawRequest | None = None,
    ) -> None:
        self._listeners = listeners
        self.call = call
        self.agent = agent
        self.raw = raw
        """As it came; only what traces continue is taken from it."""
        self.request: Request | None = None
        """As it was matched, once it has a canonical form."""
        self.rules: tuple[str, ...] = ()
        self.policy: int | None = None
        self.approval: str | None = None
        self.shadow: Shadow | None = None
        """What is only tried says of the call."""
        self.opener: tuple[str, tuple[str, ...]] | None = None
        """The call that opened the approval under which this one goes out, if that is another, and
        its `traceparent` values."""
        self.stages: list[tuple[str, float, float, bool]] = []
        """Name, begin, end, and whether it went well."""
        self.began = monotonic()
        self.ended = 0.0
        """0 while it goes on."""
        self.outcome = ""
        self.code = NO_CODE
        self.status = 0
        """The upstream's, or that of Keybroker's own answer."""
        self.sent = self.received = self.delivered = 0
        """Bytes of bodies."""
        self.masked = 0

    def stage(self, name: str) -> _Stage:
        """`with journey.stage("fetch"):` notes the time that the body takes."""
        return _Stage(self, name)

    def note_refusal(self, refusal: Refusal) -> None:
        """Which rule and approval it names."""
        rule, approval = refusal.extra.get("rule"), refusal.extra.get("approval")
        self.shadow = refusal.shadow or self.shadow
        if isinstance(rule, str) and not self.rules:
            self.rules = (rule,)
        if isinstance(approval, dict) and self.approval is None:
            self.approval = approval.get("id")

    def end(self, outcome: str, code: str = NO_CODE, status: int = 0) -> None:
        """It is over; the first time counts. Never raises."""
        if self.ended:
            return
        self.ended = monotonic()
        self.outcome, self.code, self.status = outcome, code, status
        for listener in self._listeners:
            try:
                listener(self)
            except Exception as error:  # noqa: BLE001 - the call goes on whoever fails to listen
                log.error("call %s was not observed: %s", self.call, type(error).__name__)


def counted(meters: Meters) -> Listener:
    """The listener that counts calls."""

    def count(journey: Journey) -> None:
        meters.call_ended(
            journey.outcome,
            journey.code,
            journey.ended - journey.began,
            [(name, end - begin) for name, begin, end, _ in journey.stages],
        )
        if journey.shadow is not None:
            meters.shadow.add(journey.shadow.decided, journey.shadow.effect)
        if journey.outcome in ("completed", "failed"):
            first = journey.status // 100 if journey.outcome == "completed" else None
            meters.bodies_passed(
                journey.sent, journey.received, journey.delivered, journey.masked, first
            )

    return count
