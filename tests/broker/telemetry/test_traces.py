"""Spans: the agent's trace continued where it is one to the letter, and nothing secret in them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.parts import Limits
from broker.passage import Passage
from broker.pipeline import Pipeline
from broker.telemetry.traces import (
    CLIENT,
    INTERNAL,
    SERVER,
    Parent,
    Span,
    is_sampled,
    parent_of,
    span_of,
    trace_of,
    traced,
)  # fmt: skip
from tests.support.services import CANARY, World, complete, raw, refund, until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_a_parent_is_taken_as_it_is(value: str, sampled: bool) -> None:
    assert parent_of([value]) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [GOOD, GOOD],
        [""],
        [GOOD.upper()],
        [" " + GOOD],
        [GOOD + "\n"],
        [GOOD + "-more"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"cc-{TRACE}-{SPAN}-01.more"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN[:-1]}g-01"],
        [f"00_{TRACE}_{SPAN}_01"],
        [f"00-{TRACE}-{SPAN}-0\u0661"],
        [GOOD * 1000],
        ['"}],"forged":[{"'],
    ],
)
def test_what_is_no_parent_to_the_letter_is_none(values: list[str]) -> None:
    assert parent_of(values) is None


@given(st.lists(st.text(max_size=80), max_size=3))
def test_no_header_is_an_error(values: list[str]) -> None:
    parent = parent_of(values)
    assert parent is None or len(parent.trace) == 32


def test_a_trace_is_sampled_everywhere_or_nowhere() -> None:
    traces = [trace_of(f"c-{n}", None) for n in range(2000)]
    kept = [t for t in traces if is_sampled(t, None, 0.25)]
    assert 350 < len(kept) < 650
    assert all(is_sampled(t, Parent(t, SPAN, True), 0.25) for t in kept)
    assert all(is_sampled(t, None, 1.0) for t in traces)
    assert not any(is_sampled(t, None, 0.0) for t in traces)


def test_what_the_agent_does_not_record_is_not_recorded_and_its_wish_forces_nothing() -> None:
    assert not is_sampled(TRACE, Parent(TRACE, SPAN, False), 1.0)
    assert not is_sampled("f" * 32, Parent("f" * 32, SPAN, True), 0.5)


class Traced:
    """A pipeline whose spans are kept."""

    def __init__(self, world: World, ratio: float = 1.0, **limits: Any) -> None:
        self.world = world
        self.spans: list[Span] = []
        listener = traced(
            self.spans.extend, ratio=ratio, clock=time.monotonic, unix_ns=time.time_ns
        )
        self.pipeline = Pipeline(replace(world.parts(), listeners=(listener,)), Limits(**limits))

    async def call(self, wire: Any) -> Any:
        return await self.pipeline.handle(self.world.client(), wire, asyncio.Event())


async def test_a_call_is_a_span_of_the_agents_trace_with_its_stages(world: World) -> None:
    at = Traced(world)
    before = time.time_ns()
    wire = raw(path="/v1/x/pathsecret?k=querysecret", headers=(("traceparent", GOOD),))
    passage = await at.call(wire)
    assert isinstance(passage, Passage)
    assert dict(passage.request.headers)["traceparent"] == GOOD  # law 3: as it was matched
    await complete(passage, CANARY.encode())
    root, *stages = at.spans
    assert (root.trace, root.parent, root.kind) == (TRACE, SPAN, SERVER)
    assert root.id == span_of(passage.call) and not root.failed
    assert [(s.name, s.kind) for s in stages] == [
        ("keybroker.decide", INTERNAL),
        ("keybroker.route", INTERNAL),
        ("keybroker.fetch", CLIENT),
        ("keybroker.commit", INTERNAL),
        ("keybroker.upstream", CLIENT),
        ("keybroker.deliver", INTERNAL),
    ]
    for stage in stages:
        assert (stage.trace, stage.parent) == (TRACE, root.id)
        assert root.start <= stage.start <= stage.end <= root.end + 1_000_000
    assert len({s.id for s in at.spans}) == len(at.spans)
    assert before - 5_000_000 <= root.start and root.end <= time.time_ns() + 5_000_000
    facts = dict(root.attributes)
    assert facts["http.request.method"] == "GET" and facts["server.address"] == "api.stripe.com"
    assert facts["keybroker.rules"] == ("read",) and facts["http.response.status_code"] == 200
    for word in ("pathsecret", "querysecret", CANARY, at.world.token):
        assert word not in repr(at.spans)


async def test_without_a_parent_a_call_is_a_trace_of_its_own(world: World) -> None:
    at = Traced(world)
    for headers in ((), (("traceparent", GOOD.upper()),), (("traceparent", GOOD),) * 2):
        at.spans.clear()
        await at.call(raw("DELETE", headers=headers))
        [root, *_] = at.spans
        assert root.parent == "" and len(root.trace) == 32 and root.trace != TRACE
        # Two of them have no canonical form.
        code = "request_ambiguous" if len(headers) > 1 else "policy_denied"
        assert dict(root.attributes)["keybroker.code"] == code


async def test_nothing_is_made_of_what_is_not_sampled(world: World) -> None:
    at = Traced(world, ratio=0.0)
    await at.call(raw("DELETE"))
    assert at.spans == []


async def test_a_failed_call_is_marked(world: World) -> None:
    at = Traced(world)
    passage = await at.call(raw())
    await passage.failed("No connection could be made.", sent=False)
    assert at.spans[0].failed and at.spans[-1].name == "keybroker.upstream" and at.spans[-1].failed
    world.secrets.fail()
    at.spans.clear()
    await at.call(raw())
    assert [s.name for s in at.spans if s.failed] == ["keybroker.fetch"]


async def test_an_execution_links_to_the_call_that_was_held(world: World) -> None:
    """The held call's span ended when it was answered; the later one is in a trace of its own."""
    at = Traced(world, hold_wait=0.0)
    await at.call(refund(headers=(("traceparent", GOOD),)))
    [held, *_] = at.spans
    assert held.trace == TRACE and dict(held.attributes)["keybroker.outcome"] == "pending"
    [approval] = await until(world.pending)
    world.vote(approval)
    at.spans.clear()
    other = f"00-{'a' * 32}-{'b' * 16}-01"
    await complete(await at.call(refund(headers=(("traceparent", other),))))
    root = at.spans[0]
    assert root.trace == "a" * 32
    assert root.links == ((TRACE, held.id),)
    assert dict(root.attributes)["keybroker.approval"] == approval


async def test_a_call_that_waited_links_to_nobody(world: World) -> None:
    at = Traced(world)
    task = asyncio.create_task(at.call(refund()))
    [approval] = await until(world.pending)
    world.vote(approval)
    await complete(await task)
    assert at.spans[0].links == ()
    assert "keybroker.hold" in [s.name for s in at.spans]
