"""A call's journey as spans of the agent's trace (W3C Trace Context, OpenTelemetry). Pure.

`traceparent` goes to the upstream as the agent sent it, since exactly what was matched is what goes
out: our spans are children of the agent's span, beside the upstream's own. What spans hold is
listed here; never a path, query, header, body or secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from broker.telemetry.journey import Journey, Listener
from broker.telemetry.metrics import NO_CODE
from rules.visible import visible

type Value = str | int | tuple[str, ...]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""
_CLIENT_STAGES = frozenset({"fetch", "upstream"})
LONGEST = 200
"""Characters of a value."""

# https://www.w3.org/TR/trace-context/#traceparent-header: a later version may go on after a dash.
_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Parent:
    """The agent's own span, as its `traceparent` names it. Ids are hex."""

    trace: str
    span: str
    sampled: bool


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hex, times nanoseconds of Unix time."""

    trace: str
    id: str
    parent: str
    """Empty: none."""
    name: str
    kind: int
    start: int
    end: int
    attributes: tuple[tuple[str, Value], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """(trace, span) of what it goes on with."""
    failed: bool = False


def parent_of(values: Sequence[str]) -> Parent | None:
    """The agent's span. None unless there is one `traceparent`, valid to the letter."""
    if len(values) != 1:
        return None
    found = _PARENT.fullmatch(values[0])
    if found is None or found["version"] == "ff":
        return None
    if found["version"] == "00" and found["more"] is not None:
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return Parent(found["trace"], found["span"], bool(int(found["flags"], 16) & 1))


def span_of(call: str) -> str:
    """The id of a call's span. It follows from the call's (random) id, so that a later call can
    link to it and an operator can look for it."""
    return sha256(b"span " + call.encode()).hexdigest()[:16]


def trace_of(call: str, parent: Parent | None) -> str:
    """The agent's trace, or the call's own."""
    return parent.trace if parent else sha256(b"trace " + call.encode()).hexdigest()[:32]


def is_sampled(trace: str, parent: Parent | None, ratio: float) -> bool:
    """Whether a trace is told of: the same answer wherever it is asked, by the trace's id.

    What the agent itself does not record is not; that it records does not force it here.
    """
    if parent is not None and not parent.sampled:
        return False
    # As OpenTelemetry's consistent sampling: the low 56 bits are random.
    return int(trace[-14:], 16) < ratio * (1 << 56)


def traced(
    emit: Callable[[Sequence[Span]], None],
    *,
    ratio: float,
    clock: Callable[[], float],
    unix_ns: Callable[[], int],
) -> Listener:
    """The listener that makes spans of journeys and hands them to `emit`, which must not block.

    `clock` is the one of journeys.
    """

    def trace(journey: Journey) -> None:
        raw = journey.raw
        values = [] if raw is None else [v for n, v in raw.headers if n.lower() == b"traceparent"]
        parent = parent_of([value.decode("latin-1") for value in values])
        trace_id = trace_of(journey.call, parent)
        if is_sampled(trace_id, parent, ratio):
            # Spans are dated by the wall clock as it is now, so that no jump of it bends them.
            now, wall = clock(), unix_ns()
            emit(spans(journey, trace_id, parent, at=lambda t: wall - int((now - t) * 1e9)))

    return trace


def spans(
    journey: Journey, trace: str, parent: Parent | None, *, at: Callable[[float], int]
) -> list[Span]:
    """The call's span, and one for each stage of it. `at` dates a moment of the journey."""
    own = span_of(journey.call)
    links = () if journey.opener is None else (_opened(*journey.opener),)
    found = [
        Span(
            trace,
            own,
            parent.span if parent else "",
            "keybroker.call",
            SERVER,
            at(journey.began),
            at(journey.ended),
            _attributes(journey),
            links,
            failed=journey.outcome in ("failed", "abandoned"),
        )
    ]
    for index, (name, begin, end, well) in enumerate(journey.stages):
        found.append(
            Span(
                trace,
                span_of(f"{journey.call} {index}"),
                own,
                f"keybroker.{name}",
                CLIENT if name in _CLIENT_STAGES else INTERNAL,
                at(begin),
                at(end),
                failed=not well,
            )
        )
    return found


def _opened(call: str, traceparent: Sequence[str]) -> tuple[str, str]:
    return trace_of(call, parent_of(traceparent)), span_of(call)


def _attributes(journey: Journey) -> tuple[tuple[str, Value], ...]:
    """Names as in OpenTelemetry's conventions for HTTP, where they have one."""
    request = journey.request
    facts: dict[str, Value | None] = {
        "keybroker.call": journey.call,
        "keybroker.agent": journey.agent or None,
        "keybroker.outcome": journey.outcome,
        "keybroker.code": None if journey.code == NO_CODE else journey.code,
        "keybroker.rules": journey.rules or None,
        "keybroker.policy": journey.policy,
        "keybroker.approval": journey.approval,
        "http.request.method": request.method if request else None,
        "server.address": request.host if request else None,
        "server.port": request.port if request else None,
        "http.response.status_code": journey.status or None,
        "http.request.body.size": journey.sent or None,
        "http.response.body.size": journey.delivered or None,
        "keybroker.masked": journey.masked or None,
    }
    return tuple(
        (name, visible(fact, LONGEST) if isinstance(fact, str) else fact)
        for name, fact in facts.items()
        if fact is not None
    )
